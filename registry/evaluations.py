"""Verbs of evaluations: planning them for a checkpoint, recording results, and the growth series."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from sqlalchemy import func, select
from sqlalchemy.orm import Session, joinedload, selectinload

from registry import suites, tickets
from registry.errors import Invalid, NotFound, name_list
from registry.models import Checkpoint, Evaluation, Result, Run, Task
from registry.models.base import CANCELLED, FAILED, FINISHED, QUEUED, READY, RUNNING, utcnow

X_AXES = ("tokens", "step", "flops", "time")


class Score(NamedTuple):
    """A number to record: its 95% interval is [low, high], `n` the items it is made of."""

    metric: str
    value: float
    stderr: float | None
    low: float | None
    high: float | None
    n: int


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


class Series(NamedTuple):
    """A growth curve: one task and metric over the checkpoints of a run."""

    run: str
    task: Task
    metric: str
    x: str
    points: list[Point]


def plan(session: Session, checkpoint: Checkpoint) -> list[Evaluation]:
    """Queue every live task that this checkpoint was not planned for yet."""
    query = select(Evaluation.task_id).where(Evaluation.checkpoint_id == checkpoint.id)
    known = set(session.scalars(query))
    planned = [
        Evaluation(checkpoint_id=checkpoint.id, task_id=task.id)
        for task in suites.list_tasks(session)
        if task.id not in known
    ]
    session.add_all(planned)
    session.flush()  # tickets carry the ids
    for evaluation in planned:
        tickets.issue(session, lane=tickets.EVALUATION, checkpoint_id=checkpoint.id, evaluation_id=evaluation.id)
    return planned


def get_evaluation(session: Session, evaluation_id: int) -> Evaluation:
    """An evaluation with its checkpoint and task.

    Raises:
        NotFound: there is none of that id.
    """
    options = (joinedload(Evaluation.checkpoint), joinedload(Evaluation.task))
    evaluation = session.scalar(select(Evaluation).where(Evaluation.id == evaluation_id).options(*options))
    if evaluation is None:
        raise NotFound("There is no evaluation with the id %(evaluation_id)s.", evaluation_id=evaluation_id)
    return evaluation


def start(session: Session, evaluation_id: int) -> None:
    """A worker has begun."""
    session.get_one(Evaluation, evaluation_id).status = RUNNING


def finish(
    session: Session,
    evaluation_id: int,
    *,
    results: Sequence[Score],
    protocol: Mapping[str, Any],
    num_items: int,
    engine_seconds: float,
    samples_file: str,
) -> None:
    """Record the results; a finished evaluation stays as it is."""
    evaluation = session.get_one(Evaluation, evaluation_id)
    if evaluation.status == FINISHED:
        return
    session.add_all(Result(evaluation_id=evaluation_id, **score._asdict()) for score in results)
    evaluation.status, evaluation.error = FINISHED, ""
    evaluation.protocol = dict(protocol)
    evaluation.num_items, evaluation.engine_seconds = num_items, engine_seconds
    evaluation.samples_file = samples_file
    evaluation.finished_at = utcnow()


def fail(session: Session, evaluation_id: int, error: str) -> None:
    """Record why it cannot be done; `error` is a sentence."""
    evaluation = session.get_one(Evaluation, evaluation_id)
    evaluation.status, evaluation.error, evaluation.finished_at = FAILED, error, utcnow()


def requeue(session: Session, evaluation_id: int) -> None:
    """The worker gave it back."""
    session.get_one(Evaluation, evaluation_id).status = QUEUED


def cancel_for(session: Session, checkpoint: Checkpoint) -> None:
    """Drop what is still open for a checkpoint that was rejected or retired."""
    query = select(Evaluation).where(
        Evaluation.checkpoint_id == checkpoint.id, Evaluation.status.in_((QUEUED, RUNNING))
    )
    for evaluation in session.scalars(query):
        evaluation.status = CANCELLED
        tickets.cancel(session, evaluation_id=evaluation.id)


def for_checkpoint(session: Session, checkpoint: Checkpoint) -> Sequence[Evaluation]:
    """Its evaluations with tasks and results, in the tasks' order."""
    query = (
        select(Evaluation)
        .join(Evaluation.task)
        .where(Evaluation.checkpoint_id == checkpoint.id)
        .options(joinedload(Evaluation.task), selectinload(Evaluation.results))
        .order_by(Task.suite_id, Task.position, Task.name)
    )
    return session.scalars(query).all()


def progress(session: Session, run: Run) -> dict[int, dict[str, int]]:
    """For each checkpoint id of a run, how many evaluations are in each status."""
    query = (
        select(Evaluation.checkpoint_id, Evaluation.status, func.count())
        .join(Evaluation.checkpoint)
        .where(Checkpoint.run_id == run.id)
        .group_by(Evaluation.checkpoint_id, Evaluation.status)
    )
    counts: dict[int, dict[str, int]] = {}
    for checkpoint_id, status, number in session.execute(query).all():
        counts.setdefault(checkpoint_id, {})[status] = number
    return counts


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
    query = (
        select(Checkpoint, Result)
        .join(Evaluation, Evaluation.checkpoint_id == Checkpoint.id)
        .join(Result, Result.evaluation_id == Evaluation.id)
        .where(
            Checkpoint.run_id == run.id,
            Checkpoint.kind == kind,
            Checkpoint.precision == precision,
            Checkpoint.state == READY,
            Evaluation.task_id == task.id,
            Result.metric == metric,
        )
        .order_by(Checkpoint.step)
    )
    points = [_point(run, checkpoint, result, x) for checkpoint, result in session.execute(query)]
    if not points and metric != task.metric:
        _require_metric(session, task, metric)
    return Series(run.name, task, metric, x, [point for point in points if point is not None])


def run_series(
    session: Session, run: Run, x: str = "tokens", *, kind: str = "pretrained", precision: int = 16
) -> list[Series]:
    """The headline curves of a run, one for each task that has a headline metric, in one query for all points.

    Raises:
        Invalid: an unknown axis.
    """
    if x not in X_AXES:
        raise Invalid("There is no x-axis '%(x)s'. Axes: %(known)s.", x=x, known=", ".join(X_AXES))
    tasks = [task for task in suites.list_tasks(session) if task.metric]
    query = (
        select(Task.id, Checkpoint, Result)
        .join(Evaluation, Evaluation.task_id == Task.id)
        .join(Checkpoint, Checkpoint.id == Evaluation.checkpoint_id)
        .join(Result, (Result.evaluation_id == Evaluation.id) & (Result.metric == Task.metric))
        .where(
            Checkpoint.run_id == run.id,
            Checkpoint.kind == kind,
            Checkpoint.precision == precision,
            Checkpoint.state == READY,
            Task.retired.is_(False),
        )
        .order_by(Checkpoint.step)
    )
    points: dict[int, list[Point]] = {task.id: [] for task in tasks}
    for task_id, checkpoint, result in session.execute(query):
        if task_id in points and (point := _point(run, checkpoint, result, x)) is not None:
            points[task_id].append(point)
    return [Series(run.name, task, task.metric, x, points[task.id]) for task in tasks]


def _point(run: Run, checkpoint: Checkpoint, result: Result, x: str) -> Point | None:
    at = {
        "tokens": checkpoint.tokens_seen,
        "step": checkpoint.step,
        "flops": checkpoint.flops,
        "time": (checkpoint.created_at - run.created_at).total_seconds(),
    }[x]
    if at is None:
        return None  # an upload may not say how many tokens it has seen
    return Point(
        x=float(at),
        step=checkpoint.step,
        tokens_seen=checkpoint.tokens_seen,
        value=result.value,
        stderr=result.stderr,
        low=result.low,
        high=result.high,
        n=result.n,
        checkpoint_id=checkpoint.id,
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


def probe_evaluations(session: Session, run: Run) -> Sequence[Evaluation]:
    """Finished probe evaluations of a run's pretrained checkpoints by step, with checkpoint and task."""
    query = (
        select(Evaluation)
        .join(Evaluation.checkpoint)
        .join(Evaluation.task)
        .where(
            Checkpoint.run_id == run.id,
            Checkpoint.kind == "pretrained",
            Checkpoint.state == READY,
            Task.is_probe,
            Evaluation.status == FINISHED,
        )
        .options(joinedload(Evaluation.checkpoint), joinedload(Evaluation.task))
        .order_by(Checkpoint.step)
    )
    return session.scalars(query).all()
