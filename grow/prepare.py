"""What must be true before a service starts: folders, tables, tasks, an administrator."""

import secrets
from pathlib import Path

from alembic import command
from alembic.config import Config

from registry import accounts, suites
from registry.db import current_engine, migration_connection, transaction
from registry.settings import Settings

ROOT = Path(__file__).resolve().parent.parent
ADMIN = "admin"


def prepare(settings: Settings) -> str | None:
    """Make what is missing; returns the generated password if an administrator was made now."""
    settings.home.mkdir(parents=True, exist_ok=True, mode=0o700)
    migrate()
    with transaction() as session:
        suites.sync(session)
        if accounts.has_admin(session):
            return None
        password = new_password()
        accounts.create_admin(session, ADMIN, password)
        return password


def migrate(revision: str = "head") -> None:
    """Bring the database to the tables of a revision, by default the newest."""
    config = Config(str(ROOT / "alembic.ini"))
    config.set_main_option("script_location", str(ROOT / "migrations"))
    with migration_connection(current_engine()) as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, revision)


def new_password() -> str:
    """A password that cannot be guessed and can be typed."""
    return "-".join(secrets.token_hex(2) for _ in range(5))
