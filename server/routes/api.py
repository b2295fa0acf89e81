"""The JSON API, version 1: everything that the charts and pages show."""

from typing import Annotated, Literal

from fastapi import APIRouter, Query, Response

from registry import checkpoints, curves, evaluations, runs, suites
from registry.errors import Conflict, NotFound
from registry.models.base import FINISHED
from server import growth, items, protocols
from server.deps import ReadSession, RunInPath, XAxis
from server.outputs import (
    CheckpointOut,
    ErrorOut,
    EvaluationOut,
    MetricOut,
    MetricPointOut,
    RunDetailOut,
    RunOut,
    SampleOut,
    SamplesOut,
    SeriesOut,
)

router = APIRouter(prefix="/api/v1", tags=["v1"])
State = Literal["verifying", "ready", "external", "rejected", "retired"]
NOT_FOUND: dict[int | str, dict[str, object]] = {404: {"model": ErrorOut}}
MAX_SAMPLES = 500
MAX_OFFSET = 10**9


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


@router.get("/runs/{run}/checkpoints", responses=NOT_FOUND, response_model=list[CheckpointOut])
def list_checkpoints(session: ReadSession, run: RunInPath, state: State | None = None) -> Response:
    """The checkpoints of a run, in whatever state, by step."""
    states = (state,) if state else growth.ALL_STATES
    return Response(CheckpointOut.list_of(session, run, states), media_type="application/json")


@router.get("/runs/{run}/series", responses=NOT_FOUND)
def get_series(session: ReadSession, run: RunInPath, task: str, metric: str = "", x: XAxis = "tokens") -> SeriesOut:
    """The growth curve of a task; without `metric`, its headline metric."""
    series = curves.growth_series(session, run, suites.get_task(session, task), metric, x)
    return SeriesOut.of(series, protocols.of_series(session, [series]))


@router.get("/runs/{run}/metrics", responses=NOT_FOUND)
def get_metric(session: ReadSession, run: RunInPath, key: str) -> MetricOut:
    """A scalar of the training: loss, learning rate, gradient norm, tokens per second, held-out loss."""
    points = runs.metric_series(session, run, key)
    return MetricOut(run=run.name, key=key, points=[MetricPointOut.model_validate(point) for point in points])


@router.get("/checkpoints/{checkpoint_id}/evaluations", responses=NOT_FOUND)
def list_evaluations(session: ReadSession, checkpoint_id: int) -> list[EvaluationOut]:
    """The evaluations of a checkpoint with their results, in the tasks' order, the newest of a task first."""
    checkpoint = checkpoints.get_by_id(session, checkpoint_id)
    return [EvaluationOut.of(found, checkpoint) for found in evaluations.for_checkpoint(session, checkpoint)]


@router.get("/evaluations/{evaluation_id}", responses=NOT_FOUND)
def get_evaluation(session: ReadSession, evaluation_id: int) -> EvaluationOut:
    """One evaluation: results, change, protocol, slices, and what went wrong."""
    checkpoint = evaluations.shown_evaluation(session, evaluation_id).checkpoint
    own = evaluations.for_checkpoint(session, checkpoint)
    return EvaluationOut.of(next(one for one in own if one.id == evaluation_id), checkpoint)


@router.get("/evaluations/{evaluation_id}/samples", responses={**NOT_FOUND, 409: {"model": ErrorOut}})
def list_samples(
    session: ReadSession,
    evaluation_id: int,
    offset: Annotated[int, Query(ge=0, le=MAX_OFFSET)] = 0,
    limit: Annotated[int, Query(ge=1, le=MAX_SAMPLES)] = 50,
) -> SamplesOut:
    """Items of a finished evaluation with their answers, from `offset` on."""
    evaluation = evaluations.shown_evaluation(session, evaluation_id)
    if evaluation.status != FINISHED:
        raise Conflict(
            "Evaluation %(evaluation_id)s is %(status)s: its answers are here once it is finished.",
            evaluation_id=evaluation_id,
            status=evaluation.status,
        )
    if not evaluation.slices:
        raise NotFound(
            "The answers of evaluation %(evaluation_id)s were not imported, only its results.",
            evaluation_id=evaluation_id,
        )
    every = items.answered(evaluation)
    return SamplesOut(
        evaluation_id=evaluation_id,
        task=evaluation.task.name,
        num_items=len(every),
        offset=offset,
        samples=[SampleOut.of(one) for one in every[offset : offset + limit]],
    )
