"""What every task of a run has shown so far: its scores in all metrics, its cost, the errors of its changes."""

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from sqlalchemy import select
from sqlalchemy.orm import Session

from registry import suites
from registry.models import Change, Checkpoint, Evaluation, Result, Run, Task
from registry.models.base import FINISHED, SCORED

MAX_CHECKPOINTS = 60
"""Of a longer run so many are looked at, evenly, and as many milestones."""
LATEST = 10
"""Those at the end are all looked at: the noise is taken from them."""


class Scored(NamedTuple):
    """One score of a task."""

    step: int
    value: float
    stderr: float | None
    low: float | None
    high: float | None
    n: int


class Record(NamedTuple):
    """A task in a run, under the protocol that was used last."""

    task: Task
    scores: dict[str, list[Scored]]
    """By metric, in the order of the steps."""
    change_errors: list[float]
    """Standard errors of the latest changes of the headline metric that were compared item by item."""
    engine_seconds: float | None
    """Per checkpoint, over the latest ones; None where it was measured elsewhere."""


def records(session: Session, run: Run) -> list[Record]:
    """Every task that has a headline metric and a score in the run, in the order of the suites; three queries."""
    ids = _chosen(session, run)
    by_task: dict[str, list[Any]] = {}
    for row in session.execute(_results(ids)) if ids else ():
        by_task.setdefault(row.name, []).append(row)
    return [
        _record(task, by_task[task.name]) for task in suites.list_tasks(session) if task.metric and task.name in by_task
    ]


def _chosen(session: Session, run: Run) -> list[int]:
    query = (
        select(Checkpoint.id, Checkpoint.is_milestone)
        .where(
            Checkpoint.run_id == run.id,
            Checkpoint.kind == "pretrained",
            Checkpoint.precision == 16,
            Checkpoint.state.in_(SCORED),
        )
        .order_by(Checkpoint.step)
    )
    rows = session.execute(query).all()
    milestones = [row.id for row in rows if row.is_milestone]
    return sorted({*_thinned([row.id for row in rows]), *_thinned(milestones)})


def _thinned(ids: Sequence[int]) -> Iterable[int]:
    stride = -(-len(ids) // MAX_CHECKPOINTS) or 1
    return [*ids[::stride], *ids[-LATEST:]]


def _results(ids: Sequence[int]) -> Any:
    return (
        select(
            Task.name,
            Task.metric.label("headline"),
            Checkpoint.step,
            Evaluation.id.label("evaluation_id"),
            Evaluation.protocol_key,
            Evaluation.engine_seconds,
            Result.metric,
            Result.value,
            Result.stderr,
            Result.low,
            Result.high,
            Result.n,
            Change.stderr.label("change_error"),
        )
        .join(Evaluation, Evaluation.task_id == Task.id)
        .join(Checkpoint, Checkpoint.id == Evaluation.checkpoint_id)
        .join(Result, Result.evaluation_id == Evaluation.id)
        .outerjoin(
            Change,
            (Change.evaluation_id == Evaluation.id) & (Result.metric == Task.metric) & Change.is_paired.is_(True),
        )
        .where(Evaluation.checkpoint_id.in_(ids), Evaluation.status == FINISHED)
        .order_by(Checkpoint.step, Evaluation.id)
    )


def _record(task: Task, rows: Sequence[Any]) -> Record:
    latest = max(rows, key=lambda row: row.evaluation_id).protocol_key
    own = [row for row in rows if row.protocol_key == latest]
    by_metric: dict[str, dict[int, Scored]] = {}
    for row in own:
        scored = Scored(row.step, row.value, row.stderr, row.low, row.high, row.n)
        by_metric.setdefault(row.metric, {})[row.step] = scored
    headline = [row for row in own if row.metric == task.metric]
    seconds = [row.engine_seconds for row in headline[-LATEST:] if row.engine_seconds]
    return Record(
        task=task,
        scores={metric: list(found.values()) for metric, found in by_metric.items()},
        change_errors=[row.change_error for row in headline if row.change_error is not None][-LATEST:],
        engine_seconds=sum(seconds) / len(seconds) if seconds else None,
    )
