"""Which tasks are worth their place in the panel of a run: the page and its data."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

from fastapi import APIRouter, Query, Request
from fastapi.responses import HTMLResponse
from pydantic import BaseModel

from registry.models import Run
from server import quality, render
from server.deps import ReadSession, RunInPath
from server.outputs import ErrorOut
from server.quality import Row, Sort, Total

router = APIRouter(include_in_schema=False)
api = APIRouter(prefix="/api/v1", tags=["tasks"])

Filter = Annotated[str, Query(max_length=64)]


@dataclass(frozen=True)
class TasksPage:
    """Context of runs/tasks.html."""

    run: Run
    rows: Sequence[Row]
    total: Total
    num_all: int
    abilities: Sequence[str]
    suites: Sequence[str]
    ability: str
    suite: str
    sort: Sort
    reverse: bool


class TaskQualityOut(BaseModel):
    """What a task has shown in a run; null where the data do not tell, or where a ratio has no noise to divide by."""

    task: str
    version: str
    suite: str
    ability: str
    metric: str
    schedule: str
    verdict: str
    """`worth it`, `too noisy`, `too early`, `backwards`, `saturated` or `too few`."""
    reason: str
    num_checkpoints: int
    value: float | None
    growth_to_noise: float | None
    monotonicity: float | None
    chance_distance: float | None
    smallest_change: float | None
    num_items: int | None
    engine_seconds: float | None
    growth_to_noise_by_metric: dict[str, float | None]


class TasksOut(BaseModel):
    """Every task with scores in a run, in the order of the suites."""

    run: str
    tasks: list[TaskQualityOut]


@router.get("/runs/{run}/tasks")
def show_tasks(
    request: Request,
    session: ReadSession,
    run: RunInPath,
    ability: Filter = "",
    suite: Filter = "",
    sort: Sort = "panel",
    reverse: bool = False,
) -> HTMLResponse:
    """What each task is worth at this stage."""
    found = quality.rows_of(session, run)
    shown = [row for row in found if ability in ("", row.task.ability) and suite in ("", row.suite)]
    context = TasksPage(
        run=run,
        rows=quality.ordered(shown, sort, reverse=reverse),
        total=quality.total_of(found),
        num_all=len(found),
        abilities=list(dict.fromkeys(row.task.ability for row in found)),
        suites=list(dict.fromkeys(row.suite for row in found)),
        ability=ability,
        suite=suite,
        sort=sort,
        reverse=reverse,
    )
    return render.page(request, "runs/tasks.html", context)


@api.get("/runs/{run}/tasks", responses={404: {"model": ErrorOut}})
def list_tasks(session: ReadSession, run: RunInPath) -> TasksOut:
    """Signal, noise, cost and worth of every task of a run."""
    return TasksOut(run=run.name, tasks=[_out(row) for row in quality.rows_of(session, run)])


def _out(row: Row) -> TaskQualityOut:
    facts, task = row.facts, row.task
    return TaskQualityOut(
        task=task.name,
        version=task.version,
        suite=row.suite,
        ability=task.ability,
        metric=task.metric,
        schedule=task.schedule,
        verdict=row.word,
        reason=row.reason,
        num_checkpoints=facts.num_checkpoints,
        value=facts.newest.value if facts.newest else None,
        growth_to_noise=_finite(facts.growth_to_noise),
        monotonicity=facts.monotonicity,
        chance_distance=_finite(facts.chance_distance),
        smallest_change=facts.smallest_change,
        num_items=row.items,
        engine_seconds=row.seconds,
        growth_to_noise_by_metric={metric: _finite(value) for metric, value in row.metrics.items()},
    )


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None
