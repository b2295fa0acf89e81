"""Migrations keep what older versions recorded."""

import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from alembic import command
from alembic.config import Config
from sqlalchemy import Engine, make_url, text

from registry import db
from tests.conftest import ROOT

OLD_ROWS = (
    "INSERT INTO runs (id, name, kind, status, config, git_revision, created_at, heartbeat_at) "
    "VALUES (1, 'old', 'training', 'running', '{}', '', '2026-01-01', '2026-01-01')",
    "INSERT INTO suites (id, name, created_at) VALUES (1, 'starter', '2026-01-01')",
    "INSERT INTO tasks (id, suite_id, name, version, title, title_zh, ability, output_type, metric, "
    "higher_is_better, is_probe, position, retired) "
    "VALUES (1, 1, 'a', '1', 'A', '', 'english', 'multiple_choice', 'acc', true, false, 0, false)",
    "INSERT INTO checkpoints (id, run_id, step, kind, precision, folder, digest, manifest, size_bytes, state, "
    "reason, created_at) VALUES (1, 1, 10, 'pretrained', 16, 'old/step-10', 'd', '{}', 1, 'ready', '', '2026-01-01')",
    "INSERT INTO evaluations (id, checkpoint_id, task_id, status, error, protocol, num_items, samples_file, "
    "created_at) VALUES (1, 1, 1, 'finished', '', '{}', 200, 'x.parquet', '2026-01-01')",
    "INSERT INTO results (id, evaluation_id, metric, value, n) VALUES (1, 1, 'acc', 0.5, 200)",
    "INSERT INTO tickets (id, lane, status, checkpoint_id, evaluation_id, issued_at, worker, fence, error) "
    "VALUES (1, 1, 'finished', 1, 1, '2026-01-01', '', 1, '')",
)


def upgrade(engine: Engine, revision: str) -> None:
    """Bring the tables to a revision."""
    config = Config(str(ROOT / "alembic.ini"))
    config.set_main_option("script_location", str(ROOT / "migrations"))
    with db.migration_connection(engine) as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, revision)


@pytest.fixture
def empty_postgres(postgres_url: str) -> Iterator[str]:
    """A PostgreSQL database without tables."""
    name = f"empty_{uuid.uuid4().hex}"
    server = db.get_engine(postgres_url).execution_options(isolation_level="AUTOCOMMIT")
    with server.connect() as connection:
        connection.exec_driver_sql(f"CREATE DATABASE {name}")
    url = make_url(postgres_url).set(database=name).render_as_string(hide_password=False)
    yield url
    db.get_engine(url).dispose()
    with server.connect() as connection:
        connection.exec_driver_sql(f"DROP DATABASE {name} WITH (FORCE)")


def test_results_of_the_first_version_stay_on_a_line_of_their_own(tmp_path: Path) -> None:
    engine = db.get_engine(f"sqlite:///{tmp_path / 'old.db'}")
    upgrade(engine, "0001")
    with engine.begin() as connection:
        for statement in OLD_ROWS:
            connection.execute(text(statement))
    upgrade(engine, "head")
    with engine.connect() as connection:
        assert connection.execute(text("SELECT value FROM results")).scalar_one() == pytest.approx(0.5)
        assert connection.execute(text("SELECT count(*) FROM tickets")).scalar_one() == 1
        row = connection.execute(text("SELECT protocol_key, num_done, is_compared FROM evaluations")).one()
        assert tuple(row) == ("before-0002", 200, 0)


@pytest.mark.parametrize("kind", ["sqlite", "postgres"])
def test_proposed_prompts_come_to_a_database_that_has_people_and_tasks(
    kind: str, tmp_path: Path, empty_postgres: str
) -> None:
    engine = db.get_engine(f"sqlite:///{tmp_path / 'old.db'}" if kind == "sqlite" else empty_postgres)
    upgrade(engine, "0003")
    with engine.begin() as connection:
        connection.execute(
            text(
                "INSERT INTO users (id, name, name_key, password_hash, role, created_at) "
                "VALUES (1, 'mei', 'mei', 'x', 'member', '2026-01-01')"
            )
        )
    upgrade(engine, "head")
    with engine.begin() as connection:
        for number in (1, 2):
            connection.execute(
                text(
                    "INSERT INTO proposed_prompts (id, item, text, state, reason, user_id, created_at) "
                    "VALUES (:id, :item, 'Once', 'waiting', '', 1, '2026-01-01')"
                ),
                {"id": number, "item": str(number)},
            )
        connection.execute(text("DELETE FROM users"))
        assert connection.execute(text("SELECT user_id FROM proposed_prompts")).scalars().all() == [None, None]


@pytest.mark.parametrize("table", ["users", "turns", "api_calls", "tickets"])
def test_an_id_that_the_broker_knows_is_never_given_again(table: str, sqlite_engine: Engine) -> None:
    with sqlite_engine.connect() as connection:
        made = connection.execute(
            text("SELECT sql FROM sqlite_master WHERE name = :name"), {"name": table}
        ).scalar_one()
    assert "AUTOINCREMENT" in made


def test_ids_of_rows_deleted_before_the_last_migration_are_not_given_again_either(tmp_path: Path) -> None:
    engine = db.get_engine(f"sqlite:///{tmp_path / 'old.db'}")
    upgrade(engine, "0008")
    person = (
        "INSERT INTO users (name, name_key, password_hash, role, created_at) VALUES (:n, :n, 'x', 'member', '2026')"
    )
    with engine.begin() as connection:
        connection.execute(text(person), [{"n": "a"}, {"n": "b"}])
    upgrade(engine, "head")
    with engine.begin() as connection:
        connection.execute(text("DELETE FROM users WHERE name = 'b'"))
        connection.execute(text(person), {"n": "c"})
        assert connection.execute(text("SELECT id FROM users ORDER BY id")).scalars().all() == [1, 3]


def test_a_migrated_database_has_the_tables_of_the_models_or_alembic_says_what_differs(
    sqlite_engine: Engine, postgres_engine: Engine
) -> None:
    for engine in (sqlite_engine, postgres_engine):
        config = Config(str(ROOT / "alembic.ini"))
        config.set_main_option("script_location", str(ROOT / "migrations"))
        with db.migration_connection(engine) as connection:
            config.attributes["connection"] = connection
            command.check(config)
