"""What quantization costs: evaluations of quantized checkpoints against those of the 16-bit one of the same step.

Both answered the same items, asked in the same way by the same engine; so the differences are taken item by item. Kept
in rows when either is finished, because reading the answers of a whole run would keep a page waiting.
"""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

from sqlalchemy import delete, select
from sqlalchemy.orm import Session, joinedload, selectinload

from analysis import quantization as statistics
from analysis.quantization import Average, Cost, Trend
from registry import suites
from registry.changes import Found, Pair
from registry.models import Checkpoint, Evaluation, QuantizationLoss, Run, Task
from registry.models.base import EXTERNAL, FINISHED, READY
from registry.quantized import PLAIN_BITS

SHARE, BITS = "share", "bits_per_byte"
"""What can be averaged: points of accuracy and the like, and bits per byte."""
FAMILIES = (SHARE, BITS)


class TaskLoss(NamedTuple):
    """What one task says about a quantized checkpoint."""

    task: Task
    evaluation_id: int
    against_id: int
    cost: Cost
    """Positive is worse, whichever way the metric goes."""
    low: float | None
    """Lower end of the 95% interval of the cost."""
    high: float | None
    p_value: float | None
    n: int
    is_paired: bool

    @property
    def family(self) -> str:
        """What it can be averaged with; empty for a metric that cannot."""
        return family_of(self.task.metric)


class Loss(NamedTuple):
    """What quantization cost a checkpoint."""

    checkpoint: Checkpoint
    """The quantized one."""
    tasks: list[TaskLoss]
    """In the tasks' order."""
    averages: dict[str, Average]
    """By family, over the tasks of the panel."""


class Point(NamedTuple):
    """What one quantized checkpoint lost, on a task or on average; positive is worse."""

    checkpoint: Checkpoint
    value: float
    stderr: float | None
    low: float | None
    high: float | None
    n: int
    """Items of a task, tasks of an average."""
    evaluation_id: int | None = None


class Line(NamedTuple):
    """One precision through the training, on one task or on average."""

    bits: int
    metric: str
    """Of the task; of an average its family."""
    points: list[Point]
    """By step."""
    trend: Trend | None
    """Over tokens; None with too few checkpoints that say how much they have read."""


def family_of(metric: str) -> str:
    """`share`, `bits_per_byte`, or empty."""
    name = metric.partition(",")[0]
    return SHARE if name in suites.SHARES else BITS if name == BITS else ""


def pairs(session: Session, evaluation: Evaluation) -> list[Pair]:
    """The comparisons that an evaluation takes part in: of a quantized checkpoint with the 16-bit one, and back."""
    own = evaluation.checkpoint
    is_form = own.precision != PLAIN_BITS
    query = (
        select(Evaluation)
        .join(Evaluation.checkpoint)
        .where(
            Checkpoint.run_id == own.run_id,
            Checkpoint.step == own.step,
            Checkpoint.kind == own.kind,
            Checkpoint.precision == PLAIN_BITS if is_form else Checkpoint.precision != PLAIN_BITS,
            Checkpoint.state.in_((READY, EXTERNAL)),
            Evaluation.task_id == evaluation.task_id,
            Evaluation.protocol_key == evaluation.protocol_key,
            Evaluation.status == FINISHED,
        )
        .options(
            joinedload(Evaluation.task),
            joinedload(Evaluation.checkpoint),
            selectinload(Evaluation.results),
            selectinload(Evaluation.slices),
        )
    )
    others = session.scalars(query.order_by(Evaluation.id)).all()
    return [Pair(other, evaluation) if is_form else Pair(evaluation, other) for other in others]


def record(session: Session, pair: Pair, found: Found | None) -> None:
    """Keep what a comparison came to, as of `changes.difference`."""
    session.execute(delete(QuantizationLoss).where(QuantizationLoss.evaluation_id == pair.after.id))
    if found is not None:
        session.add(QuantizationLoss(evaluation_id=pair.after.id, against_id=pair.before.id, **found._asdict()))


def of_checkpoint(session: Session, checkpoint: Checkpoint) -> Loss | None:
    """What quantization cost this one; None for a 16-bit one."""
    if checkpoint.precision == PLAIN_BITS:
        return None
    return _loss(checkpoint, _rows(session, Checkpoint.id == checkpoint.id))


def of_run(session: Session, run: Run, kind: str = "pretrained") -> list[Loss]:
    """What quantization cost each quantized checkpoint of a run, by precision and step; one query."""
    by_id: dict[int, list[Any]] = {}
    for row in _rows(session, Checkpoint.run_id == run.id, Checkpoint.kind == kind, Checkpoint.state == READY):
        by_id.setdefault(row[0].id, []).append(row)
    losses = [_loss(own[0][0], own) for own in by_id.values()]
    return sorted(losses, key=lambda loss: (-loss.checkpoint.precision, loss.checkpoint.step))


def average_lines(losses: Sequence[Loss]) -> list[Line]:
    """The averages over the panel through the training: a line a precision and family."""
    found: dict[tuple[int, str], list[Point]] = {}
    for loss in losses:
        for family, one in loss.averages.items():
            point = Point(loss.checkpoint, one.value, one.stderr, one.low, one.high, one.num_tasks)
            found.setdefault((loss.checkpoint.precision, family), []).append(point)
    return [_line(*key, points) for key, points in found.items()]


def task_lines(losses: Sequence[Loss], task: str) -> list[Line]:
    """One task through the training: a line a precision."""
    found: dict[tuple[int, str], list[Point]] = {}
    for loss in losses:
        for one in loss.tasks:
            if one.task.name == task:
                figures = (one.cost.value, one.cost.stderr, one.low, one.high, one.n, one.evaluation_id)
                found.setdefault((loss.checkpoint.precision, one.task.metric), []).append(
                    Point(loss.checkpoint, *figures)
                )
    return [_line(*key, points) for key, points in found.items()]


def tasks_of(losses: Sequence[Loss]) -> list[Task]:
    """Every task that something was compared on, in the tasks' order, each once."""
    found = {one.task.name: one.task for loss in losses for one in loss.tasks}
    return sorted(found.values(), key=lambda task: (task.suite_id, task.position, task.name))


def _line(bits: int, metric: str, points: list[Point]) -> Line:
    known = [point for point in points if point.checkpoint.tokens_seen]
    tokens = [float(point.checkpoint.tokens_seen or 0) for point in known]
    return Line(bits, metric, points, statistics.trend(tokens, [Cost(one.value, one.stderr) for one in known]))


def _rows(session: Session, *conditions: Any) -> Sequence[Any]:
    """Checkpoint, task and loss of each comparison, in the tasks' order; of a task the latest."""
    query = (
        select(Checkpoint, Task, QuantizationLoss)
        .join(Evaluation, Evaluation.checkpoint_id == Checkpoint.id)
        .join(Task, Task.id == Evaluation.task_id)
        .join(QuantizationLoss, QuantizationLoss.evaluation_id == Evaluation.id)
        .where(Checkpoint.precision != PLAIN_BITS, Task.metric != "", *conditions)
        .order_by(Checkpoint.id, Task.suite_id, Task.position, Task.name, Evaluation.id)
    )
    latest = {(row[0].id, row[1].name): row for row in session.execute(query)}
    return list(latest.values())


def _loss(checkpoint: Checkpoint, rows: Sequence[Any]) -> Loss:
    tasks = [_task_loss(task, row) for _, task, row in rows]
    averages = {}
    for family in FAMILIES:
        own = [one.cost for one in tasks if one.family == family and one.task.schedule == suites.PANEL]
        if own:
            averages[family] = statistics.average(own)
    return Loss(checkpoint, tasks, averages)


def _task_loss(task: Task, row: QuantizationLoss) -> TaskLoss:
    sign = -1.0 if task.higher_is_better else 1.0
    ends = [None if end is None or not math.isfinite(end) else sign * end for end in (row.low, row.high)]
    low, high = ends if sign > 0 else ends[::-1]
    stderr = row.stderr if row.stderr is not None and math.isfinite(row.stderr) else None
    return TaskLoss(
        task=task,
        evaluation_id=row.evaluation_id,
        against_id=row.against_id,
        cost=Cost(sign * row.value, stderr),
        low=low,
        high=high,
        p_value=row.p_value,
        n=row.n,
        is_paired=row.is_paired,
    )
