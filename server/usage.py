"""What a person's requests to the OpenAI-compatible interface have used, as the account page shows it."""

import datetime as dt
from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy.orm import Session

from registry import calls, keys
from registry.models import User
from registry.models.base import utcnow
from registry.settings import get_settings
from server.i18n import gettext

DAYS = 30


@dataclass(frozen=True)
class DayBar:
    """One day of the last thirty."""

    day: dt.date
    requests: int
    tokens: int
    share: float
    """Of the busiest day's tokens, from 0 to 1."""


@dataclass(frozen=True)
class KeyRow:
    """What one key has used in these days."""

    name: str
    requests: int
    prompt_tokens: int
    completion_tokens: int


@dataclass(frozen=True)
class UsageView:
    """Context of accounts/_usage.html."""

    used_today: int
    limit: int
    days: Sequence[DayBar]
    by_key: Sequence[KeyRow]

    @property
    def share(self) -> float:
        """Of today's tokens that is gone, from 0 to 1."""
        return min(1.0, self.used_today / self.limit) if self.limit else 1.0

    @property
    def has_any(self) -> bool:
        """Whether anything was asked in these days."""
        return bool(self.by_key)


def of_user(session: Session, user: User) -> UsageView:
    """The last thirty days, every one of them, and each key that was used."""
    rows = calls.usage(session, user, DAYS)
    today = utcnow().date()
    days = [today - dt.timedelta(days=back) for back in reversed(range(DAYS))]
    tokens = {day: sum(row.tokens for row in rows if row.day == day) for day in days}
    most = max(tokens.values()) or 1
    bars = [
        DayBar(day, sum(row.requests for row in rows if row.day == day), tokens[day], tokens[day] / most)
        for day in days
    ]
    now = calls.today(session, user)
    limit = get_settings().api_tokens_per_day
    return UsageView(now.used, limit, bars, _by_key(rows, keys.names(session, user)))


def _by_key(rows: Sequence[calls.Usage], names: dict[int, str]) -> list[KeyRow]:
    found = []
    for key_id in dict.fromkeys(row.key_id for row in rows):
        own = [row for row in rows if row.key_id == key_id]
        name = names.get(key_id, "") if key_id is not None else ""
        found.append(
            KeyRow(
                name or gettext("a key that is gone"),
                sum(row.requests for row in own),
                sum(row.prompt_tokens for row in own),
                sum(row.completion_tokens for row in own),
            )
        )
    return sorted(found, key=lambda row: -(row.prompt_tokens + row.completion_tokens))
