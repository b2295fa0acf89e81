"""The live stream of one chat turn: its place in the line, then the answer as it is written.

Events sent to the browser: `queued` {text, low, high}, `start` {attempt}, `delta` {text, tokens?} and `done` {status,
finish_reason, error}. `start`, `delta` and `done` come from the turn's Redis stream and carry its
ids. `queued` is computed here from the rows, and `done` too where the stream is gone: while the
broker is away a visitor still sees how things stand.
"""

import time
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any, NamedTuple

from fastapi import Request
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import StreamingResponse

from registry import chats, db, events
from registry.estimates import Place
from registry.models.base import QUEUED, RUNNING
from server import hub, live, meters, places, pulse, sse
from server.i18n import gettext, ngettext


class Look(NamedTuple):
    """How a turn stands; `queued` is what to say while it waits."""

    status: str
    finish_reason: str = ""
    error: str = ""
    queued: dict[str, Any] | None = None

    @property
    def is_open(self) -> bool:
        """Whether more is to come."""
        return self.status in (QUEUED, RUNNING)


def respond(request: Request, turn_id: int) -> StreamingResponse:
    """Stream a turn from its beginning, or from where a reconnecting browser was."""
    last_id = request.headers.get("last-event-id") or "0"
    return sse.Stream(_events(turn_id, last_id), media_type="text/event-stream", headers=sse.HEADERS)


async def _events(turn_id: int, last_id: str) -> AsyncIterator[str]:
    ends_at = time.monotonic() + sse.MAX_SECONDS
    shown: dict[str, Any] | None = None
    has_begun = last_id != "0"
    is_first = True
    following = live.follow(events.subject_of(turn_id=turn_id), last_id)
    with meters.OPEN_STREAMS.labels("turn").track_inprogress():
        yield f"retry: {sse.RETRY_MS}\n\n"
        async with aclosing(following):
            async for event in following:
                if event is not None:
                    has_begun = True
                    yield hub.encode(event)
                else:
                    look = await look_at(turn_id, trusts_shared=not is_first)
                    is_first = False
                    if not look.is_open:
                        yield _done(look)
                        return
                    told = None if has_begun else look.queued or ready()
                    yield _encode("queued", told) if told and told != shown else ": nothing new\n\n"
                    shown = told
                if (event is not None and event.kind == "done") or time.monotonic() > ends_at:
                    return


async def look_at(turn_id: int, *, trusts_shared: bool = True) -> Look:
    """How a turn stands: from the shared look at the line while it waits, else from its own row.

    The shared look may be a second old; without `trusts_shared` the row is asked in any case, so that whoever opens an
    answer that has just ended is told so at once.
    """
    seen = await places.look()
    if turn_id not in seen.by_turn or not trusts_shared:
        look = await run_in_threadpool(read_look, turn_id)
        if look.status != QUEUED:
            return look
        if turn_id not in seen.by_turn:
            seen = await places.look(max_age=0.0)  # it came after the shared look was taken
        if turn_id not in seen.by_turn:
            return look
    return Look(QUEUED, queued=queued(seen.by_turn[turn_id]))


def read_look(turn_id: int) -> Look:
    """How a turn stands by its own row, in a short session."""
    with db.read_session() as session:
        turn = chats.get_turn(session, turn_id)
    return Look(turn.status, turn.finish_reason, turn.error)


def place_text(place: Place | None) -> str:
    """`2 chats and 1 evaluation slice ahead of you, about 6–11 s`, or what the line waits for."""
    seen = pulse.take()
    if not seen.broker or not seen.workers or place is None:
        return gettext("Waiting for the service, which is away for the moment. Your place in line is kept.")
    wait = wait_text(place)
    ahead = []
    if place.ahead_chats:
        chats_ahead = ngettext("%(num)s chat", "%(num)s chats", place.ahead_chats)
        ahead.append(chats_ahead % {"num": place.ahead_chats})
    if place.ahead_evaluations:
        slices = ngettext("%(num)s evaluation slice", "%(num)s evaluation slices", place.ahead_evaluations)
        ahead.append(slices % {"num": place.ahead_evaluations})
    if not ahead:
        return gettext("You are next, about %(time)s", time=wait)
    return gettext("%(what)s ahead of you, about %(time)s", what=gettext(" and ").join(ahead), time=wait)


def wait_text(place: Place) -> str:
    """`6–11 s`, or minutes where it is long."""
    low, high = place.low_seconds, place.high_seconds
    if high < 100:
        return gettext("%(low)s–%(high)s s", low=max(1, round(low)), high=max(2, round(high)))
    return gettext("%(low)s–%(high)s minutes", low=max(1, round(low / 60)), high=max(2, round(high / 60)))


def nobody() -> dict[str, Any]:
    """What is told instead of a wait while there is no worker."""
    text = gettext("Nobody is there to answer at the moment. What you send is kept, and answered later.")
    return {"text": text, "low": None, "high": None}


def queued(place: Place | None) -> dict[str, Any]:
    """What a `queued` event says."""
    low, high = (place.low_seconds, place.high_seconds) if place is not None else (None, None)
    return {"text": place_text(place), "low": low, "high": high}


def ready() -> dict[str, Any]:
    """What a `queued` event says once a worker has the turn, until the first word."""
    return {"text": gettext("It is your turn: the model is getting ready."), "low": None, "high": None}


def _done(look: Look) -> str:
    return _encode("done", {"status": look.status, "finish_reason": look.finish_reason, "error": look.error})


def _encode(kind: str, data: dict[str, Any]) -> str:
    # No id: the browser keeps the last one of the stream, and goes on there when it reconnects.
    return hub.encode(events.Event("", kind, data)).removeprefix("id: \n")
