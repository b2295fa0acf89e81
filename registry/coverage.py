"""What each task costs, and at how many checkpoints it was answered, for those who choose what is run."""

from collections.abc import Sequence
from typing import NamedTuple

from sqlalchemy import case, func, select
from sqlalchemy.orm import Session

from registry import suites
from registry.models import Checkpoint, Evaluation, Task
from registry.models.base import FAILED, FINISHED, QUEUED, RUNNING, SCORED


class Coverage(NamedTuple):
    """One task over all checkpoints that have scores."""

    task: Task
    num_finished: int
    """Checkpoints that it has results of."""
    num_open: int
    num_failed: int
    seconds: float | None
    """Engine seconds for one checkpoint, on average."""
    total_seconds: float


def of_tasks(session: Session) -> list[Coverage]:
    """Every task, retired ones too, in the order of the suites; visitors' prompts have a page of their own."""
    status = Evaluation.status
    done = case((status == FINISHED, Evaluation.checkpoint_id))
    figures = (
        func.count(done.distinct()),
        func.sum(case((status.in_((QUEUED, RUNNING)), 1), else_=0)),
        func.sum(case((status == FAILED, 1), else_=0)),
        func.avg(case((status == FINISHED, Evaluation.engine_seconds))),
        func.sum(func.coalesce(Evaluation.engine_seconds, 0.0)),
    )
    query = select(Evaluation.task_id, *figures).join(Evaluation.checkpoint).where(Checkpoint.state.in_(SCORED))
    query = query.group_by(Evaluation.task_id)
    rows = {task_id: rest for task_id, *rest in session.execute(query)}
    return [_coverage(task, rows.get(task.id)) for task in suites.list_tasks(session, retired=True) if _is_shown(task)]


def num_checkpoints(session: Session) -> int:
    """How many checkpoints there are to be covered."""
    return session.scalar(select(func.count()).select_from(Checkpoint).where(Checkpoint.state.in_(SCORED))) or 0


def _is_shown(task: Task) -> bool:
    return task.suite.name != suites.COMMUNITY


def _coverage(task: Task, figures: Sequence[float | None] | None) -> Coverage:
    if figures is None:
        return Coverage(task, 0, 0, 0, None, 0.0)
    finished, is_open, failed, seconds, total = figures
    return Coverage(task, int(finished or 0), int(is_open or 0), int(failed or 0), seconds, float(total or 0.0))
