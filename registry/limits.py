"""Verbs of the limits that an administrator may change while the site runs.

What stands in the table goes before the environment. Each process looks every few seconds (`refresh`) and puts what it
finds into its own `Settings`, so that whoever asks for a limit need not know where it comes from.
"""

import re
import threading
import time
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import structlog
from pydantic import ValidationError
from sqlalchemy import select
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from registry import audit, db
from registry.errors import Invalid, NotFound
from registry.models import SiteSetting, User
from registry.models.base import utcnow
from registry.settings import Settings, get_settings

FRESH_SECONDS = 5.0
GROUPS: Mapping[str, Sequence[str]] = {
    "visitors": (
        "chat_limit",
        "max_prompt_chars",
        "film_frames",
        "vote_limit",
        "proposal_limit",
        "report_limit",
        "register_limit",
        "login_limit",
    ),
    "interface": ("api_limit", "api_concurrent", "api_tokens_per_day", "hub_limit"),
    "storage": (
        "max_upload_bytes",
        "upload_days",
        "checkpoints_bytes",
        "user_checkpoints_bytes",
        "free_disk_bytes",
        "cache_bytes",
        "quarantine_days",
    ),
    "evaluation": ("evaluation_budget_seconds", "milestone_every", "slice_seconds", "average_last"),
}
"""Those that are read each time they are needed, so that a change holds at once."""
CHANGEABLE = tuple(name for names in GROUPS.values() for name in names)
FIXED = ("answers_at_once", "swap_wait_seconds", "engine_threads", "run_code", "webhook_private_addresses")
"""Limits that a process reads once, when it starts, or that are a matter of safety: the environment alone sets them."""
UNITS = {"": 1, "b": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9, "tb": 10**12}
SIZE = re.compile(r"(\d{1,15}(?:\.\d{1,6})?)\s*([a-z]{0,2})", re.IGNORECASE)
MOST = 10**15
MOST_DAYS = 36_500
RATE = re.compile(r"[1-9]\d{0,6}/(second|minute|hour|day)")
MAX_CHARS = 40

log = structlog.get_logger(__name__)


class Limit(NamedTuple):
    """One limit in force."""

    name: str
    value: Any
    default: Any
    """What the environment says, or the site without it."""
    change: SiteSetting | None
    """By whom and when it was changed; None: it is the default."""

    @property
    def variable(self) -> str:
        """The environment variable that sets the default."""
        return f"GROW_{self.name.upper()}"


class _Look:
    def __init__(self) -> None:
        self.lock = threading.Lock()  # one thread looks, the others go on with what is known
        self.taken_at = float("-inf")
        self.settings: Settings | None = None
        """Those that were filled in last: a test makes new ones."""


_look = _Look()


def list_limits(session: Session) -> dict[str, list[Limit]]:
    """The limits that can be changed, by group."""
    changes = {row.name: row for row in session.scalars(select(SiteSetting))}
    defaults = Settings()

    def limit(name: str) -> Limit:
        change = changes.get(name)
        default = getattr(defaults, name)
        return Limit(name, default if change is None else _checked(name, change.value), default, change)

    return {group: [limit(name) for name in names] for group, names in GROUPS.items()}


def change(session: Session, admin: User, name: str, text: str) -> None:
    """Let a limit be another one from now on, in every process within seconds.

    Raises:
        NotFound: there is no such limit, or it cannot be changed at run time.
        Invalid: it cannot have that value.
    """
    _check_known(name)
    value = _parsed(name, text)
    row = session.get(SiteSetting, name)
    before = getattr(Settings(), name) if row is None else row.value
    if row is None:
        row = SiteSetting(name=name)
        session.add(row)
    row.value, row.user_id, row.changed_at = value, admin.id, utcnow()
    audit.note(session, admin, "limit_changed", f"limit:{name}", {"from": before, "to": value})


def reset(session: Session, admin: User, name: str) -> None:
    """Go back to what the environment says.

    Raises:
        NotFound: there is no such limit.
    """
    _check_known(name)
    row = session.get(SiteSetting, name)
    if row is not None:
        session.delete(row)
        session.flush()  # a second reset finds nothing to take back
        audit.note(session, admin, "limit_reset", f"limit:{name}", {"from": row.value, "to": getattr(Settings(), name)})


def refresh(*, fresh: bool = False) -> None:
    """Put what the table says into this process's settings, where the last look is older than `FRESH_SECONDS`.

    A database that does not answer changes nothing: the limits stay as they were.
    """
    if not (fresh or is_stale()) or not _look.lock.acquire(blocking=fresh):
        return
    try:
        with db.read_session() as session:
            rows = {row.name: row.value for row in session.scalars(select(SiteSetting))}
        _fill(rows)
    except SQLAlchemyError as error:
        log.warning("The limits cannot be read; they stay as they are.", error=str(error))
    finally:
        _look.taken_at, _look.settings = time.monotonic(), get_settings()
        _look.lock.release()


def is_stale() -> bool:
    """Whether `refresh` would look."""
    return time.monotonic() - _look.taken_at > FRESH_SECONDS or _look.settings is not get_settings()


def _fill(rows: Mapping[str, Any]) -> None:
    settings, defaults = get_settings(), Settings()
    for name in CHANGEABLE:
        value = getattr(defaults, name)
        if name in rows:
            try:
                value = _checked(name, rows[name])
            except Invalid as error:  # a limit that an older version knew otherwise
                log.warning("A limit in the table cannot be used.", name=name, error=str(error))
        if getattr(settings, name) != value:
            setattr(settings, name, value)


def _check_known(name: str) -> None:
    if name not in CHANGEABLE:
        raise NotFound("There is no limit '%(name)s' that can be changed here.", name=name[:40])


def _parsed(name: str, text: str) -> Any:
    text = text.strip().replace(",", "").replace("_", "")
    if len(text) > MAX_CHARS:
        raise Invalid("A limit has at most %(limit)s characters.", limit=MAX_CHARS)
    if name.endswith("_bytes") and (size := SIZE.fullmatch(text)) and size[2].lower() in UNITS:
        return _checked(name, int(float(size[1]) * UNITS[size[2].lower()]))
    return _checked(name, text)


def _checked(name: str, value: Any) -> Any:
    """The value in its own type, judged by the rules of the setting itself."""
    if name.endswith("_limit"):
        if not isinstance(value, str) or not RATE.fullmatch(value):
            raise Invalid("Write it as 20/minute: a number, a stroke, and second, minute, hour or day.")
        return value
    try:
        made = Settings.__pydantic_validator__.validate_assignment(Settings.model_construct(), name, value)
    except ValidationError:
        raise _not_a_number(name) from None
    number = getattr(made, name)
    if not number <= _most(name):  # nor is it what floats call infinite
        raise _not_a_number(name)
    return number


def _most(name: str) -> float:
    rules = Settings.model_fields[name].metadata
    return next((float(rule.le) for rule in rules if hasattr(rule, "le")), MOST_DAYS if "_days" in name else MOST)


def _not_a_number(name: str) -> Invalid:
    rules = Settings.model_fields[name].metadata
    low = next((getattr(rule, "ge", None) or getattr(rule, "gt", 0) for rule in rules), 0)
    whole = Settings.model_fields[name].annotation is int
    values = {"low": f"{low:g}", "high": f"{_most(name):,.0f}"}
    if whole:
        return Invalid("This must be a whole number from %(low)s to %(high)s.", **values)
    return Invalid("This must be a number from %(low)s to %(high)s.", **values)
