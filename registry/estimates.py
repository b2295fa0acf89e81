"""What waiting to expect: the line played forward (`registry.schedule`), and how wrong that was lately.

The interval is conformal: the quantiles of actual over expected waits of the last tickets, so it is as wide as the
site has earned (Vovk, Gammerman & Shafer 2005, split conformal prediction; Papadopoulos et al. 2002 for ratios).
"""

import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np
from sqlalchemy import select
from sqlalchemy.orm import Session

from registry import events, schedule, tickets
from registry.models import Slice, Ticket
from registry.models.base import FINISHED, RUNNING, utcnow
from registry.schedule import Engine, Waiting
from registry.settings import get_settings

REMEMBERED = 200
"""Finished tickets that say how wrong the estimates are."""
TAIL = 0.05
"""Of the waits may be shorter than the interval, and as many longer."""
GRAIN_SECONDS = 0.5
"""Waits that differ by less are told apart by nobody; added to both before they are divided."""
PRIOR_RATIOS = (0.4, 0.6, 0.8, 1.0, 1.2, 1.6, 2.5)
"""Stand for experience until there is some."""
PRIOR_UNTIL = 42
SECONDS_A_TOKEN = 0.03
"""Of those that an answer may have at most, before any was measured."""
SLICE_SECONDS = 4.0
START_SECONDS = 20.0
"""Of an engine that holds nothing yet; measured with vLLM on two cores."""
LEAST_SECONDS = 0.2
"""What goes on longer than expected is expected to end soon."""
FRESH_SECONDS = 1.0
SHARED_SECONDS = 0.1
"""Who sends so soon after somebody else is placed behind them, by the same look at the line."""

_experiences: dict[str, tuple[float, "Experience"]] = {}
"""By database: when it was found, and what."""
_lines: dict[str, tuple[float, "_Line"]] = {}
"""The same of the line."""
_lock = threading.Lock()  # threads place whoever sends behind each other in the shared line


class Place(NamedTuple):
    """Where one stands: what begins or ends before, and the wait as an interval in seconds."""

    ahead_chats: int
    ahead_evaluations: int
    expected_seconds: float
    low_seconds: float
    high_seconds: float


class Experience(NamedTuple):
    """What the last tickets teach."""

    low_ratio: float
    high_ratio: float
    """Between these lay nine in ten of the actual waits, over the expected ones."""
    seconds_a_token: float
    """Of an answer, over the tokens that it might have had: how long answers are, and how fast, in one number."""
    slice_seconds: float
    """How long a slice of an evaluation takes."""


@dataclass
class _Line:
    known: Experience
    engines: dict[str, Engine] = field(default_factory=dict)
    waiting: list[Waiting] = field(default_factory=list)


def places(session: Session) -> dict[int, Place]:
    """The place of every ticket that waits for an answer, by its id; empty while there is no worker."""
    return _play(_read(session, experience(session)))


def expect(session: Session, *, lane: int, checkpoint_id: int, size: int) -> Place | None:
    """The place of somebody who would send now, at the end of their lane; None while there is no worker."""
    line = _read(session, experience(session))
    line.waiting.append(Waiting(0, lane, checkpoint_id, 0.0, size * line.known.seconds_a_token))
    return _play(line).get(0)


def expect_last(session: Session, *, lane: int, checkpoint_ids: Sequence[int], size: int) -> Place | None:
    """As `expect`, of the one that begins last where several are sent at once; the others of them are not counted."""
    line = _read(session, experience(session))
    seconds = size * line.known.seconds_a_token
    line.waiting += [Waiting(-place, lane, one, 0.0, seconds) for place, one in enumerate(checkpoint_ids)]
    found = _play(line)
    own = [found[-place] for place in range(len(checkpoint_ids)) if -place in found]
    if not own:
        return None
    last = max(own, key=lambda one: (one.expected_seconds, one.ahead_chats))
    return last._replace(ahead_chats=max(0, last.ahead_chats - len(own) + 1))


def _place_last(session: Session, lane: int, checkpoint_id: int, size: int) -> Place | None:
    """The place of somebody who sends now; whoever sends next is placed behind them."""
    url = str(session.get_bind().engine.url)
    with _lock:
        taken_at, line = _lines.get(url, (float("-inf"), None))
        if line is None or time.monotonic() - taken_at > SHARED_SECONDS:
            line = _read(session, experience(session))
            _lines[url] = time.monotonic(), line
        number = -1 - len(line.waiting)  # no ticket's
        line.waiting.append(Waiting(number, lane, checkpoint_id, 0.0, size * line.known.seconds_a_token))
        return _play(line).get(number)


def _play(line: "_Line") -> dict[int, Place]:
    # Playing changes them, and the line may be played again.
    engines = [replace(one, busy=[*one.busy], left={**one.left}) for one in line.engines.values()]
    answers, slices = sum(len(engine.busy) for engine in engines), sum(engine.slice_until > 0 for engine in engines)
    found = schedule.starts(engines, line.waiting)
    result = {}
    for ahead, (ticket_id, expected) in enumerate(sorted(found.items(), key=lambda item: item[1])):
        low, high = interval(expected, line.known)
        is_next = expected <= 0
        result[ticket_id] = Place(0 if is_next else ahead + answers, 0 if is_next else slices, expected, low, high)
    return result


def interval(expected: float, known: Experience) -> tuple[float, float]:
    """Between which waits the actual one will lie, in nine of ten cases."""
    wait = expected + GRAIN_SECONDS
    return max(0.0, wait * known.low_ratio - GRAIN_SECONDS), max(0.0, wait * known.high_ratio - GRAIN_SECONDS)


def spread(ratios: Sequence[float]) -> tuple[float, float]:
    """Between which ratios of actual to expected waits nine in ten lie, by those of the past, the newest first."""
    missing = max(0, PRIOR_UNTIL - len(ratios)) // len(PRIOR_RATIOS)
    low, high = np.quantile([*ratios, *PRIOR_RATIOS * missing], [TAIL, 1 - TAIL])
    return float(low), float(high)


def experience(session: Session) -> Experience:
    """From the newest answers and slices that ended; what was found is used for a second."""
    url = str(session.get_bind().engine.url)
    taken_at, known = _experiences.get(url, (float("-inf"), None))
    if known is None or time.monotonic() - taken_at > FRESH_SECONDS:
        known = _experience(session)
        _experiences[url] = time.monotonic(), known
    return known


def forget() -> None:
    """Look again at the next question; for tests, which make the past up."""
    _experiences.clear()
    _lines.clear()


def _experience(session: Session) -> Experience:
    columns = (Ticket.issued_at, Ticket.started_at, Ticket.finished_at, Ticket.expected_seconds, Ticket.size)
    query = select(*columns).where(
        Ticket.status == FINISHED, Ticket.lane.in_(tickets.ANSWERS), Ticket.started_at.is_not(None), Ticket.size > 0
    )
    ended = session.execute(query.order_by(Ticket.claimed_at.desc()).limit(REMEMBERED)).all()
    ratios = [
        (_seconds(one.issued_at, one.started_at) + GRAIN_SECONDS) / (one.expected_seconds + GRAIN_SECONDS)
        for one in ended
        if one.expected_seconds is not None
    ]
    paces = [_seconds(one.started_at, one.finished_at) / one.size for one in ended]
    slices = session.scalars(select(Slice.engine_seconds).order_by(Slice.id.desc()).limit(20)).all()
    return Experience(
        *spread(ratios),
        float(np.mean(paces)) if paces else SECONDS_A_TOKEN,
        float(np.mean(slices)) if slices else SLICE_SECONDS,
    )


def issue(
    session: Session,
    *,
    lane: int,
    checkpoint_id: int,
    user_id: int,
    size: int,
    turn_id: int | None = None,
    call_id: int | None = None,
) -> Ticket:
    """Take a place in the line for an answer, and keep the wait that is told: the next estimates learn from it."""
    place = _place_last(session, lane, checkpoint_id, size)
    ticket = tickets.issue(
        session,
        lane=lane,
        checkpoint_id=checkpoint_id,
        user_id=user_id,
        size=size,
        turn_id=turn_id,
        call_id=call_id,
    )
    if place is not None:
        ticket.expected_seconds = place.expected_seconds
        ticket.low_seconds, ticket.high_seconds = place.low_seconds, place.high_seconds
    return ticket


def _read(session: Session, known: Experience) -> _Line:
    now = utcnow()
    line = _Line(known, {name: _engine(facts) for name, facts in events.worker_facts().items()})
    columns = (Ticket.worker, Ticket.checkpoint_id, Ticket.claimed_at, Ticket.evaluation_id, Ticket.size)
    for ticket in session.execute(select(*columns).where(Ticket.status == RUNNING)).all():
        engine = line.engines.get(ticket.worker) or line.engines.setdefault(ticket.worker, _engine({}))
        engine.checkpoint_id = ticket.checkpoint_id
        age = _seconds(ticket.claimed_at, now)
        if ticket.evaluation_id is None:
            engine.busy.append(max(LEAST_SECONDS, ticket.size * known.seconds_a_token - age))
        else:
            engine.slice_until = max(LEAST_SECONDS, known.slice_seconds - age)
    line.waiting = [
        Waiting(row.id, row.lane, row.checkpoint_id, _seconds(row.issued_at, now), row.size * known.seconds_a_token)
        for row in tickets.in_turns(session)
    ]
    return line


def _engine(facts: Mapping[str, Any]) -> Engine:
    settings = get_settings()
    checkpoint_id, load = facts.get("checkpoint_id"), facts.get("load_seconds")
    if load is None:
        load = START_SECONDS if checkpoint_id is None else schedule.FIRST_LOAD_SECONDS
    return Engine(
        checkpoint_id=checkpoint_id,
        max_answers=int(facts.get("max_answers") or settings.answers_at_once),
        patience=float(facts.get("patience") or settings.swap_wait_seconds),
        load_seconds=load,
    )


def _seconds(begin: Any, end: Any) -> float:
    return max(0.0, float((end - begin).total_seconds()))
