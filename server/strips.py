"""One live stream for all answers of a group: a page of forty frames must not open forty connections.

Events sent to the browser: those of `server.turns`, each with the `turn` it is about: `queued` {text}, `start`
{attempt}, `delta` {text}, `done` {status, finish_reason, error}; `line` {text} says how the group as a whole stands,
and `end` that nothing more is to come. They carry no ids: whoever comes back gets everything from the beginning, and
`start` says that an answer begins anew.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import aclosing
from typing import Any

import structlog
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import StreamingResponse
from sqlalchemy import select
from sqlalchemy.orm import Session

from registry import db, estimates, events
from registry.estimates import Place
from registry.events import Event
from registry.models import Checkpoint, Turn
from registry.models.base import FAILED
from server import hub, live, meters, places, sse, turns
from server.i18n import gettext
from server.turns import Look

LOOK_SECONDS = 2.0
"""How often the rows and the line are looked at."""
CLOSE_SECONDS, CLOSE_TRIES = 1.0, 3

log = structlog.get_logger(__name__)

Heard = tuple[int, Event] | None
"""An event and its turn; None: it is time to look."""


class Strip:
    """What a page knows of the answers of a group."""

    def __init__(self, looks: Mapping[int, Look], *, tells_places: bool) -> None:
        self.num = len(looks)
        self.open = {turn_id for turn_id, look in looks.items() if look.is_open}
        self._tells_places = tells_places
        self._begun: set[int] = set()
        """Those of which something was heard; what they wait for is told no more."""
        self._spoke: set[int] = set()
        """Those of which something was heard since the last look."""
        self._told: dict[int, Any] = {}

    def take(self, turn_id: int, event: Event) -> str:
        """One event, as it is sent on; nothing after the end."""
        if turn_id not in self.open:
            return ""
        self._begun.add(turn_id)
        self._spoke.add(turn_id)
        if event.kind == "done":
            self.open.discard(turn_id)
        data = {name: value for name, value in event.data.items() if name != "tokens"}
        return _encode(event.kind, {"turn": turn_id, **data})

    async def look(self) -> str:
        """What the line and the rows say and no event has said: places, and ends that were not heard."""
        # The first time a new one: the shared look may be older than the question.
        seen = await places.look() if self._told else await places.look(max_age=0.0)
        silent = [turn_id for turn_id in self.open if turn_id not in seen.by_turn and turn_id not in self._spoke]
        self._spoke.clear()
        found = await run_in_threadpool(read_looks, silent) if silent else {}
        sent = [self.end(turn_id, look) for turn_id, look in found.items() if not look.is_open]
        waiting = {one: seen.by_turn[one] for one in self.open if one in seen.by_turn and one not in self._begun}
        if self._tells_places:
            sent += [self._tell(turn_id, turns.queued(place)) for turn_id, place in waiting.items()]
            ready = [one for one in found if one in self.open - self._begun]
            sent += [self._tell(turn_id, turns.ready()) for turn_id in ready]
        return "".join(sent) + self._line(list(waiting.values()))

    def end(self, turn_id: int, look: Look) -> str:
        """The end of an answer as its row has it."""
        self.open.discard(turn_id)
        data = {"status": look.status, "finish_reason": look.finish_reason, "error": look.error}
        return _encode("done", {"turn": turn_id, **data})

    def _tell(self, turn_id: int, told: dict[str, Any]) -> str:
        if self._told.get(turn_id) == told:
            return ""
        self._told[turn_id] = told
        return _encode("queued", {"turn": turn_id, **told})

    def _line(self, waiting: Sequence[Place | None]) -> str:
        text = line_text(self.num - len(self.open), self.num, waiting, len(self.open & self._begun))
        if self._told.get(0) == text:
            return ": nothing new\n\n"
        self._told[0] = text
        return _encode("line", {"text": text})


def respond(looks: Mapping[int, Look], *, tells_places: bool) -> StreamingResponse:
    """Stream the answers of these turns, which stand so now; `tells_places`: also where each of them stands in line."""
    strip = Strip(looks, tells_places=tells_places)
    return sse.Stream(_events(strip, looks), media_type="text/event-stream", headers=sse.HEADERS)


def look_of(turn: Turn) -> Look:
    """How a turn stands."""
    return Look(turn.status, turn.finish_reason, turn.error)


def read_looks(turn_ids: Sequence[int]) -> dict[int, Look]:
    """How these stand by their rows, in a short session; one that was deleted has failed."""
    query = select(Turn.id, Turn.status, Turn.finish_reason, Turn.error).where(Turn.id.in_(turn_ids))
    with db.read_session() as session:
        found = {row.id: Look(row.status, row.finish_reason, row.error) for row in session.execute(query)}
    return {turn_id: found.get(turn_id, Look(FAILED)) for turn_id in turn_ids}


def expected(session: Session, lane: int, asked: Sequence[Checkpoint], size: int) -> dict[str, Any]:
    """What is told before these are asked at once: when the last of them will begin, in seconds and as a sentence."""
    if not asked:
        return {"text": "", "low": None, "high": None}
    ids = [one.id for one in asked]
    place = estimates.expect_last(session, lane=lane, checkpoint_ids=ids, size=size)
    if place is None:
        return turns.nobody()
    text = gettext("The last of them begins in about %(time)s.", time=turns.wait_text(place))
    return {"text": text, "low": place.low_seconds, "high": place.high_seconds}


def line_text(num_ended: int, num: int, waiting: Sequence[Place | None], num_written: int) -> str:
    """`3 of 10 answered · 2 chats ahead of you, about 2–5 s · the last begins in about 20–40 s`.

    Args:
        num_ended: answers that are whole.
        num: all of them.
        waiting: the places of those that wait; None where nobody is there to answer.
        num_written: own answers that are being written: nobody is ahead of themselves.
    """
    said = [gettext("%(ended)s of %(all)s answered", ended=num_ended, all=num)]
    known = sorted((one for one in waiting if one is not None), key=lambda one: one.expected_seconds)
    if known:
        first, last = known[0], known[-1]
        said.append(turns.place_text(first._replace(ahead_chats=max(0, first.ahead_chats - num_written))))
        if len(known) > 1:
            said.append(gettext("the last begins in about %(time)s", time=turns.wait_text(last)))
    elif waiting:
        said.append(turns.place_text(None))
    return " · ".join(said)


async def _events(strip: Strip, looks: Mapping[int, Look]) -> AsyncIterator[str]:
    ends_at = time.monotonic() + sse.MAX_SECONDS
    heard: asyncio.Queue[Heard] = asyncio.Queue()
    with meters.OPEN_STREAMS.labels("group").track_inprogress():
        tasks = [asyncio.create_task(_follow(turn_id, heard)) for turn_id in strip.open]
        tasks.append(asyncio.create_task(_tick(heard)))
        try:
            ended = [strip.end(turn_id, look) for turn_id, look in looks.items() if not look.is_open]
            yield "".join([f"retry: {sse.RETRY_MS}\n\n", *ended])
            while strip.open and time.monotonic() < ends_at:
                sent = [await strip.look() if one is None else strip.take(*one) for one in await _drain(heard)]
                if text := "".join(sent):
                    yield text
            if not strip.open:
                yield await strip.look()
                yield _encode("end", {})
        finally:
            await _end(tasks)


async def _end(tasks: Iterable["asyncio.Task[None]"]) -> None:
    """Cancel them, again where it was lost: the broker's client may lose one that comes as it returns (Python 3.11)."""
    left = set(tasks)
    for _ in range(CLOSE_TRIES):
        for task in left:
            task.cancel()
        _, left = await asyncio.wait(left, timeout=CLOSE_SECONDS)
        if not left:
            return
    log.warning("Answers are still followed though nobody watches.", number=len(left))


async def _drain(heard: "asyncio.Queue[Heard]") -> list[Heard]:
    """What has come, at least one."""
    found = [await heard.get()]
    while not heard.empty():
        found.append(heard.get_nowait())
    return found


async def _follow(turn_id: int, heard: "asyncio.Queue[Heard]") -> None:
    following = live.follow(events.subject_of(turn_id=turn_id))
    async with aclosing(following):
        async for event in following:
            if event is not None:
                heard.put_nowait((turn_id, event))
                if event.kind == "done":
                    return


async def _tick(heard: "asyncio.Queue[Heard]") -> None:
    while True:
        heard.put_nowait(None)
        await asyncio.sleep(LOOK_SECONDS)


def _encode(kind: str, data: Mapping[str, Any]) -> str:
    return hub.encode(Event("", kind, dict(data))).removeprefix("id: \n")
