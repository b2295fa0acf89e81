"""Whether the broker and the workers are there, asked at most every few seconds.

Pages show a banner from this; `routes.health` answers probes with it.
"""

import time
from dataclasses import dataclass, field
from threading import Lock

from registry import events

FRESH_SECONDS = 5.0


@dataclass(frozen=True)
class Pulse:
    """One look at the services behind the site."""

    broker: bool
    workers: dict[str, str] = field(default_factory=dict)
    """Names of the workers heard from lately, and what each does."""


class _Cache:
    def __init__(self) -> None:
        self.lock = Lock()  # many request threads; one of them asks the broker, the others use its answer
        self.taken_at = float("-inf")
        self.pulse = Pulse(broker=True)


_cache = _Cache()


def take(*, fresh: bool = False) -> Pulse:
    """The last look, or a new one where it is older than `FRESH_SECONDS`."""
    with _cache.lock:
        if fresh or time.monotonic() - _cache.taken_at > FRESH_SECONDS:
            workers = events.live_workers()
            _cache.pulse = Pulse(broker=workers is not None, workers=workers or {})
            _cache.taken_at = time.monotonic()
        return _cache.pulse


def forget() -> None:
    """Look again at the next question; for tests, which change the broker."""
    with _cache.lock:
        _cache.taken_at = float("-inf")
