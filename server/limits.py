"""How often somebody may do something: counted in the broker, and in this process while that is away."""

import hashlib
import math
import time
from collections.abc import Callable
from functools import lru_cache
from threading import Lock

import redis.exceptions
import structlog
from fastapi import HTTPException
from limits import RateLimitItem, parse
from limits.storage import MemoryStorage, Storage, storage_from_string
from limits.strategies import FixedWindowRateLimiter

from registry.settings import get_settings
from server.i18n import gettext

AWAY_SECONDS = 10.0
"""After a failure the broker is left alone for this long, so that no page waits for its time-out twice."""

ADDRESS_SHARE = 5
"""So many times a person's limit may come from one address: many people can share one."""

Question = Callable[[FixedWindowRateLimiter], bool]

log = structlog.get_logger(__name__)
_memory = MemoryStorage()


class TooMany(HTTPException):
    """A limit was reached; says how long to wait. Shown as a 429 page where a route does not show it itself."""

    def __init__(self, retry_seconds: int, *, is_of_address: bool = False) -> None:
        self.retry_seconds, self.is_of_address = retry_seconds, is_of_address
        detail = gettext("That was too often. Wait %(seconds)s seconds and try again.", seconds=retry_seconds)
        super().__init__(429, detail, headers={"Retry-After": str(retry_seconds)})


class _Outage:
    def __init__(self) -> None:
        self.lock = Lock()  # request threads note and read the end of the pause
        self.until = float("-inf")

    def begin(self) -> None:
        with self.lock:
            self.until = time.monotonic() + AWAY_SECONDS

    def lasts(self) -> bool:
        with self.lock:
            return time.monotonic() < self.until


_outage = _Outage()


def hit(scope: str, limit: str, who: str) -> None:
    """Count one more.

    Args:
        scope: what is counted, for example "chat".
        limit: the notation of the `limits` library, for example "20/minute".
        who: whose count it is; only its hash is kept.

    Raises:
        TooMany: that is one too many.
    """
    item, key = parse(limit), _key(scope, who)
    if not _ask(lambda limiter: limiter.hit(item, *key)):
        raise TooMany(_wait(item, key))


def hit_address(scope: str, limit: str, address: str) -> None:
    """Count one more from an address; `limit` is a person's.

    Raises:
        TooMany: the people there have done too much together.
    """
    try:
        hit(f"{scope}-address", of_address(limit), address)
    except TooMany as error:
        raise TooMany(error.retry_seconds, is_of_address=True) from None


def of_address(limit: str) -> str:
    """What may come from one address, where a person may do this much."""
    amount, _, period = limit.partition("/")
    return f"{int(amount) * ADDRESS_SHARE}/{period}"


def check(scope: str, limit: str, who: str) -> None:
    """Whether one more would be accepted, without counting it.

    Raises:
        TooMany: it would not.
    """
    item, key = parse(limit), _key(scope, who)
    if not _ask(lambda limiter: limiter.test(item, *key)):
        raise TooMany(_wait(item, key))


def clear(scope: str, limit: str, who: str) -> None:
    """Forget what was counted."""
    item, key = parse(limit), _key(scope, who)

    def forget(limiter: FixedWindowRateLimiter) -> bool:
        limiter.clear(item, *key)
        return True

    _ask(forget)


def _wait(item: RateLimitItem, key: tuple[str, str]) -> int:
    found: list[float] = []

    def look(limiter: FixedWindowRateLimiter) -> bool:
        found.append(limiter.get_window_stats(item, *key).reset_time)
        return True

    _ask(look)
    return max(1, math.ceil(found[-1] - time.time()))


def _key(scope: str, who: str) -> tuple[str, str]:
    return scope, hashlib.sha256(who.encode()).hexdigest()[:32]


def _ask(question: Question) -> bool:
    if not _outage.lasts():
        try:
            return question(FixedWindowRateLimiter(_broker(get_settings().redis)))
        except redis.exceptions.RedisError as error:
            _outage.begin()
            log.warning("The broker is away; limits are counted in this process.", error=str(error))
    return question(FixedWindowRateLimiter(_memory))


@lru_cache
def _broker(url: str) -> Storage:
    # limits' own name of the scheme for sockets
    url = url.replace("unix://", "redis+unix://", 1)
    return storage_from_string(url, socket_connect_timeout=1, socket_timeout=2)  # type: ignore[return-value]
