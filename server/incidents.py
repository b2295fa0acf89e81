"""Incidents that last, for the line across the top of every page; asked of the database at most every few seconds."""

import time
from collections.abc import Sequence
from threading import Lock
from typing import Any

from fastapi import Request

from registry import db, news
from registry.models import Post
from registry.settings import get_settings

FRESH_SECONDS = 5.0


class _Cache:
    def __init__(self) -> None:
        self.lock = Lock()  # many request threads; one of them asks, the others use its answer
        self.taken_at = float("-inf")
        self.database = ""
        self.posts: Sequence[Post] = ()


_cache = _Cache()


def page_context(_request: Request) -> dict[str, Any]:
    """`incidents` for every template: those that last now."""
    return {"incidents": lasting()}


def lasting() -> Sequence[Post]:
    """Those that last, as of a few seconds ago."""
    with _cache.lock:
        database = get_settings().database
        if time.monotonic() - _cache.taken_at > FRESH_SECONDS or database != _cache.database:
            with db.read_session() as session:
                _cache.posts = news.open_incidents(session)
            _cache.taken_at, _cache.database = time.monotonic(), database
        return _cache.posts


def forget() -> None:
    """Ask again at the next page: something has changed."""
    with _cache.lock:
        _cache.taken_at = float("-inf")
