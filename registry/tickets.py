"""Verbs of the line for the GPU: issuing, claiming, renewing, finishing, and where one stands.

A ticket of a checkpoint that is not ready yet waits without being in anybody's way.
"""

import datetime as dt
from collections.abc import Sequence
from typing import Any, NamedTuple, cast

from sqlalchemy import CursorResult, func, select, update
from sqlalchemy.orm import Session

from registry import jobs
from registry.errors import Conflict
from registry.models import Checkpoint, Ticket
from registry.models.base import CANCELLED, FAILED, FINISHED, QUEUED, READY, RUNNING, utcnow

CHAT, EVALUATION = 0, 1
LANES = {CHAT: "chat", EVALUATION: "evaluation"}
LEASE_SECONDS = 30
DEFAULT_SECONDS = {CHAT: 4.0, EVALUATION: 8.0}
"""What a ticket takes before any was measured."""
MEASURED_OVER = 20
"""Tickets of a lane whose durations the estimate is made of."""


class Claim(NamedTuple):
    """A ticket in a worker's hands; `fence` proves it when reporting."""

    ticket_id: int
    fence: int
    lane: int
    checkpoint_id: int
    turn_id: int | None
    evaluation_id: int | None


class Position(NamedTuple):
    """What is ahead of a ticket and how long that takes, as an interval in seconds."""

    ahead_chats: int
    ahead_evaluations: int
    low_seconds: float
    high_seconds: float


def issue(
    session: Session, *, lane: int, checkpoint_id: int, turn_id: int | None = None, evaluation_id: int | None = None
) -> Ticket:
    """Take a place at the end of a lane and wake a worker."""
    ticket = Ticket(lane=lane, checkpoint_id=checkpoint_id, turn_id=turn_id, evaluation_id=evaluation_id)
    session.add(ticket)
    jobs.defer(session, jobs.WORK)
    return ticket


def claim(
    session: Session,
    worker: str,
    *,
    resident_id: int | None = None,
    only_checkpoint_id: int | None = None,
    lanes: Sequence[int] | None = None,
    lease_seconds: float = LEASE_SECONDS,
) -> Claim | None:
    """Take the first ticket of the line: best lane, then the resident checkpoint's, then the oldest.

    Two workers never get the same one: the update repeats the condition it was chosen by.
    """
    query = _claimable(select(Ticket.id, Ticket.fence))
    if only_checkpoint_id is not None:
        query = query.where(Ticket.checkpoint_id == only_checkpoint_id)
    if lanes is not None:
        query = query.where(Ticket.lane.in_(lanes))
    order = [Ticket.lane, Ticket.issued_at, Ticket.id]
    if resident_id is not None:
        order.insert(1, cast(Any, Ticket.checkpoint_id != resident_id))
    query = query.order_by(*order).limit(1)
    # A rival may win between the two statements; then the next candidate is tried.
    while (candidate := session.execute(query).first()) is not None:
        now = utcnow()
        won = session.execute(
            update(Ticket)
            .where(Ticket.id == candidate.id, Ticket.status == QUEUED, Ticket.fence == candidate.fence)
            .values(
                status=RUNNING,
                worker=worker,
                fence=Ticket.fence + 1,
                claimed_at=now,
                lease_until=now + dt.timedelta(seconds=lease_seconds),
            )
        )
        if cast(CursorResult[Any], won).rowcount:
            ticket = session.get_one(Ticket, candidate.id, populate_existing=True)
            return Claim(
                ticket.id, ticket.fence, ticket.lane, ticket.checkpoint_id, ticket.turn_id, ticket.evaluation_id
            )
    return None


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


def finish(session: Session, ticket_id: int, fence: int, status: str = FINISHED, error: str = "") -> None:
    """Report the end of the work; the report and its results belong in one transaction.

    Raises:
        Conflict: the lease was lost, so another worker's report is the one that counts.
    """
    done = session.execute(
        update(Ticket)
        .where(Ticket.id == ticket_id, Ticket.fence == fence, Ticket.status == RUNNING)
        .values(status=status, error=error, finished_at=utcnow(), lease_until=None)
    )
    if not cast(CursorResult[Any], done).rowcount:
        raise Conflict(
            "Ticket %(ticket_id)s is no longer held under number %(fence)s; this report is dropped.",
            ticket_id=ticket_id,
            fence=fence,
        )


def give_back(session: Session, ticket_id: int, fence: int) -> None:
    """Put a claimed ticket back at its old place, for example because the engine died."""
    session.execute(
        update(Ticket)
        .where(Ticket.id == ticket_id, Ticket.fence == fence, Ticket.status == RUNNING)
        .values(status=QUEUED, lease_until=None)
    )


def cancel(session: Session, *, turn_id: int | None = None, evaluation_id: int | None = None) -> bool:
    """Leave the line, or take the ticket away from the worker that holds it. False: it had ended."""
    subject = Ticket.turn_id == turn_id if turn_id is not None else Ticket.evaluation_id == evaluation_id
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


def count_by_lane(session: Session) -> dict[tuple[str, str], int]:
    """Open tickets by (lane, status), for the admin page and the metrics."""
    query = select(Ticket.lane, Ticket.status, func.count()).where(Ticket.status.in_((QUEUED, RUNNING)))
    rows = session.execute(query.group_by(Ticket.lane, Ticket.status)).all()
    return {(LANES[lane], status): number for lane, status, number in rows}


def oldest_wait(
    session: Session, *, not_checkpoint_id: int, lanes: Sequence[int] = (CHAT, EVALUATION)
) -> dt.datetime | None:
    """Since when the longest-waiting claimable ticket of any other checkpoint waits, in the given lanes."""
    query = _claimable(select(func.min(Ticket.issued_at))).where(
        Ticket.checkpoint_id != not_checkpoint_id, Ticket.lane.in_(lanes)
    )
    since: dt.datetime | None = session.scalar(query)
    return since


def for_turn(session: Session, turn_id: int) -> Ticket | None:
    """The ticket of a chat turn."""
    return session.scalar(select(Ticket).where(Ticket.turn_id == turn_id))


def position(session: Session, ticket: Ticket) -> Position:
    """What goes before this ticket: those being worked on, and the queued ones that are claimed first."""
    ahead = {CHAT: 0, EVALUATION: 0}
    query = select(Ticket.lane, func.count()).where(Ticket.id != ticket.id, Ticket.status == RUNNING)
    for lane, number in session.execute(query.group_by(Ticket.lane)).all():
        ahead[lane] += number
    before = (Ticket.lane < ticket.lane) | ((Ticket.lane == ticket.lane) & (Ticket.issued_at < ticket.issued_at))
    queued = _claimable(select(Ticket.lane, func.count())).where(Ticket.id != ticket.id, before)
    for lane, number in session.execute(queued.group_by(Ticket.lane)).all():
        ahead[lane] += number
    seconds = [ahead[lane] * _seconds_of_one(session, lane) for lane in ahead if ahead[lane]]
    # Half to one and a half of the mean: enough to be honest, until the line is measured more finely.
    return Position(ahead[CHAT], ahead[EVALUATION], 0.5 * sum(seconds), 1.5 * sum(seconds))


def _seconds_of_one(session: Session, lane: int) -> float:
    query = select(Ticket.claimed_at, Ticket.finished_at).where(
        Ticket.lane == lane, Ticket.status.in_((FINISHED, FAILED))
    )
    rows = session.execute(query.order_by(Ticket.finished_at.desc()).limit(MEASURED_OVER)).all()
    durations = [(end - begin).total_seconds() for begin, end in rows if begin and end]
    return sum(durations) / len(durations) if durations else DEFAULT_SECONDS[lane]
