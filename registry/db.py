"""Engines and sessions. This is the only module that commits.

One request or one job slice is one `transaction()`; verbs only flush. Jobs that a verb defers
leave after the commit: a worker can then never look for a row that is not there yet.
"""

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import Any

from sqlalchemy import Engine, create_engine, event, text
from sqlalchemy.orm import Session, sessionmaker

from registry import jobs
from registry.settings import get_settings


@lru_cache
def get_engine(url: str) -> Engine:
    """The pooled engine of a database URL, one a process."""
    url = url.replace("postgresql://", "postgresql+psycopg://", 1).replace("postgres://", "postgresql+psycopg://", 1)
    if not url.startswith("sqlite"):
        return create_engine(url, pool_pre_ping=True)
    engine = create_engine(url, connect_args={"timeout": 30})
    event.listen(engine, "connect", _prepare_sqlite)
    event.listen(engine, "begin", _begin_sqlite)
    return engine


def _prepare_sqlite(connection: sqlite3.Connection, _record: Any) -> None:
    # SQLAlchemy emits BEGIN itself (below); the driver's implicit one comes too late for reads.
    connection.isolation_level = None
    cursor = connection.cursor()
    for pragma in ("journal_mode=WAL", "synchronous=NORMAL", "foreign_keys=ON", "busy_timeout=30000"):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def _begin_sqlite(connection: Any) -> None:
    # A writer takes the lock at once: a deferred transaction that reads, then writes, fails with
    # "database is locked" without waiting when another writer came between.
    write = connection.get_execution_options().get("write", True)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if write else "BEGIN")


def current_engine() -> Engine:
    """The engine of the database in the settings."""
    return get_engine(get_settings().database)


@contextmanager
def transaction() -> Iterator[Session]:
    """A session that commits when the block ends and rolls back when it raises; then jobs go out."""
    with sessionmaker(current_engine(), expire_on_commit=False)() as session:
        try:
            yield session
            session.commit()
        except BaseException:
            session.rollback()
            raise
        jobs.send_deferred(session)


@contextmanager
def read_session() -> Iterator[Session]:
    """A session for reading: takes no write lock, commits nothing."""
    engine = current_engine().execution_options(write=False)
    with sessionmaker(engine, expire_on_commit=False)() as session:
        yield session


def is_alive() -> bool:
    """Whether the database answers; raises nothing but what the driver raises for a broken setting."""
    with read_session() as session:
        return bool(session.execute(text("SELECT 1")).scalar_one() == 1)
