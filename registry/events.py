"""Live events on Redis: the board that pages watch, and one stream for each answer that is being written.

Board events: `checkpoint` {run, step, checkpoint_id, state}, `evaluation` {run, step, task,
checkpoint_id}, `metrics` {run, step}, `post` {}, `prompt` {id}: a visitor's proposal was decided.

An answer's `subject` is `turn:12` or `call:34`. Its events: `start` {attempt}, `delta` {text, index?, tokens?},
`done` {status, finish_reason, error}. Each is kept in the answer's own stream, for whoever comes late, and
announced on one channel for all answers, for whoever watches many. A worker numbers its events by its ticket's
fence, `3-1`, `3-2` …: the stream takes only growing numbers, so a worker that lost its ticket can add nothing.

Streams are a convenience for watchers: the rows are the truth, and a watcher who comes too late
or finds the broker away reads those.
"""

import json
import re
import threading
import time
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple, cast

import orjson
import redis
import redis.asyncio
import structlog
from redis.backoff import ExponentialBackoff
from redis.retry import Retry
from sqlalchemy.orm import Session

from registry.settings import get_settings

BOARD_KEY = "grow:board"
BOARD_LENGTH = 1_000
ANSWERS_CHANNEL = "grow:answers"
ANSWER_LENGTH = 20_000
ANSWER_KEPT_SECONDS = 3_600
"""After its end."""
ANSWER_LOST_SECONDS = 86_400
"""After its beginning, where an end never comes."""
KEEP_ALIVE_MS = 15_000
BELL = "grow:bell"
"""Rung when somebody asks; every worker with an engine listens."""
WORKER_KEY = "grow:workers"
WORKER_SILENT_SECONDS = 30

log = structlog.get_logger(__name__)
_clients: dict[tuple[str, bool], redis.Redis] = {}


class _Met:
    """The broker that was met last, by the name it gave itself when it started."""

    run_id = ""
    number = 0


_met = _Met()
_lock = threading.Lock()  # connections of several threads may meet it


class Event(NamedTuple):
    """One entry of a stream; `id` is what a browser sends back as Last-Event-ID."""

    id: str
    kind: str
    data: dict[str, Any]


def client(*, tries_again: bool = True) -> redis.Redis:
    """The shared connection pool of the broker in the settings.

    Without `tries_again` a lost connection is an error, even where a new one would do: a broker that was started anew
    in between may have forgotten what it was told before.
    """
    url = get_settings().redis
    if (url, tries_again) not in _clients:
        _clients[url, tries_again] = redis.Redis.from_url(
            url,
            decode_responses=True,
            socket_connect_timeout=2,
            socket_timeout=10,
            health_check_interval=30,
            retry=Retry(ExponentialBackoff(cap=1, base=0.1), 3 if tries_again else 0),
            redis_connect_func=None if tries_again else _note_broker,
        )
    return _clients[url, tries_again]


def _note_broker(connection: Any) -> None:
    connection.on_connect()
    connection.send_command("INFO", "server")
    found = re.search(r"run_id:(\w+)", connection.read_response())
    run_id = found[1] if found else ""
    with _lock:
        if run_id != _met.run_id:
            _met.run_id, _met.number = run_id, _met.number + 1


def broker_generation() -> int:
    """How many brokers `publish` has met, one after another, so far.

    The client takes a new connection where its old one was closed, and says nothing. One more broker may be the old one
    started anew, and then it has forgotten the last second, or everything.
    """
    return _met.number


def async_client() -> redis.asyncio.Redis:
    """A client for one event loop; reads may block for the keep-alive time."""
    timeout = KEEP_ALIVE_MS / 1000 + 5
    return redis.asyncio.Redis.from_url(
        get_settings().redis, decode_responses=True, socket_connect_timeout=2, socket_timeout=timeout
    )


class Piece(NamedTuple):
    """One event of an answer; `id` is `fence-number`, or `*` for one that no ticket stands behind."""

    subject: str
    id: str
    kind: str
    data: dict[str, Any]


def subject_of(*, turn_id: int | None = None, call_id: int | None = None) -> str:
    """What is being answered, as streams and stops name it."""
    return f"turn:{turn_id}" if turn_id is not None else f"call:{call_id}"


def answer_key(subject: str) -> str:
    """Name of an answer's stream."""
    return f"grow:{subject}"


def publish_board(kind: str, data: dict[str, Any]) -> bool:
    """Tell every open page. False, with a warning in the log, when the broker is down."""
    return _append(BOARD_KEY, kind, data, BOARD_LENGTH)


def append(subject: str, kind: str, data: dict[str, Any], *, fence: int = 0, number: int = 0) -> bool:
    """Add one event to an answer's stream; False where it was not taken. See `publish`."""
    return publish([Piece(subject, f"{fence}-{number}" if fence else "*", kind, data)]) == set()


def announce(session: Session, subject: str, kind: str, data: dict[str, Any]) -> None:
    """Add one event to an answer's stream once `session` has committed: whoever hears of it finds it in the rows."""
    session.info.setdefault("announced_events", []).append(Piece(subject, "*", kind, data))


def forget(session: Session, subjects: Iterable[str]) -> None:
    """Delete the streams of these answers once `session` has committed: their rows are gone by then."""
    session.info.setdefault("forgotten_answers", []).extend(map(answer_key, subjects))


def send_announced(session: Session) -> None:
    """Send what was announced, and delete what is to be forgotten; called by `db.transaction` after the commit."""
    publish(session.info.pop("announced_events", []))
    if keys := session.info.pop("forgotten_answers", []):
        _quietly("UNLINK", lambda: client().unlink(*keys))


def publish(pieces: Sequence[Piece]) -> set[str] | None:
    """Add events to their answers' streams and announce them, all in one exchange with the broker.

    What a stream does not take is announced all the same: watchers have seen later numbers, or soon will, and let go
    of what they have then.

    Returns:
        The subjects whose stream took nothing, because somebody with a later ticket has written there;
        None, with a warning in the log, when the broker is down.
    """
    return _quietly("XADD", lambda: _publish(pieces)) if pieces else set()


def _publish(pieces: Sequence[Piece]) -> set[str]:
    sending = client(tries_again=False).pipeline(transaction=False)
    for piece in pieces:
        key, fields = answer_key(piece.subject), {"kind": piece.kind, "data": orjson.dumps(piece.data)}
        sending.xadd(key, cast(Any, fields), id=piece.id, maxlen=ANSWER_LENGTH, approximate=True)
    numbered = [list(piece) for piece in pieces if piece.id != "*"]
    if numbered:
        sending.publish(ANSWERS_CHANNEL, orjson.dumps(numbered))
    for piece in pieces:
        if piece.kind in ("start", "done"):
            kept = ANSWER_KEPT_SECONDS if piece.kind == "done" else ANSWER_LOST_SECONDS
            sending.expire(answer_key(piece.subject), kept)
    results = sending.execute(raise_on_error=False)
    taken = set()
    named = []
    for piece, result in zip(pieces, results, strict=False):  # the rest are answers to what was announced
        if isinstance(result, redis.exceptions.ResponseError):
            log.info("An answer's event came too late.", subject=piece.subject, id=piece.id, reason=str(result))
        elif isinstance(result, Exception):
            raise result
        else:
            taken.add(piece.subject)
            if piece.id == "*":
                named.append(list(piece._replace(id=result)))
    if named:
        client(tries_again=False).publish(ANSWERS_CHANNEL, orjson.dumps(named))
    return {piece.subject for piece in pieces} - taken


def ring_later(session: Session) -> None:
    """Ring the bell once `session` has committed."""
    session.info["rings_bell"] = True


def ring_deferred(session: Session) -> bool:
    """Ring it where that was asked for; called by `db.transaction`. False: it should have rung, and nobody heard it."""
    if not session.info.pop("rings_bell", False):
        return True
    return bool(_quietly("PUBLISH", lambda: client(tries_again=False).publish(BELL, "")))


@contextmanager
def subscribed(channel: str) -> Iterator[Any]:
    """A connection that hears what is published on a channel; see redis-py's `PubSub`.

    Raises:
        RedisError: the broker is away.
    """
    listening: Any = client(tries_again=False)
    with listening.pubsub(ignore_subscribe_messages=True) as hearing:
        hearing.subscribe(channel)
        yield hearing


def request_stop(subject: str) -> bool:
    """Ask the worker that writes this answer to stop; it looks several times a second."""
    key = f"{answer_key(subject)}:stop"
    return _quietly("SET", lambda: client().set(key, "1", ex=ANSWER_KEPT_SECONDS)) is not None


def stops(subjects: Iterable[str]) -> set[str]:
    """Which of these answers somebody asked to stop; none when the broker cannot be asked."""
    asked = list(subjects)
    keys = [f"{answer_key(subject)}:stop" for subject in asked]
    marks = _quietly("MGET", lambda: client().mget(keys)) if keys else None
    return {subject for subject, mark in zip(asked, marks or [None] * len(asked), strict=True) if mark}


class Mark(NamedTuple):
    """The last sign of life of a worker."""

    worker: str
    at: float
    """When, in seconds since 1970."""
    doing: str
    facts: dict[str, Any]
    """What waiting times are worked out from."""
    about: dict[str, Any]
    """What it is: version, queues, since when, engine, what it holds."""

    @property
    def is_alive(self) -> bool:
        """Whether it was heard from lately."""
        return self.at > time.time() - WORKER_SILENT_SECONDS


def worker_beat(
    worker: str, doing: str, facts: Mapping[str, Any] | None = None, about: Mapping[str, Any] | None = None
) -> bool:
    """A worker's sign of life, with what it is doing in a few words, what it has measured and what it is."""
    content = {"at": time.time(), "doing": doing, "facts": dict(facts or {}), "about": dict(about or {})}
    mark = json.dumps(content)
    return _quietly("HSET", lambda: client().hset(WORKER_KEY, worker, mark)) is not None


def live_workers() -> dict[str, str] | None:
    """Workers heard from lately and what they do; None when the broker is down."""
    marks = _marks()
    return None if marks is None else {name: mark["doing"] for name, mark in marks.items()}


def known_workers() -> list[Mark] | None:
    """Every worker that ever gave a sign of life and was not forgotten, the latest first; None: the broker is down."""
    marks = _quietly("HGETALL", lambda: client(tries_again=False).hgetall(WORKER_KEY))
    if marks is None:
        return None
    heard = [(name, json.loads(mark)) for name, mark in marks.items()]
    found = [Mark(name, one["at"], one["doing"], one.get("facts", {}), one.get("about", {})) for name, one in heard]
    return sorted(found, key=lambda mark: -mark.at)


def forget_worker(worker: str) -> bool:
    """Let go of a worker that is gone; one that lives appears again with its next sign."""
    return _quietly("HDEL", lambda: client().hdel(WORKER_KEY, worker)) is not None


def worker_facts() -> dict[str, dict[str, Any]]:
    """What each worker heard from lately has measured, by its name; nothing when the broker is down."""
    marks = _marks() or {}
    return {name: facts for name, mark in marks.items() if (facts := mark.get("facts"))}


def _marks() -> dict[str, dict[str, Any]] | None:
    # Asked for pages, and while people send: a broker that is away must not keep them waiting for a second and a half.
    marks = _quietly("HGETALL", lambda: client(tries_again=False).hgetall(WORKER_KEY))
    if marks is None:
        return None
    heard = {name: json.loads(mark) for name, mark in marks.items()}
    since = time.time() - WORKER_SILENT_SECONDS
    return {name: mark for name, mark in heard.items() if mark["at"] > since}


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
            yield _event(last_id, fields)


async def newest(connection: redis.asyncio.Redis, key: str, limit: int) -> list[Event]:
    """The last `limit` entries, the oldest of them first.

    Raises:
        RedisError: the broker is away.
    """
    entries: Any = await connection.xrevrange(key, count=limit)
    return [_event(*entry) for entry in reversed(entries)]


def checked_id(last_id: str) -> str:
    """`last_id` where it has the form of a stream id, else "0": it comes from a browser's header."""
    return last_id if re.fullmatch(r"\d{1,20}(-\d{1,20})?", last_id) else "0"


async def _from_now(connection: redis.asyncio.Redis, key: str) -> str:
    # "$" would lose what arrives between two blocking reads; the newest id does not.
    newest = await connection.xrevrange(key, count=1)
    return str(newest[0][0]) if newest else "0"


def _event(entry_id: str, fields: Mapping[str, str]) -> Event:
    return Event(entry_id, fields["kind"], json.loads(fields["data"]))


def _append(key: str, kind: str, data: dict[str, Any], maxlen: int) -> bool:
    fields: dict[Any, Any] = {"kind": kind, "data": json.dumps(data, ensure_ascii=False)}
    # Not tried again: a training that tells each step must not wait 1.4 s each for a broker that is away.
    sending = client(tries_again=False)
    return _quietly("XADD", lambda: sending.xadd(key, fields, maxlen=maxlen, approximate=True)) is not None


def _quietly(command: str, call: Any) -> Any:
    try:
        return call()
    except redis.exceptions.RedisError as error:
        log.warning(
            "The broker cannot be reached; watchers see this later from the rows.", command=command, error=str(error)
        )
        return None
