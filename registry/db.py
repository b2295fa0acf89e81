"""Engines and sessions. This is the only module that commits.

One request or one job slice is one `transaction()`; verbs only flush. Jobs that a verb defers
leave after the commit: a worker can then never look for a row that is not there yet.
"""

import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import Any

from sqlalchemy import Connection, Engine, NullPool, create_engine, event, text
from sqlalchemy.orm import Session, sessionmaker

from registry import audit, events, jobs
from registry.errors import Invalid
from registry.settings import get_settings

LOCK_SECONDS = 30.0
"""How long a writer waits for those before it."""
LOCK_PAUSE_SECONDS = 0.001


@lru_cache
def get_engine(url: str) -> Engine:
    """The pooled engine of a database URL, one a process."""
    url = url.replace("postgresql://", "postgresql+psycopg://", 1).replace("postgres://", "postgresql+psycopg://", 1)
    if not url.startswith("sqlite"):
        return create_engine(url, pool_pre_ping=True)
    engine = create_engine(url, connect_args={"timeout": 30})
    event.listen(engine, "connect", _prepare_sqlite)
    writers = _Writers()
    event.listen(engine, "begin", writers.begin)
    event.listen(engine, "commit", writers.end)
    event.listen(engine, "rollback", writers.end)
    event.listen(engine, "checkin", writers.leave)
    return engine


def _prepare_sqlite(connection: sqlite3.Connection, _record: Any) -> None:
    # SQLAlchemy emits BEGIN itself (below); the driver's implicit one comes too late for reads.
    connection.isolation_level = None
    cursor = connection.cursor()
    waits = f"busy_timeout={int(LOCK_SECONDS * 1000)}"
    for pragma in ("journal_mode=WAL", "synchronous=NORMAL", "foreign_keys=ON", waits):
        cursor.execute(f"PRAGMA {pragma}")
    # Pages of the file are read in place: a view of ten curves takes 15 ms instead of 25 (benchmarks/growth.py).
    cursor.execute(f"PRAGMA mmap_size={2**30}")
    cursor.close()


class _Writers:
    """Threads of this process that want to write one SQLite file: one at a time asks for the file's lock.

    Forty threads that each ask once a millisecond are busier with that than with their work.
    """

    def __init__(self) -> None:
        self._turn = threading.Lock()

    def begin(self, connection: Any) -> None:
        """Begin a transaction; for writing once it is this thread's turn.

        Raises:
            OperationalError: others have been writing all the time.
        """
        if not connection.get_execution_options().get("write", True):
            connection.exec_driver_sql("BEGIN")
            return
        if not self._turn.acquire(timeout=LOCK_SECONDS):
            raise sqlite3.OperationalError("database is locked")
        try:
            _take_lock(connection)
        except BaseException:
            self._turn.release()
            raise
        connection.info["turn"] = self._turn

    def end(self, connection: Any) -> None:
        """The transaction is about to end: the next one may ask for the file's lock."""
        self.leave(None, connection)

    @staticmethod
    def leave(_connection: Any, record: Any) -> None:
        """A connection, or its record that goes back to the pool, needs its turn no longer."""
        if turn := record.info.pop("turn", None):
            turn.release()


def _take_lock(connection: Any) -> None:
    # A writer takes the lock at once: a deferred transaction that reads, then writes, fails with
    # "database is locked" without waiting when another writer came between. SQLite itself asks for the lock less and
    # less often, up to every 100 ms, and comes too late while others write one after another (benchmarks/line.py).
    driver = connection.connection.driver_connection
    deadline = time.monotonic() + LOCK_SECONDS
    driver.execute("PRAGMA busy_timeout=0")
    try:
        while not _takes_lock(driver):
            if time.monotonic() > deadline:
                driver.execute("BEGIN IMMEDIATE")  # raises what the driver says
            time.sleep(LOCK_PAUSE_SECONDS)
    finally:
        driver.execute(f"PRAGMA busy_timeout={int(LOCK_SECONDS * 1000)}")


def _takes_lock(driver: sqlite3.Connection) -> bool:
    try:
        driver.execute("BEGIN IMMEDIATE")
    except sqlite3.OperationalError as error:
        if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY:
            raise
        return False
    return True


def current_engine() -> Engine:
    """The engine of the database in the settings."""
    return get_engine(get_settings().database)


@contextmanager
def migration_connection(engine: Engine) -> Iterator[Connection]:
    """A connection in a transaction that may rebuild tables; committed when the block ends.

    SQLite alters a table by building it anew, and dropping the old one would delete its children's
    rows through their foreign keys; they are switched off here, which works only outside a transaction.
    """
    if engine.dialect.name != "sqlite":
        with engine.begin() as connection:
            yield connection
        return
    own = create_engine(engine.url, connect_args={"timeout": 30}, poolclass=NullPool)
    event.listen(own, "connect", _prepare_sqlite)
    event.listen(own, "connect", lambda connection, _record: connection.execute("PRAGMA foreign_keys=OFF"))
    event.listen(own, "begin", _take_lock)
    with own.begin() as connection:
        yield connection
        if broken := connection.exec_driver_sql("PRAGMA foreign_key_check").first():
            raise Invalid("The migration left a row of %(table)s without what it refers to.", table=broken[0])


@lru_cache
def _sessions(engine: Engine, *, write: bool) -> sessionmaker[Session]:
    """Kept, because each of these is a class of its own, and making one costs more than a small query."""
    return sessionmaker(engine if write else engine.execution_options(write=False), expire_on_commit=False)


@contextmanager
def transaction() -> Iterator[Session]:
    """A session that commits when the block ends and rolls back when it raises; then jobs go out."""
    with _sessions(current_engine(), write=True)() as session:
        try:
            yield session
            session.commit()
        except BaseException:
            session.rollback()
            _keep_audit(session)
            raise
        _keep_audit(session)
        events.send_announced(session)
        if not events.ring_deferred(session):
            jobs.defer(session, jobs.WORK)  # the message waits until there is a worker
        jobs.send_deferred(session)


def _keep_audit(session: Session) -> None:
    """What was refused is written down although its transaction is gone."""
    if entries := audit.take_kept(session):
        session.add_all(entries)
        session.commit()


@contextmanager
def read_session() -> Iterator[Session]:
    """A session for reading: takes no write lock, commits nothing."""
    with _sessions(current_engine(), write=False)() as session:
        yield session


def is_alive() -> bool:
    """Whether the database answers; raises nothing but what the driver raises for a broken setting."""
    with read_session() as session:
        return bool(session.execute(text("SELECT 1")).scalar_one() == 1)
