"""Verbs of the line for the GPU: issuing, claiming, renewing, finishing, and where one stands.

A ticket of a checkpoint that is not ready yet waits without being in anybody's way.
"""

import datetime as dt
from collections import deque
from collections.abc import Sequence
from functools import lru_cache
from typing import Any, NamedTuple, cast

from sqlalchemy import CursorResult, func, select, update
from sqlalchemy.orm import Session

from registry import events, jobs
from registry.errors import Conflict
from registry.models import Checkpoint, Run, Ticket
from registry.models.base import CANCELLED, FAILED, FINISHED, QUEUED, READY, RUNNING, utcnow

CHAT, ARENA, PROBE, EVALUATION, MILESTONE, IDLE, QUANTIZATION = range(7)
LANES = {
    CHAT: "chat",
    ARENA: "arena",
    PROBE: "probe",
    EVALUATION: "evaluation",
    MILESTONE: "milestone",
    IDLE: "idle",
    QUANTIZATION: "quantization",
}
"""In the order in which they go. The small panel of every checkpoint goes before the full suites of milestones;
visitors' prompts for all checkpoints go after both, and the scores of quantized checkpoints last: where these need the
engine that answers, it has to be started anew for them."""
ANSWERS = (CHAT, ARENA, PROBE)
"""Somebody waits for these in front of a screen."""
NO_ANSWERS = tuple(lane for lane in LANES if lane not in ANSWERS)
EVALUATIONS = (EVALUATION, MILESTONE)
GUARANTEED_SECONDS = {ARENA: 15.0, PROBE: 20.0, EVALUATION: 30.0, MILESTONE: 60.0, QUANTIZATION: 1800.0}
"""A lane in which something waits is served at least so often, whatever the lanes before it bring."""
LEASE_SECONDS = 30


class Claim(NamedTuple):
    """A ticket in a worker's hands; `fence` proves it when reporting."""

    ticket_id: int
    fence: int
    lane: int
    checkpoint_id: int
    turn_id: int | None
    evaluation_id: int | None
    attempts: int = 1
    """Claims since the last progress, this one included."""
    call_id: int | None = None
    size: int = 0
    """Tokens that it may write at most."""

    @property
    def is_answer(self) -> bool:
        """Whether somebody waits for words, rather than a page for scores."""
        return self.evaluation_id is None


def issue(
    session: Session,
    *,
    lane: int,
    checkpoint_id: int,
    turn_id: int | None = None,
    evaluation_id: int | None = None,
    call_id: int | None = None,
    user_id: int | None = None,
    size: int = 0,
) -> Ticket:
    """Take a place at the end of a lane and wake a worker; exactly one of turn, evaluation and call is given.

    For an answer, `registry.estimates.issue` also notes the wait that is to be expected.
    """
    ticket = Ticket(lane=lane, checkpoint_id=checkpoint_id, user_id=user_id, size=size)
    ticket.turn_id, ticket.evaluation_id, ticket.call_id = turn_id, evaluation_id, call_id
    session.add(ticket)
    if lane in ANSWERS:
        events.ring_later(session)
    else:
        jobs.defer(session, jobs.WORK)
    return ticket


def reissue(session: Session, *, lane: int, checkpoint_id: int, evaluation_id: int) -> None:
    """Put an evaluation whose ticket has ended back in the line, at its end."""
    ticket = session.scalar(select(Ticket).where(Ticket.evaluation_id == evaluation_id))
    if ticket is None:
        issue(session, lane=lane, checkpoint_id=checkpoint_id, evaluation_id=evaluation_id)
        return
    ticket.lane, ticket.status, ticket.issued_at, ticket.attempts, ticket.error = lane, QUEUED, utcnow(), 0, ""
    ticket.claimed_at = ticket.finished_at = ticket.lease_until = None
    jobs.defer(session, jobs.WORK)


def claim(
    session: Session,
    worker: str,
    *,
    resident_id: int | None = None,
    only_checkpoint_id: int | None = None,
    lanes: Sequence[int] | None = None,
    lease_seconds: float = LEASE_SECONDS,
) -> Claim | None:
    """Take the first ticket of the line: best lane, then the resident checkpoint's, then people in turns.

    Among other checkpoints evaluations go coarse to fine (`_next_checkpoint`).
    """
    taken = claim_some(
        session,
        worker,
        1,
        resident_id=resident_id,
        only_checkpoint_id=only_checkpoint_id,
        lanes=lanes,
        lease_seconds=lease_seconds,
    )
    return taken[0] if taken else None


def claim_some(
    session: Session,
    worker: str,
    limit: int,
    *,
    resident_id: int | None = None,
    only_checkpoint_id: int | None = None,
    lanes: Sequence[int] | None = None,
    lease_seconds: float = LEASE_SECONDS,
) -> list[Claim]:
    """Take the first tickets of the line that can be worked on together: answers of one checkpoint, or one evaluation.

    Two workers never get the same one: the update repeats the condition it was chosen by.
    """
    allowed = tuple(LANES) if lanes is None else tuple(lanes)
    # A rival may win between the two statements; then the next candidates are tried.
    while candidates := _candidates(session, limit, resident_id, only_checkpoint_id, allowed):
        now = utcnow()
        values: dict[str, Any] = {"status": RUNNING, "worker": worker, "claimed_at": now}
        values |= {"fence": Ticket.fence + 1, "attempts": Ticket.attempts + 1}
        values |= {"lease_until": now + dt.timedelta(seconds=lease_seconds)}
        won = [
            candidate.id
            for candidate in candidates
            if cast(
                CursorResult[Any],
                session.execute(
                    update(Ticket)
                    .where(Ticket.id == candidate.id, Ticket.status == QUEUED, Ticket.fence == candidate.fence)
                    .values(values)
                    .execution_options(synchronize_session=False)
                ),
            ).rowcount
        ]
        if won:
            query = select(Ticket).where(Ticket.id.in_(won)).execution_options(populate_existing=True)
            found = {ticket.id: ticket for ticket in session.scalars(query)}
            return [_claim_of(found[ticket_id]) for ticket_id in won]
    return []


def _claim_of(ticket: Ticket) -> Claim:
    return Claim(
        ticket.id,
        ticket.fence,
        ticket.lane,
        ticket.checkpoint_id,
        ticket.turn_id,
        ticket.evaluation_id,
        ticket.attempts,
        ticket.call_id,
        ticket.size,
    )


def _candidates(
    session: Session, limit: int, resident_id: int | None, only_id: int | None, lanes: Sequence[int]
) -> Sequence[Any]:
    waiting = _claimable(select(Ticket.lane)).where(Ticket.lane.in_(lanes))
    if only_id is not None:
        waiting = waiting.where(Ticket.checkpoint_id == only_id)
    lane = session.scalar(waiting.order_by(Ticket.lane).limit(1))
    if lane is None:
        return []
    wanted = resident_id if only_id is None else only_id
    found = session.execute(_in_order(lane, only_id, wanted).limit(limit)).all()
    if not found:  # a rival took the last one between the two questions
        return []
    first = found[0]
    if first.evaluation_id is None:
        return [one for one in found if one.evaluation_id is None and one.checkpoint_id == first.checkpoint_id]
    if first.checkpoint_id == wanted:
        return [first]
    chosen = _next_checkpoint(session, lane)
    return session.execute(_in_order(lane, chosen, chosen).limit(1)).all()


def _in_order(lane: int, only_id: int | None, wanted_id: int | None) -> Any:
    """Tickets of a lane as they are to be claimed: those of the wanted checkpoint, then person by person in turns."""
    rows = _in_turns((lane,), only_id).subquery()
    order = [rows.c.turn, rows.c.issued_at, rows.c.id]
    if wanted_id is not None:
        order.insert(0, cast(Any, rows.c.checkpoint_id != wanted_id))
    return select(rows).order_by(*order)


def _in_turns(lanes: Sequence[int], only_id: int | None = None) -> Any:
    """Waiting tickets, each with its `turn`.

    A person's first waiting ticket goes before everybody's second; who has answers under way waits as many turns.
    """
    running = (
        select(Ticket.user_id, func.count().label("number"))
        .where(Ticket.status == RUNNING, Ticket.user_id.is_not(None))
        .group_by(Ticket.user_id)
        .subquery()
    )
    of_person = func.row_number().over(
        partition_by=(Ticket.lane, Ticket.user_id), order_by=(Ticket.issued_at, Ticket.id)
    )
    turn = (of_person + func.coalesce(running.c.number, 0)).label("turn")
    columns = (Ticket.id, Ticket.fence, Ticket.lane, Ticket.checkpoint_id, Ticket.evaluation_id, Ticket.issued_at)
    query = _claimable(select(*columns, Ticket.size, turn)).outerjoin(running, running.c.user_id == Ticket.user_id)
    query = query.where(Ticket.lane.in_(lanes))
    return query if only_id is None else query.where(Ticket.checkpoint_id == only_id)


def in_turns(session: Session) -> Sequence[Any]:
    """All tickets for answers that wait, in the order in which people have their turns in each lane."""
    return session.execute(_answers_in_turns()).all()


@lru_cache  # asked with each message, and putting it together takes longer than the answer
def _answers_in_turns() -> Any:
    rows = _in_turns(ANSWERS).where(Ticket.evaluation_id.is_(None)).subquery()
    return select(rows).order_by(rows.c.lane, rows.c.turn, rows.c.issued_at, rows.c.id)


def starving_lane(session: Session, lanes: Sequence[int]) -> int | None:
    """A lane in which something has waited for longer than is guaranteed, while the lane had nothing at all."""
    guaranteed = [lane for lane in lanes if lane in GUARANTEED_SECONDS]
    query = _claimable(select(Ticket.lane, func.min(Ticket.issued_at))).where(Ticket.lane.in_(guaranteed))
    now = utcnow()
    for lane, since in session.execute(query.group_by(Ticket.lane).order_by(Ticket.lane)).all():
        if (now - since).total_seconds() < GUARANTEED_SECONDS[lane]:
            continue
        served = session.scalar(select(func.max(Ticket.claimed_at)).where(Ticket.lane == lane))
        if served is None or (now - served).total_seconds() >= GUARANTEED_SECONDS[lane]:
            return int(lane)
    return None


def has_waiting(session: Session, lane: int, checkpoint_id: int | None) -> bool:
    """Whether a ticket of this lane and checkpoint could be claimed now."""
    query = _claimable(select(Ticket.id)).where(Ticket.lane == lane, Ticket.checkpoint_id == checkpoint_id)
    return session.scalar(query.limit(1)) is not None


def waiting_since(session: Session, lanes: Sequence[int]) -> dict[int, dt.datetime]:
    """Since when the longest-waiting person of each checkpoint waits, in the given lanes."""
    query = _claimable(select(Ticket.checkpoint_id, func.min(Ticket.issued_at))).where(
        Ticket.lane.in_(lanes), Ticket.evaluation_id.is_(None)
    )
    return {
        checkpoint_id: since for checkpoint_id, since in session.execute(query.group_by(Ticket.checkpoint_id)).all()
    }


def _next_checkpoint(session: Session, lane: int) -> int | None:
    """Whose evaluations come next: the newest of a live run, else each run's ends, then middles, quarters …"""
    query = _claimable(
        select(Ticket.checkpoint_id, Checkpoint.run_id, Checkpoint.step, func.min(Ticket.issued_at).label("since"))
    ).where(Ticket.lane == lane)
    waiting = session.execute(query.group_by(Ticket.checkpoint_id, Checkpoint.run_id, Checkpoint.step)).all()
    places = {run_id: _places(session, run_id) for run_id in {row.run_id for row in waiting}}
    best = min(waiting, key=lambda row: (places[row.run_id][row.step], row.since), default=None)
    return None if best is None else int(best.checkpoint_id)


def _places(session: Session, run_id: int) -> dict[int, int]:
    """When each step of a run has its turn."""
    steps = sorted(set(session.scalars(select(Checkpoint.step).where(Checkpoint.run_id == run_id))))
    places = {steps[index]: turn for turn, index in enumerate(coarse_to_fine(len(steps)))}
    run = session.get_one(Run, run_id)
    if run.kind == "training" and run.status == RUNNING:
        newest = session.scalar(select(func.max(Checkpoint.step)).where(_is_ready_of(run_id)))
        places[newest if newest is not None else steps[-1]] = -1  # everybody waits for the point that is new
    return places


def _is_ready_of(run_id: int) -> Any:
    return (Checkpoint.run_id == run_id) & (Checkpoint.state == READY)


def coarse_to_fine(n: int) -> list[int]:
    """The numbers 0 … n-1 as both ends, the middle, the quarters, the eighths …: a curve is whole at any moment."""
    if n <= 2:
        return list(range(n))
    order = [0, n - 1]
    intervals = deque([(0, n - 1)])
    while intervals:
        low, high = intervals.popleft()
        middle = (low + high) // 2
        if middle != low:
            order.append(middle)
            intervals += [(low, middle), (middle, high)]
    return order


def _claimable(query: Any) -> Any:
    # The columns' types do not survive a generic join; each caller knows what it asked for.
    return query.join(Checkpoint, Checkpoint.id == Ticket.checkpoint_id).where(
        Ticket.status == QUEUED, Checkpoint.state == READY
    )


def renew(session: Session, ticket_id: int, fence: int, lease_seconds: float = LEASE_SECONDS) -> bool:
    """Keep a lease. False means the ticket was cancelled or passed on: stop at once."""
    kept = session.execute(
        update(Ticket)
        .where(Ticket.id == ticket_id, Ticket.fence == fence, Ticket.status == RUNNING)
        .values(lease_until=utcnow() + dt.timedelta(seconds=lease_seconds))
    )
    return bool(cast(CursorResult[Any], kept).rowcount)


def finish(
    session: Session,
    ticket_id: int,
    fence: int,
    status: str = FINISHED,
    error: str = "",
    started_at: dt.datetime | None = None,
) -> None:
    """Report the end of the work, and when its first word came; the report and its results belong in one transaction.

    Raises:
        Conflict: the lease was lost, so another worker's report is the one that counts.
    """
    ended = {"status": status, "error": error, "finished_at": utcnow(), "lease_until": None}
    _report(session, ticket_id, fence, **ended, started_at=started_at)


def _report(session: Session, ticket_id: int, fence: int, **values: Any) -> None:
    done = session.execute(
        update(Ticket).where(Ticket.id == ticket_id, Ticket.fence == fence, Ticket.status == RUNNING).values(**values)
    )
    if not cast(CursorResult[Any], done).rowcount:
        raise Conflict(
            "Ticket %(ticket_id)s is no longer held under number %(fence)s; this report is dropped.",
            ticket_id=ticket_id,
            fence=fence,
        )


def give_back(session: Session, ticket_id: int, fence: int, *, blameless: bool = False) -> bool:
    """Put a claimed ticket back at its old place; `blameless` where the work is not why, so no attempt is counted.

    False: the lease was lost, so whatever became of the work since stands.
    """
    back = session.execute(
        update(Ticket)
        .where(Ticket.id == ticket_id, Ticket.fence == fence, Ticket.status == RUNNING)
        .values(status=QUEUED, lease_until=None, attempts=Ticket.attempts - int(blameless))
    )
    return bool(cast(CursorResult[Any], back).rowcount)


def next_slice(session: Session, ticket_id: int, fence: int) -> None:
    """A slice was recorded and more are to do: back to the old place, so that a chat can come between.

    Raises:
        Conflict: the lease was lost, so another worker's report is the one that counts.
    """
    _report(session, ticket_id, fence, status=QUEUED, lease_until=None, attempts=0)
    jobs.defer(session, jobs.WORK)


def cancel(
    session: Session, *, turn_id: int | None = None, evaluation_id: int | None = None, call_id: int | None = None
) -> bool:
    """Leave the line, or take the ticket away from the worker that holds it. False: it had ended."""
    subjects = {Ticket.turn_id: turn_id, Ticket.evaluation_id: evaluation_id, Ticket.call_id: call_id}
    [subject] = [column == given for column, given in subjects.items() if given is not None]
    left = session.execute(
        update(Ticket)
        .where(subject, Ticket.status.in_((QUEUED, RUNNING)))
        .values(status=CANCELLED, finished_at=utcnow(), lease_until=None)
    )
    return bool(cast(CursorResult[Any], left).rowcount)


def reclaim_expired(session: Session) -> int:
    """Put tickets of workers that went silent back at their old place; returns how many."""
    back = session.execute(
        update(Ticket)
        .where(Ticket.status == RUNNING, Ticket.lease_until < utcnow())
        .values(status=QUEUED, lease_until=None)
    )
    number = cast(CursorResult[Any], back).rowcount
    if number:
        jobs.defer(session, jobs.WORK)
    return number


def num_queued(session: Session) -> int:
    """Tickets that a worker could claim now."""
    return session.scalar(_claimable(select(func.count(Ticket.id)))) or 0


def has_queued(session: Session, lanes: Sequence[int]) -> bool:
    """Whether there is a ticket in these lanes that a worker could claim now."""
    return session.scalar(_claimable(select(Ticket.id)).where(Ticket.lane.in_(lanes)).limit(1)) is not None


def count_by_lane(session: Session) -> dict[tuple[str, str], int]:
    """Open tickets by (lane, status), for the admin page and the metrics."""
    query = select(Ticket.lane, Ticket.status, func.count()).where(Ticket.status.in_((QUEUED, RUNNING)))
    rows = session.execute(query.group_by(Ticket.lane, Ticket.status)).all()
    return {(LANES[lane], status): number for lane, status, number in rows}


def list_open(session: Session, limit: int) -> list[tuple[Ticket, str]]:
    """Tickets that are worked on or wait, in the lanes' order, and what the checkpoint of each is called."""
    query = select(Ticket, Checkpoint).join(Checkpoint, Checkpoint.id == Ticket.checkpoint_id)
    query = query.where(Ticket.status.in_((QUEUED, RUNNING)))
    order = (Ticket.status.desc(), Ticket.lane, Ticket.issued_at, Ticket.id)
    return [(ticket, checkpoint.label) for ticket, checkpoint in session.execute(query.order_by(*order).limit(limit))]


def somebody_chats(session: Session, since: dt.datetime) -> bool:
    """Whether somebody asked for an answer after this moment."""
    # By status too: the index of the line begins with it.
    query = select(Ticket.id).where(
        Ticket.status.in_((QUEUED, RUNNING, FINISHED, FAILED, CANCELLED)),
        Ticket.lane.in_(ANSWERS),
        Ticket.evaluation_id.is_(None),
        Ticket.issued_at > since,
    )
    return session.scalar(query.limit(1)) is not None


def for_turn(session: Session, turn_id: int) -> Ticket | None:
    """The ticket of a chat turn."""
    return session.scalar(select(Ticket).where(Ticket.turn_id == turn_id))
