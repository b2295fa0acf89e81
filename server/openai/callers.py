"""Who calls: the key of a request, what it may do, and how much of it is left."""

from collections.abc import Callable
from typing import Any

from fastapi import Request
from sqlalchemy.orm import Session

from registry import calls, db, keys
from registry.models import ApiKey, User
from registry.models.base import utcnow
from registry.settings import get_settings
from server import auth, limits
from server.i18n import gettext
from server.openai.errors import ApiError

SECONDS_A_DAY = 86_400
BUSY_RETRY_SECONDS = 5


def caller(scope: str) -> Callable[[Request], ApiKey]:
    """What a route depends on: the valid key of a request, with its user, that may do this."""

    def depend(request: Request) -> ApiKey:
        return find_caller(request, scope)

    return depend


def find_caller(request: Request, scope: str) -> ApiKey:
    """The key of a request, with its user.

    Raises:
        ApiError: 401 without a valid key, 403 where it may not do this.
        Refused: the person is banned.
        TooMany: too many requests of this person, or from this address.
    """
    limit = get_settings().api_limit
    limits.hit_address("api", limit, auth.client_address(request))
    kind, _, token = request.headers.get("authorization", "").partition(" ")
    if kind.lower() != "bearer" or not token.strip():
        message = gettext(
            "Send your API key in the header, as 'Authorization: Bearer grow_…'; the account page makes one."
        )
        raise ApiError(401, message)
    with db.read_session() as session:
        key = keys.find_key(session, token.strip())
    if key is None:
        raise ApiError(401, gettext("This API key is wrong, was revoked or has expired."))
    keys.check_allowed(key.user)
    if not keys.may(key, scope):
        message = gettext("This API key was not made for this; it may be used for: %(scopes)s.", scopes=key.scopes)
        raise ApiError(403, message, code="insufficient_scope")
    limits.hit("api", limit, str(key.user_id))
    if keys.needs_touch(key):
        with db.transaction() as session:
            keys.touch(session, key.id)
    return key


def check_room(session: Session, user: User, request: dict[str, Any], used: int) -> None:
    """Whether a person may send one more request now.

    Args:
        session: the transaction that will take it in.
        user: who sends it.
        request: what will be taken in.
        used: `calls.used_today`, read before: it only grows, and reading it takes longer than others should wait.

    Raises:
        ApiError: 429, saying when to come back.
    """
    settings = get_settings()
    number, reserved = calls.under_way(session, user)
    if number >= settings.api_concurrent:
        message = gettext(
            "You have %(limit)s requests under way, as many as there may be at a time. Wait for one of them.",
            limit=settings.api_concurrent,
        )
        raise _too_many(message, BUSY_RETRY_SECONDS)
    wanted = int(request["params"]["max_tokens"]) * calls.num_choices(request)
    if used + reserved + wanted > settings.api_tokens_per_day:
        message = gettext(
            "This would exceed your %(limit)s tokens a day: %(used)s are used, and this request may write %(wanted)s. "
            "The day ends at midnight, UTC.",
            limit=f"{settings.api_tokens_per_day:,}",
            used=f"{used + reserved:,}",
            wanted=f"{wanted:,}",
        )
        raise _too_many(message, seconds_left_today())


def seconds_left_today() -> int:
    """Until midnight, UTC."""
    now = utcnow()
    return SECONDS_A_DAY - (now.hour * 3600 + now.minute * 60 + now.second)


def _too_many(message: str, seconds: int) -> ApiError:
    return ApiError(429, message, code="rate_limit_exceeded", headers={"Retry-After": str(seconds)})
