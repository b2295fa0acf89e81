"""How far the evaluations of a run are, what they cost, and which checkpoints come next."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from sqlalchemy import func, select
from sqlalchemy.orm import Session, joinedload

from registry import evaluations, tickets
from registry.models import Checkpoint, Evaluation, Run, Ticket
from registry.models.base import CANCELLED, FAILED, FINISHED, QUEUED, READY, RUNNING
from registry.settings import get_settings
from server.figures import task_title
from server.growth import CheckpointRow

NUM_NEXT = 4


@dataclass(frozen=True)
class Running:
    """An evaluation that has begun."""

    href: str
    title: str
    step: int
    num_done: int
    num_items: int


@dataclass(frozen=True)
class Backlog:
    """The evaluations of a run."""

    done: int
    open: int
    failed: int
    left_out: int
    median_seconds: float | None
    """Engine seconds of a checkpoint; None before one is through."""
    budget_seconds: float
    """0 where there is no limit."""
    running: Sequence[Running]
    upcoming: Sequence[CheckpointRow]
    """The checkpoints that are asked next, as the line stands now."""
    num_idle: int = 0
    """Answers to visitors' prompts that are still to come, when nothing else waits."""


def backlog_of(session: Session, run: Run, rows: Sequence[CheckpointRow]) -> Backlog:
    """How far a run's evaluations are; `rows` are its checkpoints."""
    counts = evaluations.progress(session, run)
    totals: Counter[str] = Counter()
    for one in counts.values():
        totals.update(one)
    through = [key for key, one in counts.items() if one.get(FINISHED) and not one.get(QUEUED) and not one.get(RUNNING)]
    num_open = totals[QUEUED] + totals[RUNNING]
    running = _running(session, run) if num_open else []
    upcoming = _upcoming(session, run, rows) if num_open else []
    under_way = {one.step for one in running}
    return Backlog(
        done=totals[FINISHED],
        open=num_open,
        failed=totals[FAILED],
        left_out=totals[CANCELLED],
        median_seconds=_median_seconds(session, run, through),
        budget_seconds=get_settings().evaluation_budget_seconds,
        running=running,
        upcoming=[row for row in upcoming if row.checkpoint.step not in under_way][:NUM_NEXT],
        num_idle=_num_idle(session, run),
    )


def _num_idle(session: Session, run: Run) -> int:
    query = (
        select(func.count(Ticket.id))
        .join(Checkpoint, Checkpoint.id == Ticket.checkpoint_id)
        .where(Checkpoint.run_id == run.id, Ticket.status.in_((QUEUED, RUNNING)), Ticket.lane == tickets.IDLE)
    )
    return session.scalar(query) or 0


def _median_seconds(session: Session, run: Run, through: Sequence[int]) -> float | None:
    query = (
        select(Evaluation.checkpoint_id, func.sum(Evaluation.engine_seconds))
        .join(Evaluation.checkpoint)
        .where(Checkpoint.run_id == run.id, Evaluation.ignore_budget.is_(False))
        .group_by(Evaluation.checkpoint_id)
    )
    wanted = set(through)
    costs = [seconds for checkpoint_id, seconds in session.execute(query) if checkpoint_id in wanted and seconds]
    return median(costs) if costs else None


def _running(session: Session, run: Run) -> list[Running]:
    query = (
        select(Evaluation)
        .join(Evaluation.checkpoint)
        .where(Checkpoint.run_id == run.id, Evaluation.status == RUNNING)
        .options(joinedload(Evaluation.checkpoint), joinedload(Evaluation.task))
        .order_by(Evaluation.id)
    )
    return [
        Running(f"/evaluations/{one.id}", task_title(one.task), one.checkpoint.step, one.num_done, one.num_items or 0)
        for one in session.scalars(query.limit(NUM_NEXT))
    ]


def _upcoming(session: Session, run: Run, rows: Sequence[CheckpointRow]) -> list[CheckpointRow]:
    """By lane, then both ends, the middle, the quarters … of the run; the newest first while it trains."""
    query = (
        select(Ticket.checkpoint_id, func.min(Ticket.lane))
        .join(Checkpoint, Checkpoint.id == Ticket.checkpoint_id)
        .where(
            Checkpoint.run_id == run.id,
            Checkpoint.state == READY,
            Ticket.status == QUEUED,
            Ticket.lane.in_(tickets.EVALUATIONS),
        )
        .group_by(Ticket.checkpoint_id)
    )
    lanes = {checkpoint_id: lane for checkpoint_id, lane in session.execute(query)}
    places = _places(run, [row.checkpoint for row in rows])
    waiting = [row for row in rows if row.checkpoint.id in lanes]
    waiting.sort(key=lambda row: (lanes[row.checkpoint.id], places[row.checkpoint.step]))
    return waiting


def _places(run: Run, known: Sequence[Checkpoint]) -> dict[int, int]:
    """When each step has its turn, as `registry.tickets` claims."""
    steps = sorted({checkpoint.step for checkpoint in known})
    places = {steps[index]: turn for turn, index in enumerate(tickets.coarse_to_fine(len(steps)))}
    ready = [checkpoint.step for checkpoint in known if checkpoint.state == READY]
    if run.kind == "training" and run.status == RUNNING and ready:
        places[max(ready)] = -1
    return places
