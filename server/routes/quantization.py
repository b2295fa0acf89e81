"""What quantization costs over the training of a run: the page, its section on the run's page, and the data."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

from fastapi import APIRouter, Query, Request
from fastapi.responses import HTMLResponse
from pydantic import BaseModel

from analysis.quantization import Trend
from registry import quantloss
from registry.errors import NotFound
from registry.models import Run
from registry.quantloss import Line
from server import quantization, render
from server.deps import ReadSession, RunInPath
from server.outputs import ErrorOut
from server.quantization import Choice, Figure

router = APIRouter(include_in_schema=False)
api = APIRouter(prefix="/api/v1", tags=["quantization"])

TaskName = Annotated[str, Query(max_length=200, description="A task's name; empty for the average of the panel.")]
Kind = Literal["pretrained", "chat"]


@dataclass(frozen=True)
class QuantizationPage:
    """Context of runs/quantization.html."""

    run: Run
    figures: Sequence[Figure]
    choices: Sequence[Choice]
    task: str
    num_forms: int


class TrendOut(BaseModel):
    """By how much the cost grows with every tenfold of tokens, with a 95% interval."""

    slope: float
    low: float
    high: float
    p_value: float
    num_points: int
    direction: Literal["grows", "shrinks", "unclear"]


class PointOut(BaseModel):
    """What one quantized checkpoint lost against the 16-bit one of its step; positive is worse."""

    checkpoint: str
    step: int
    tokens: int | None
    cost: float
    stderr: float | None
    low: float | None
    high: float | None
    n: int
    """Items of a task, tasks of an average."""
    evaluation_id: int | None


class LineOut(BaseModel):
    """One precision through the training, on a task or, where `task` is empty, on average over the panel."""

    bits: int
    task: str
    metric: str
    """Of the task; of an average `share` or `bits_per_byte`."""
    points: list[PointOut]
    trend: TrendOut | None


class QuantizationOut(BaseModel):
    """What quantization costs over the training of a run."""

    run: str
    averages: list[LineOut]
    tasks: list[LineOut]


@router.get("/runs/{run}/quantization")
def show_quantization(request: Request, session: ReadSession, run: RunInPath, task: TaskName = "") -> HTMLResponse:
    """What each precision costs against 16 bit, by tokens."""
    losses = quantloss.of_run(session, run)
    choices = quantization.choices(losses) if losses else []
    if task and task not in [choice.value for choice in choices]:
        raise NotFound("No quantized checkpoint of '%(run)s' was asked '%(task)s'.", run=run.name, task=task[:80])
    context = QuantizationPage(
        run=run,
        figures=quantization.figures_of(run, losses, task),
        choices=choices,
        task=task,
        num_forms=len(losses),
    )
    return render.page(request, "runs/quantization.html", context)


@api.get("/runs/{run}/quantization", responses={404: {"model": ErrorOut}})
def read_quantization(session: ReadSession, run: RunInPath, kind: Kind = "pretrained") -> QuantizationOut:
    """What 8 and 4 bit cost against 16 bit: paired differences over the same items, on each task and on average."""
    losses = quantloss.of_run(session, run, kind)
    return QuantizationOut(
        run=run.name,
        averages=[_line("", line) for line in quantloss.average_lines(losses)],
        tasks=[
            _line(task.name, line)
            for task in quantloss.tasks_of(losses)
            for line in quantloss.task_lines(losses, task.name)
        ],
    )


def _line(task: str, line: Line) -> LineOut:
    return LineOut(
        bits=line.bits,
        task=task,
        metric=line.metric,
        points=[
            PointOut(
                checkpoint=point.checkpoint.label,
                step=point.checkpoint.step,
                tokens=point.checkpoint.tokens_seen,
                cost=point.value,
                stderr=point.stderr,
                low=point.low,
                high=point.high,
                n=point.n,
                evaluation_id=point.evaluation_id,
            )
            for point in line.points
        ],
        trend=_trend(line.trend),
    )


def _trend(trend: Trend | None) -> TrendOut | None:
    return None if trend is None else TrendOut.model_validate({**trend._asdict(), "direction": trend.direction})
