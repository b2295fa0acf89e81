"""The real application on a migrated SQLite database, empty or with a run that looks like a real one."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from sqlalchemy import event

from registry import db
from registry.settings import get_settings
from server import pulse
from server.app import create_app
from tests.conftest import migrate
from tests.server import shelves
from tests.server.seed import seed

BROWSER = {"accept": "text/html,application/xhtml+xml"}


@pytest.fixture(scope="session")
def app() -> FastAPI:
    """The application, which keeps nothing of a test: to make it and its middleware takes 0.7 s."""
    return create_app()


@pytest.fixture
def client(database: Path, app: FastAPI) -> Iterator[TestClient]:
    """A browser without cookies before an empty site; a crash is answered with the error page."""
    pulse.forget()
    with TestClient(app, headers=BROWSER, raise_server_exceptions=False) as opened:
        yield opened


@contextmanager
def _own_home(home: Path) -> Iterator[None]:
    """The settings of a folder that a fixture fills once for many tests."""
    before = {name: os.environ.get(name) for name in ("GROW_HOME", "GROW_REDIS_URL")}
    os.environ.update(GROW_HOME=str(home), GROW_REDIS_URL="redis://127.0.0.1:1/0")
    get_settings.cache_clear()
    try:
        yield
        db.current_engine().dispose()
    finally:
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})
        get_settings.cache_clear()


@pytest.fixture(scope="session")
def seeded_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder with a run, made once; tests get copies."""
    home = tmp_path_factory.mktemp("seeded")
    with _own_home(home):
        migrate(db.current_engine())
        with db.transaction() as session:
            seed(session)
            session.info.pop("deferred_jobs", None)  # no broker listens
    return home


@pytest.fixture(scope="session")
def shelves_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder with checkpoints that have files, made once; tests get copies."""
    home = tmp_path_factory.mktemp("shelves")
    with _own_home(home):
        migrate(db.current_engine())
        shelves.fill()
    return home


@pytest.fixture
def shelf(shelves_home: Path, grow_home: Path) -> Path:
    """A data folder of this test's own, see `tests.server.shelves.fill`."""
    shutil.copytree(shelves_home, grow_home, dirs_exist_ok=True)
    return grow_home


@pytest.fixture
def seeded(seeded_home: Path, grow_home: Path, app: FastAPI) -> Iterator[TestClient]:
    """A browser before a site that has trained for forty minutes."""
    shutil.copytree(seeded_home, grow_home, dirs_exist_ok=True)
    pulse.forget()
    with TestClient(app, headers=BROWSER, raise_server_exceptions=False) as opened:
        yield opened


CLOCKED = ("FROM site_settings", "WHERE posts.kind = ?")
"""Limits and incidents are looked up every few seconds, whichever page comes then."""


class Queries(list[str]):
    """The SQL statements sent while the fixture was used."""


@pytest.fixture
def queries(grow_home: Path) -> Iterator[Queries]:
    """Records the queries that reach this test's database, but for those of `CLOCKED`."""
    seen = Queries()

    def note(_connection: object, _cursor: object, statement: str, *_rest: object) -> None:
        if statement.lstrip().upper().startswith("SELECT") and not any(part in statement for part in CLOCKED):
            seen.append(statement)

    engine = db.current_engine()
    event.listen(engine, "before_cursor_execute", note)
    yield seen
    event.remove(engine, "before_cursor_execute", note)
