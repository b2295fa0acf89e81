"""The declarative base, the column types that both databases share, and the clock."""

import datetime as dt

from sqlalchemy import DateTime, Dialect, MetaData
from sqlalchemy.orm import DeclarativeBase
from sqlalchemy.types import TypeDecorator

QUEUED, RUNNING, FINISHED, FAILED, CANCELLED = "queued", "running", "finished", "failed", "cancelled"
"""The one vocabulary of statuses for runs, evaluations, tickets and turns."""

VERIFYING, READY, REJECTED, RETIRED = "verifying", "ready", "rejected", "retired"
"""States of a checkpoint."""

EXTERNAL = "external"
"""State of a checkpoint that is known by imported results alone: it has no files here."""

SCORED = (READY, EXTERNAL, RETIRED)
"""States of checkpoints whose scores, samples and curves count: deleting files takes no result away."""


NEVER_AGAIN = {"sqlite_autoincrement": True}
"""For tables whose ids are known outside the database: SQLite otherwise gives a deleted row's id to the next one, whose
watchers would then be told the old row's events, which the broker still holds."""


class UtcDateTime(TypeDecorator[dt.datetime]):
    """Aware UTC datetimes; SQLite drops the zone, so it is put back on reading."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: dt.datetime | None, dialect: Dialect) -> dt.datetime | None:
        """Convert to UTC before storing."""
        return value.astimezone(dt.UTC) if value is not None else None

    def process_result_value(self, value: dt.datetime | None, dialect: Dialect) -> dt.datetime | None:
        """Attach UTC where the database gave a naive value."""
        if value is None:
            return None
        return value.replace(tzinfo=dt.UTC) if value.tzinfo is None else value.astimezone(dt.UTC)


class Base(DeclarativeBase):
    """Names every constraint, so that migrations can refer to it on both databases."""

    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "ck": "ck_%(table_name)s_%(constraint_name)s",
            "fk": "fk_%(table_name)s_%(column_0_name)s",
            "pk": "pk_%(table_name)s",
        }
    )


def utcnow() -> dt.datetime:
    """The time now, aware, in UTC."""
    return dt.datetime.now(dt.UTC)
