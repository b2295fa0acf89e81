"""Live events on Redis streams: the board that pages watch, and one stream for each chat turn.

Board events: `checkpoint` {run, step, checkpoint_id, state}, `evaluation` {run, step, task,
checkpoint_id}, `metrics` {run, step}, `post` {}.
Turn events: `queued` {ahead_chats, ahead_evaluations, low, high}, `start` {attempt}, `delta` {text},
`done` {status, finish_reason, error}.
Streams are a convenience for watchers: the rows are the truth, and a watcher who comes too late
or finds the broker away reads those.
"""

import json
import re
import time
from collections.abc import AsyncIterator
from typing import Any, NamedTuple

import redis
import redis.asyncio
import structlog

from registry.settings import get_settings

BOARD_KEY = "grow:board"
BOARD_LENGTH = 1_000
TURN_LENGTH = 20_000
TURN_KEPT_SECONDS = 3_600
KEEP_ALIVE_MS = 15_000
WORKER_KEY = "grow:workers"
WORKER_SILENT_SECONDS = 30

log = structlog.get_logger(__name__)
_clients: dict[str, redis.Redis] = {}


class Event(NamedTuple):
    """One entry of a stream; `id` is what a browser sends back as Last-Event-ID."""

    id: str
    kind: str
    data: dict[str, Any]


def client() -> redis.Redis:
    """The shared connection pool of the broker in the settings."""
    url = get_settings().redis
    if url not in _clients:
        _clients[url] = redis.Redis.from_url(
            url, decode_responses=True, socket_connect_timeout=2, socket_timeout=10, health_check_interval=30
        )
    return _clients[url]


def async_client() -> redis.asyncio.Redis:
    """A client for one event loop; reads may block for the keep-alive time."""
    timeout = KEEP_ALIVE_MS / 1000 + 5
    return redis.asyncio.Redis.from_url(
        get_settings().redis, decode_responses=True, socket_connect_timeout=2, socket_timeout=timeout
    )


def turn_key(turn_id: int) -> str:
    """Name of a turn's stream."""
    return f"grow:turn:{turn_id}"


def publish_board(kind: str, data: dict[str, Any]) -> bool:
    """Tell every open page. False, with a warning in the log, when the broker is down."""
    return _append(BOARD_KEY, kind, data, BOARD_LENGTH)


def append_turn(turn_id: int, kind: str, data: dict[str, Any]) -> bool:
    """Add to a turn's stream; `done` starts its expiry."""
    key = turn_key(turn_id)
    sent = _append(key, kind, data, TURN_LENGTH)
    if sent and kind == "done":
        _quietly("EXPIRE", lambda: client().expire(key, TURN_KEPT_SECONDS))
    return sent


def request_stop(turn_id: int) -> bool:
    """Ask the worker that answers this turn to stop; it looks several times a second."""
    return _quietly("SET", lambda: client().set(f"{turn_key(turn_id)}:stop", "1", ex=TURN_KEPT_SECONDS)) is not None


def stop_requested(turn_id: int) -> bool:
    """Whether a stop was asked for; False when the broker cannot be asked."""
    return bool(_quietly("EXISTS", lambda: client().exists(f"{turn_key(turn_id)}:stop")))


def worker_beat(worker: str, doing: str) -> bool:
    """A worker's sign of life, with what it is doing in a few words."""
    mark = json.dumps({"at": time.time(), "doing": doing})
    return _quietly("HSET", lambda: client().hset(WORKER_KEY, worker, mark)) is not None


def live_workers() -> dict[str, str] | None:
    """Workers heard from lately and what they do; None when the broker is down."""
    marks = _quietly("HGETALL", lambda: client().hgetall(WORKER_KEY))
    if marks is None:
        return None
    heard = {name: json.loads(mark) for name, mark in marks.items()}
    since = time.time() - WORKER_SILENT_SECONDS
    return {name: mark["doing"] for name, mark in heard.items() if mark["at"] > since}


def broker_alive() -> bool:
    """Whether the broker answers now."""
    return bool(_quietly("PING", lambda: client().ping()))


async def follow(
    connection: redis.asyncio.Redis, key: str, last_id: str = "0", *, block_ms: int = KEEP_ALIVE_MS
) -> AsyncIterator[Event | None]:
    """Entries after `last_id`, for ever; None when `block_ms` passed without one.

    Start with "0" to replay the stream or "$" for what comes from now on.

    Raises:
        redis.exceptions.RedisError: the broker went away; the caller ends the response and the
            browser reconnects.
    """
    last_id = await _from_now(connection, key) if last_id == "$" else checked_id(last_id)
    while True:
        answer: Any = await connection.xread({key: last_id}, count=500, block=block_ms)
        if not answer:
            yield None
            continue
        [(_key, entries)] = answer
        for last_id, fields in entries:
            yield Event(last_id, fields["kind"], json.loads(fields["data"]))


def checked_id(last_id: str) -> str:
    """`last_id` where it has the form of a stream id, else "0": it comes from a browser's header."""
    return last_id if re.fullmatch(r"\d{1,20}(-\d{1,20})?", last_id) else "0"


async def _from_now(connection: redis.asyncio.Redis, key: str) -> str:
    # "$" would lose what arrives between two blocking reads; the newest id does not.
    newest = await connection.xrevrange(key, count=1)
    return str(newest[0][0]) if newest else "0"


def _append(key: str, kind: str, data: dict[str, Any], maxlen: int) -> bool:
    fields: dict[Any, Any] = {"kind": kind, "data": json.dumps(data, ensure_ascii=False)}
    return _quietly("XADD", lambda: client().xadd(key, fields, maxlen=maxlen, approximate=True)) is not None


def _quietly(command: str, call: Any) -> Any:
    try:
        return call()
    except redis.exceptions.RedisError as error:
        log.warning(
            "The broker cannot be reached; watchers see this later from the rows.", command=command, error=str(error)
        )
        return None
