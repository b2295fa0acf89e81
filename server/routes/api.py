"""The JSON API, version 1: everything that the charts show."""

import datetime as dt
from typing import Literal

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict

from registry import checkpoints, evaluations, runs, suites
from registry.evaluations import Series
from registry.models import Checkpoint, Evaluation, Run
from server.deps import ReadSession, RunInPath, XAxis

router = APIRouter(prefix="/api/v1", tags=["v1"])
ALL_STATES = ("verifying", "ready", "rejected", "retired")


class ErrorOut(BaseModel):
    """What went wrong, in a sentence; where a name was unknown, with the names that exist."""

    status: int
    detail: str


class _FromRow(BaseModel):
    model_config = ConfigDict(from_attributes=True)


class RunOut(_FromRow):
    """A training run, or the home of uploaded checkpoints."""

    name: str
    kind: str
    status: str
    num_parameters: int | None
    tokens_per_step: int | None
    max_steps: int | None
    git_revision: str
    created_at: dt.datetime
    heartbeat_at: dt.datetime


class RunDetailOut(RunOut):
    """A run with its configuration and the names that the other addresses take."""

    config: dict[str, object]
    tasks: list[str]
    metrics: list[str]


class CheckpointOut(BaseModel):
    """A checkpoint."""

    id: int
    run: str
    step: int
    kind: str
    precision: int
    state: str
    reason: str
    tokens_seen: int | None
    flops: float | None
    num_parameters: int | None
    size_bytes: int
    digest: str
    created_at: dt.datetime


class PointOut(_FromRow):
    """One checkpoint's score with its 95% interval; `x` in the unit of the asked axis."""

    x: float
    step: int
    tokens_seen: int | None
    value: float
    stderr: float | None
    low: float | None
    high: float | None
    n: int
    checkpoint_id: int


class SeriesOut(BaseModel):
    """A growth curve."""

    run: str
    task: str
    version: str
    title: str
    ability: str
    metric: str
    higher_is_better: bool | None
    chance: float | None
    x: str
    points: list[PointOut]


class MetricPointOut(_FromRow):
    """One logged scalar."""

    step: int
    tokens_seen: int
    value: float
    created_at: dt.datetime


class MetricOut(BaseModel):
    """A scalar of a run's training."""

    run: str
    key: str
    points: list[MetricPointOut]


class ResultOut(_FromRow):
    """A number of an evaluation."""

    metric: str
    value: float
    stderr: float | None
    low: float | None
    high: float | None
    n: int


class EvaluationOut(BaseModel):
    """One checkpoint on one task under one protocol."""

    id: int
    task: str
    version: str
    status: str
    error: str
    num_items: int | None
    engine_seconds: float | None
    protocol: dict[str, object]
    finished_at: dt.datetime | None
    results: list[ResultOut]


NOT_FOUND: dict[int | str, dict[str, object]] = {404: {"model": ErrorOut}}


@router.get("/runs")
def list_runs(session: ReadSession) -> list[RunOut]:
    """Every run, the one heard from last first."""
    return [RunOut.model_validate(run) for run in runs.list_runs(session)]


@router.get("/runs/{run}", responses=NOT_FOUND)
def get_run(session: ReadSession, run: RunInPath) -> RunDetailOut:
    """One run, with the tasks and metrics it has."""
    tasks = [task.name for task in suites.list_tasks(session) if task.metric]
    plain = RunOut.model_validate(run).model_dump()
    return RunDetailOut(**plain, config=run.config, tasks=tasks, metrics=runs.metric_keys(session, run))


@router.get("/runs/{run}/checkpoints", responses=NOT_FOUND)
def list_checkpoints(
    session: ReadSession, run: RunInPath, state: Literal["verifying", "ready", "rejected", "retired"] | None = None
) -> list[CheckpointOut]:
    """The checkpoints of a run, in whatever state, by step."""
    found = checkpoints.list_checkpoints(session, run, (state,) if state else ALL_STATES)
    return [_checkpoint_out(run, checkpoint) for checkpoint in found]


@router.get("/runs/{run}/series", responses=NOT_FOUND)
def get_series(session: ReadSession, run: RunInPath, task: str, metric: str = "", x: XAxis = "tokens") -> SeriesOut:
    """The growth curve of a task; without `metric`, its headline metric."""
    found = suites.get_task(session, task)
    return _series_out(evaluations.growth_series(session, run, found, metric, x))


@router.get("/runs/{run}/metrics", responses=NOT_FOUND)
def get_metric(session: ReadSession, run: RunInPath, key: str) -> MetricOut:
    """A scalar of the training: loss, learning rate, gradient norm, tokens per second, held-out loss."""
    points = runs.metric_series(session, run, key)
    return MetricOut(run=run.name, key=key, points=[MetricPointOut.model_validate(point) for point in points])


@router.get("/checkpoints/{checkpoint_id}/evaluations", responses=NOT_FOUND)
def list_evaluations(session: ReadSession, checkpoint_id: int) -> list[EvaluationOut]:
    """The evaluations of a checkpoint with their results."""
    checkpoint = checkpoints.get_by_id(session, checkpoint_id)
    return [_evaluation_out(evaluation) for evaluation in evaluations.for_checkpoint(session, checkpoint)]


def _checkpoint_out(run: Run, checkpoint: Checkpoint) -> CheckpointOut:
    names = set(CheckpointOut.model_fields) - {"run"}
    return CheckpointOut(run=run.name, **{name: getattr(checkpoint, name) for name in names})


def _series_out(series: Series) -> SeriesOut:
    task, headline = series.task, series.metric == series.task.metric
    return SeriesOut(
        run=series.run,
        task=task.name,
        version=task.version,
        title=task.title,
        ability=task.ability,
        metric=series.metric,
        higher_is_better=task.higher_is_better if headline else None,
        chance=task.chance if headline else None,
        x=series.x,
        points=[PointOut.model_validate(point) for point in series.points],
    )


def _evaluation_out(evaluation: Evaluation) -> EvaluationOut:
    return EvaluationOut(
        id=evaluation.id,
        task=evaluation.task.name,
        version=evaluation.task.version,
        status=evaluation.status,
        error=evaluation.error,
        num_items=evaluation.num_items,
        engine_seconds=evaluation.engine_seconds,
        protocol=evaluation.protocol,
        finished_at=evaluation.finished_at,
        results=[ResultOut.model_validate(result) for result in evaluation.results],
    )
