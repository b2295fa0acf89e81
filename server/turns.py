"""The live stream of one chat turn: its place in the line, then the answer as it is written.

Events sent to the browser: `queued` {text}, `start` {attempt}, `delta` {text} and `done` {status,
finish_reason, error}. `start`, `delta` and `done` come from the turn's Redis stream and carry its
ids. `queued` is computed here from the rows, and `done` too where the stream is gone: while the
broker is away a visitor still sees how things stand.
"""

import asyncio
import time
from collections.abc import AsyncIterator
from typing import NamedTuple

import redis.asyncio
import redis.exceptions
import structlog
from fastapi import Request
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import StreamingResponse

from registry import chats, db, events, tickets
from registry.models.base import QUEUED, RUNNING
from registry.tickets import Position
from server import meters, pulse, sse
from server.i18n import gettext, ngettext

LOOK_MS = 2_000
"""So long without an event, and the rows are asked."""

log = structlog.get_logger(__name__)


class Look(NamedTuple):
    """How a turn stands in the database; `place` is a sentence while it waits."""

    status: str
    finish_reason: str
    error: str
    place: str

    @property
    def is_open(self) -> bool:
        """Whether more is to come."""
        return self.status in (QUEUED, RUNNING)


def respond(request: Request, turn_id: int) -> StreamingResponse:
    """Stream a turn from its beginning, or from where a reconnecting browser was."""
    last_id = request.headers.get("last-event-id") or "0"
    return StreamingResponse(_events(request, turn_id, last_id), media_type="text/event-stream", headers=sse.HEADERS)


async def _events(request: Request, turn_id: int, last_id: str) -> AsyncIterator[str]:
    ends_at = time.monotonic() + sse.MAX_SECONDS
    gauge = meters.OPEN_STREAMS.labels("turn")
    gauge.inc()
    shown = ""
    try:
        yield f"retry: {sse.RETRY_MS}\n\n"
        async for event in _follow(events.turn_key(turn_id), last_id):
            if event is not None and event.kind != "queued":
                yield sse.encode(event)
            elif event is None:
                look = await run_in_threadpool(read_look, turn_id)
                if not look.is_open:
                    yield _done(look)
                    return
                yield _queued(look) if look.place and look.place != shown else ": nothing new\n\n"
                shown = look.place
            finished = event is not None and event.kind == "done"
            if finished or time.monotonic() > ends_at or await request.is_disconnected():
                return
    finally:
        gauge.dec()


async def _follow(key: str, last_id: str) -> AsyncIterator[events.Event | None]:
    """The stream's events, and None at once and whenever nothing came; goes on without a broker."""
    yield None
    while True:
        connection = events.async_client()
        try:
            async for event in events.follow(connection, key, last_id, block_ms=LOOK_MS):
                last_id = event.id if event is not None else last_id
                yield event
        except redis.exceptions.RedisError as error:
            log.warning("A chat stream goes on without the broker.", stream=key, error=str(error))
        finally:
            await connection.aclose()
        await asyncio.sleep(LOOK_MS / 1000)
        yield None


def read_look(turn_id: int) -> Look:
    """How a turn stands now, in a short session of its own."""
    with db.read_session() as session:
        turn = chats.get_turn(session, turn_id)
        ticket = tickets.for_turn(session, turn_id) if turn.status == QUEUED else None
        position = tickets.position(session, ticket) if ticket is not None else None
    place = place_text(position) if position is not None else ""
    return Look(turn.status, turn.finish_reason, turn.error, place)


def place_text(position: Position) -> str:
    """`2 chats and 1 evaluation ahead of you, about 6–11 s`, or what the line waits for."""
    seen = pulse.take()
    if not seen.broker or not seen.workers:
        return gettext("Waiting for the service, which is away for the moment. Your place in line is kept.")
    ahead = []
    if position.ahead_chats:
        chats_ahead = ngettext("%(num)s chat", "%(num)s chats", position.ahead_chats)
        ahead.append(chats_ahead % {"num": position.ahead_chats})
    if position.ahead_evaluations:
        scores_ahead = ngettext("%(num)s evaluation", "%(num)s evaluations", position.ahead_evaluations)
        ahead.append(scores_ahead % {"num": position.ahead_evaluations})
    if not ahead:
        return gettext("You are next.")
    return gettext(
        "%(what)s ahead of you, about %(time)s",
        what=gettext(" and ").join(ahead),
        time=_interval(position.low_seconds, position.high_seconds),
    )


def _interval(low: float, high: float) -> str:
    if high < 100:
        return gettext("%(low)s–%(high)s s", low=max(1, round(low)), high=max(2, round(high)))
    return gettext("%(low)s–%(high)s minutes", low=max(1, round(low / 60)), high=max(2, round(high / 60)))


def _queued(look: Look) -> str:
    return _encode("queued", {"text": look.place})


def _done(look: Look) -> str:
    return _encode("done", {"status": look.status, "finish_reason": look.finish_reason, "error": look.error})


def _encode(kind: str, data: dict[str, str]) -> str:
    # No id: the browser keeps the last one of the stream, and goes on there when it reconnects.
    return sse.encode(events.Event("", kind, data)).removeprefix("id: \n")
