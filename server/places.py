"""Where everybody in line stands, worked out once a second for all who watch in this process."""

import asyncio
import time
from dataclasses import dataclass, field
from weakref import WeakKeyDictionary

from fastapi.concurrency import run_in_threadpool
from sqlalchemy import select

from registry import db, estimates
from registry.estimates import Place
from registry.models import Ticket
from registry.models.base import QUEUED

FRESH_SECONDS = 1.0


@dataclass(frozen=True)
class Look:
    """The line at one moment; a place is None while no worker is there to say when it ends."""

    taken_at: float = float("-inf")
    by_turn: dict[int, Place | None] = field(default_factory=dict)
    by_call: dict[int, Place | None] = field(default_factory=dict)


@dataclass
class _Shared:
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    look: Look = field(default_factory=Look)


_shared: WeakKeyDictionary[asyncio.AbstractEventLoop, _Shared] = WeakKeyDictionary()


async def look(*, max_age: float = FRESH_SECONDS) -> Look:
    """The last look at the line, or a new one where it is older than `max_age` seconds."""
    shared = _shared.setdefault(asyncio.get_running_loop(), _Shared())
    wanted = time.monotonic() - max_age
    if shared.look.taken_at < wanted:
        async with shared.lock:  # one asks, the others use the answer
            if shared.look.taken_at < wanted:
                shared.look = await run_in_threadpool(read)
    return shared.look


def read() -> Look:
    """The line now, in a short session of its own."""
    taken_at = time.monotonic()
    with db.read_session() as session:
        rows = session.execute(select(Ticket.id, Ticket.turn_id, Ticket.call_id).where(Ticket.status == QUEUED)).all()
        found = estimates.places(session)
    return Look(
        taken_at,
        {row.turn_id: found.get(row.id) for row in rows if row.turn_id is not None},
        {row.call_id: found.get(row.id) for row in rows if row.call_id is not None},
    )
