"""Alembic's entry: migrates the database of the settings, or of a connection a caller hands over."""

from alembic import context
from sqlalchemy import Connection

from registry.db import current_engine, migration_connection
from registry.models import Base
from registry.models.base import UtcDateTime


def _render_item(kind: str, item: object, _api: object) -> str | bool:
    # Our own column type is a plain timestamp to the database; migrations must not import models.
    return "sa.DateTime(timezone=True)" if kind == "type" and isinstance(item, UtcDateTime) else False


def _run(connection: Connection) -> None:
    # batch mode: SQLite cannot alter a column in place
    context.configure(
        connection=connection, target_metadata=Base.metadata, render_as_batch=True, render_item=_render_item
    )
    with context.begin_transaction():
        context.run_migrations()


given = context.config.attributes.get("connection")
if given is not None:
    _run(given)
else:
    with migration_connection(current_engine()) as own:
        _run(own)
