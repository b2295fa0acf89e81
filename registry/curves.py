"""Growth curves: one task and metric over the checkpoints of a run, a line for each protocol."""

from typing import Any, NamedTuple

from sqlalchemy import Select, select
from sqlalchemy.orm import Session

from registry import suites
from registry.errors import Invalid, NotFound, name_list
from registry.models import Change, Checkpoint, Evaluation, Result, Run, Task
from registry.models.base import SCORED

X_AXES = ("tokens", "step", "flops", "time")


class Point(NamedTuple):
    """One checkpoint's score; `x` is in tokens, steps, FLOPs or seconds since the run began."""

    x: float
    step: int
    tokens_seen: int | None
    value: float
    stderr: float | None
    low: float | None
    high: float | None
    n: int
    checkpoint_id: int
    evaluation_id: int
    protocol_key: str
    """Points of another key are on another line."""
    is_imported: bool
    """Measured elsewhere."""
    verdict: str
    """Against the checkpoint before under the same protocol: `gain`, `loss`, `within noise`; empty for the first."""


class Series(NamedTuple):
    """A growth curve: one task and metric over the checkpoints of a run."""

    run: str
    task: Task
    metric: str
    x: str
    points: list[Point]
    """By step; of every protocol."""

    @property
    def lines(self) -> list[list[Point]]:
        """The points of each protocol, the one that was used last at the end."""
        by_key: dict[str, list[Point]] = {}
        for point in self.points:
            by_key.setdefault(point.protocol_key, []).append(point)
        return sorted(by_key.values(), key=lambda line: max(point.evaluation_id for point in line))


def growth_series(
    session: Session,
    run: Run,
    task: Task,
    metric: str = "",
    x: str = "tokens",
    *,
    kind: str = "pretrained",
    precision: int = 16,
) -> Series:
    """One task and metric over a run's ready checkpoints; `metric` empty means the headline metric.

    Raises:
        Invalid: an unknown axis.
        NotFound: the task has no such metric; with the metrics it has.
    """
    if x not in X_AXES:
        raise Invalid("There is no x-axis '%(x)s'. Axes: %(known)s.", x=x, known=", ".join(X_AXES))
    metric = metric or task.metric
    if not metric:
        scored = [other.name for other in suites.list_tasks(session) if other.metric]
        raise NotFound(
            "Task '%(task)s' has no metric: it is a probe. Tasks with one: %(known)s.",
            task=task.name,
            known=name_list(scored, 40),
        )
    query = _points(run, kind, precision).where(Task.name == task.name, Result.metric == metric)
    points = [_point(run, row, x) for row in session.execute(query)]
    if not points and metric != task.metric:
        _require_metric(session, task, metric)
    return Series(run.name, task, metric, x, [point for point in points if point is not None])


def _points(run: Run, kind: str, precision: int) -> Select[Any]:
    """Results of a run's checkpoints by step; an older version of a task is found by its name, on another line."""
    return (
        select(
            Task.name,
            Checkpoint.step,
            Checkpoint.tokens_seen,
            Checkpoint.flops,
            Checkpoint.created_at,
            Evaluation.checkpoint_id,
            Evaluation.id.label("evaluation_id"),
            Evaluation.protocol_key,
            Evaluation.protocol["imported"].as_boolean().label("is_imported"),
            Result.value,
            Result.stderr,
            Result.low,
            Result.high,
            Result.n,
            Change.verdict,
        )
        .join(Evaluation, Evaluation.task_id == Task.id)
        .join(Checkpoint, Checkpoint.id == Evaluation.checkpoint_id)
        .join(Result, Result.evaluation_id == Evaluation.id)
        .outerjoin(Change, (Change.evaluation_id == Evaluation.id) & (Result.metric == Task.metric))
        .where(
            Checkpoint.run_id == run.id,
            Checkpoint.kind == kind,
            Checkpoint.precision == precision,
            Checkpoint.state.in_(SCORED),
        )
        .order_by(Checkpoint.step, Evaluation.id)
    )


def _point(run: Run, row: Any, x: str) -> Point | None:
    at = {
        "tokens": row.tokens_seen,
        "step": row.step,
        "flops": row.flops,
        "time": (row.created_at - run.created_at).total_seconds(),
    }[x]
    if at is None:
        return None  # an upload may not say how many tokens it has seen
    return Point(
        x=float(at),
        step=row.step,
        tokens_seen=row.tokens_seen,
        value=row.value,
        stderr=row.stderr,
        low=row.low,
        high=row.high,
        n=row.n,
        checkpoint_id=row.checkpoint_id,
        evaluation_id=row.evaluation_id,
        protocol_key=row.protocol_key or "",
        is_imported=bool(row.is_imported),
        verdict=row.verdict or "",
    )


def metrics_of(session: Session, task: Task) -> list[str]:
    """The metrics that have been recorded for a task."""
    query = select(Result.metric).join(Evaluation).where(Evaluation.task_id == task.id).distinct()
    return sorted({*session.scalars(query), *([task.metric] if task.metric else [])})


def _require_metric(session: Session, task: Task, metric: str) -> None:
    known = metrics_of(session, task)
    if metric not in known:
        raise NotFound(
            "Task '%(task)s' has no metric '%(metric)s'. Metrics: %(known)s.",
            task=task.name,
            metric=metric,
            known=name_list(known),
        )
