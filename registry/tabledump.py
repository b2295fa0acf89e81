"""All rows of a database as text files, and back: the same from SQLite and from PostgreSQL, into either.

A table is one gzip file: a line that names its columns and how their values are written, then a line a row, ordered
by the primary key. Two databases with the same rows give the same lines, whichever they are.
"""

import base64
import datetime as dt
import gzip
import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from sqlalchemy import (
    JSON,
    Connection,
    DateTime,
    Engine,
    LargeBinary,
    MetaData,
    Table,
    cast,
    column,
    func,
    insert,
    null,
    select,
    text,
)
from sqlalchemy import table as table_of
from sqlalchemy.dialects.postgresql import REGCLASS
from sqlalchemy.exc import DBAPIError

from registry.errors import Invalid

VERSION_TABLE = "alembic_version"
BATCH = 2_000
ENDING = ".jsonl.gz"
_PLAIN, _TIME, _BYTES, _JSON = "plain", "time", "bytes", "json"


class Dumped(NamedTuple):
    """A table in a file."""

    rows: int
    sha256: str
    """Of the lines, before they are compressed."""


@contextmanager
def snapshot(engine: Engine) -> Iterator[Connection]:
    """A connection that sees the database as it is now until the block ends, whatever others write meanwhile."""
    if engine.dialect.name == "sqlite":
        opened = engine.connect().execution_options(write=False)
    else:
        opened = engine.connect().execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True)
    with opened as connection, connection.begin():
        revision(connection)  # SQLite's view begins with the first read
        yield connection


def revision(connection: Connection) -> str:
    """The migration that the tables are at.

    Raises:
        Invalid: there are no tables.
    """
    if not connection.dialect.has_table(connection, VERSION_TABLE):
        raise Invalid("The database has no tables yet.")
    found = connection.scalar(select(column("version_num")).select_from(table_of(VERSION_TABLE)))
    if found is None:
        raise Invalid("The database has no tables yet.")
    return str(found)


def tables(connection: Connection) -> list[Table]:
    """The tables as they are in the database, each after those that it refers to."""
    found = MetaData()
    found.reflect(connection)
    return [table for table in found.sorted_tables if table.name != VERSION_TABLE]


def dump(connection: Connection, folder: Path) -> dict[str, Dumped]:
    """Write every table into `folder`, which must be there; in a `snapshot` they belong together."""
    return {table.name: _dump(connection, table, folder / (table.name + ENDING)) for table in tables(connection)}


def _dump(connection: Connection, table: Table, path: Path) -> Dumped:
    kinds = [_kind(column.type) for column in table.columns]
    query = select(table).order_by(*table.primary_key.columns).execution_options(yield_per=BATCH, stream_results=True)
    digest, rows = hashlib.sha256(), 0
    with path.open("wb") as raw, gzip.GzipFile("", "wb", 3, raw, mtime=0) as file:

        def write(line: object) -> None:
            encoded = json.dumps(line, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"
            digest.update(encoded)
            file.write(encoded)

        write([[column.name, kind] for column, kind in zip(table.columns, kinds, strict=True)])
        for row in connection.execute(query):
            write([_encode(value, kind) for value, kind in zip(row, kinds, strict=True)])
            rows += 1
    return Dumped(rows, digest.hexdigest())


def check(path: Path, expected: Dumped) -> str:
    """What is wrong with a table's file, in a sentence; empty where it is as it was written."""
    try:
        digest, lines = hashlib.sha256(), 0
        with gzip.open(path, "rb") as file:
            for line in file:
                digest.update(line)
                lines += 1
    except (OSError, EOFError, gzip.BadGzipFile) as error:
        return f"{path.name} cannot be read: {error}"
    return "" if (lines - 1, digest.hexdigest()) == tuple(expected) else f"{path.name} is not as it was written."


def load(connection: Connection, folder: Path) -> None:
    """Put the rows of every file in `folder` into its table; the tables are there, at the dump's revision, and empty.

    Raises:
        Invalid: a file is of no table, or holds what the database does not take.
    """
    known = {table.name: table for table in tables(connection)}
    files = {path.name.removesuffix(ENDING): path for path in folder.glob("*" + ENDING)}
    if surplus := sorted(files.keys() - known.keys()):
        raise Invalid("The backup has a table '%(name)s' that does not exist here.", name=surplus[0][:80])
    for table in reversed(known.values()):
        connection.execute(table.delete())  # migrations may have put rows in
    for name, table in known.items():
        if name in files:
            try:
                _load(connection, table, files[name])
            except (DBAPIError, ValueError, TypeError, KeyError, EOFError, OSError) as error:
                raise Invalid(
                    "The table '%(name)s' cannot be restored: %(error)s", name=name, error=str(error)[:300]
                ) from error


def _load(connection: Connection, table: Table, path: Path) -> None:
    with gzip.open(path, "rt", encoding="utf-8") as file:
        columns = [(table.columns[name], kind) for name, kind in json.loads(file.readline())]
        batch: list[dict[str, Any]] = []
        for line in file:
            values = json.loads(line)
            pairs = zip(columns, values, strict=True)
            batch.append({column.name: _decode(value, kind) for (column, kind), value in pairs})
            if len(batch) >= BATCH:
                _insert(connection, table, batch)
                batch = []
        if batch:
            _insert(connection, table, batch)


def _insert(connection: Connection, table: Table, rows: list[dict[str, Any]]) -> None:
    """A JSON column takes None as JSON's null: those rows go by themselves, with SQL's."""
    nullable = [column.name for column in table.columns if isinstance(column.type, JSON)]
    groups: dict[tuple[str, ...], list[dict[str, Any]]] = {}
    for row in rows:
        empty = tuple(name for name in nullable if row[name] is None)
        groups.setdefault(empty, []).append(row)
    for empty, members in groups.items():
        statement = insert(table).values({name: null() for name in empty}) if empty else insert(table)
        connection.execute(
            statement, [{key: value for key, value in row.items() if key not in empty} for row in members]
        )


def counters(connection: Connection) -> dict[str, int]:
    """The last id that each table has given out: an id that was once given is never given again."""
    found: dict[str, int] = {}
    if connection.dialect.name == "sqlite":
        if connection.dialect.has_table(connection, "sqlite_sequence"):
            found = {
                name: int(last) for name, last in connection.execute(text("SELECT name, seq FROM sqlite_sequence"))
            }
        return found
    for table in tables(connection):
        name = _sequence(connection, table)
        last = connection.scalar(select(func.pg_sequence_last_value(cast(name, REGCLASS)))) if name else None
        if last is not None:
            found[table.name] = int(last)
    return found


def set_counters(connection: Connection, last: Mapping[str, int]) -> None:
    """Let new rows get ids after those that were given out before, and after those that are there."""
    for table in tables(connection):
        if "id" not in table.columns or [column.name for column in table.primary_key.columns] != ["id"]:
            continue
        newest = connection.scalar(select(func.max(table.c.id)))
        value = max(int(newest or 0), int(last.get(table.name, 0)))
        if not value:
            continue
        if connection.dialect.name == "sqlite":
            _set_sqlite_counter(connection, table.name, value)
        elif (name := _sequence(connection, table)) is not None:
            connection.execute(select(func.setval(name, value)))


def _set_sqlite_counter(connection: Connection, table: str, value: int) -> None:
    """Only tables with AUTOINCREMENT have one."""
    if connection.dialect.has_table(connection, "sqlite_sequence"):
        values = {"table": table, "value": value}
        connection.execute(text("UPDATE sqlite_sequence SET seq = :value WHERE name = :table"), values)
        query = (
            "INSERT INTO sqlite_sequence (name, seq) SELECT :table, :value FROM sqlite_master WHERE type = 'table' "
            "AND name = :table AND sql LIKE '%AUTOINCREMENT%' "
            "AND NOT EXISTS (SELECT 1 FROM sqlite_sequence WHERE name = :table)"
        )
        connection.execute(text(query), values)


def _sequence(connection: Connection, table: Table) -> str | None:
    if "id" not in table.columns:
        return None
    found: str | None = connection.scalar(select(func.pg_get_serial_sequence(table.name, "id")))
    return found


def _kind(column_type: Any) -> str:
    if isinstance(column_type, DateTime):
        return _TIME
    if isinstance(column_type, LargeBinary):
        return _BYTES
    return _JSON if isinstance(column_type, JSON) else _PLAIN


def _encode(value: Any, kind: str) -> Any:
    if value is None or kind == _JSON:
        return value
    if kind == _TIME:
        moment: dt.datetime = value if value.tzinfo is not None else value.replace(tzinfo=dt.UTC)
        return moment.astimezone(dt.UTC).isoformat()
    return base64.b64encode(value).decode() if kind == _BYTES else value


def _decode(value: Any, kind: str) -> Any:
    if value is None or kind == _JSON:
        return value
    if kind == _TIME:
        return dt.datetime.fromisoformat(value)
    return base64.b64decode(value, validate=True) if kind == _BYTES else value


def drop_everything(connection: Connection) -> None:
    """Drop every table, the migrations' own too."""
    found = MetaData()
    found.reflect(connection)
    found.drop_all(connection)


def has_rows(connection: Connection, names: Sequence[str]) -> bool:
    """Whether any of these tables is there and holds a row."""
    present = {table.name: table for table in tables(connection)}
    return any(
        connection.execute(select(1).select_from(present[name]).limit(1)).first() for name in names if name in present
    )
