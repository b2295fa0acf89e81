"""Ids that others than the database know are given once, on SQLite, too: a new row never gets a deleted one's."""

from alembic import op

revision = "0009"
down_revision = "0008"

TABLES = ("users", "turns", "api_calls", "tickets")


def upgrade() -> None:
    _rebuild(gives_ids_once=True)


def downgrade() -> None:
    _rebuild(gives_ids_once=False)


def _rebuild(*, gives_ids_once: bool) -> None:
    if op.get_bind().dialect.name != "sqlite":
        return  # a sequence never goes back
    for name in TABLES:
        with op.batch_alter_table(name, recreate="always", table_kwargs={"sqlite_autoincrement": gives_ids_once}):
            pass
