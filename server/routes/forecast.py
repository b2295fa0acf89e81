"""Where a run is going: the forecast page and its data."""

import datetime as dt
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

from fastapi import APIRouter, Query, Request
from fastapi.responses import HTMLResponse
from pydantic import BaseModel, ConfigDict

from registry import forecasts
from registry.models import Run
from server import forecast, render
from server.deps import ReadSession, RunInPath
from server.forecast import Aim, Outlook, Record
from server.outputs import ErrorOut

router = APIRouter(include_in_schema=False)
api = APIRouter(prefix="/api/v1", tags=["forecasts"])

MAX_MADE = 1000


@dataclass(frozen=True)
class ForecastPage:
    """Context of runs/forecast.html."""

    run: Run
    scale: str
    """Of the token axis: `log` or `linear`."""
    show: str
    """An ability, `losses` or `all`."""
    kinds: Sequence[str]
    """What can be shown."""
    aim: Aim | None
    outlooks: Sequence[Outlook]
    waiting: Sequence[Outlook]
    """Those with too few points."""
    record: Record
    note: str
    words: dict[str, str]


class CurvePointOut(BaseModel):
    """One position of a fitted curve with its 90% interval."""

    tokens: float
    value: float
    low: float
    high: float


class OutlookOut(BaseModel):
    """A curve's forecast; `task` is empty for a loss, `refusal` says why there is no number."""

    task: str
    metric: str
    protocol_key: str
    method: str
    num_points: int
    refusal: str
    curve: list[CurvePointOut]


class CoverageOut(BaseModel):
    """How many forecasts of a horizon came due, and how many were inside their 90% interval."""

    horizon: str
    due: int
    inside: int


class ForecastOut(BaseModel):
    """A forecast as it was made; `outcome` is null until its time comes.

    An `outcome_step` without an outcome: the curve went past the aim, and nothing was measured near it.
    """

    model_config = ConfigDict(from_attributes=True)

    task: str
    metric: str
    protocol_key: str
    horizon: str
    made_step: int
    made_tokens: int
    target_step: int
    target_tokens: int
    value: float
    low: float
    high: float
    method: str
    created_at: dt.datetime
    outcome: float | None
    outcome_step: int | None


class ForecastsOut(BaseModel):
    """Where a run's curves go, and the record of earlier forecasts, the newest first."""

    run: str
    target_step: int | None
    target_tokens: float | None
    is_end: bool
    """Whether the target is the planned end of the run; else twice the tokens seen."""
    curves: list[OutlookOut]
    coverage: list[CoverageOut]
    made: list[ForecastOut]


@router.get("/runs/{run}/forecast")
def show_forecast(
    request: Request,
    session: ReadSession,
    run: RunInPath,
    scale: Literal["log", "linear"] = "log",
    show: Annotated[str, Query(max_length=32)] = "",
) -> HTMLResponse:
    """Each curve with its forecast to the end, and what became of earlier ones."""
    found = forecast.outlooks(session, run, show)
    context = ForecastPage(
        run=run,
        scale=scale,
        show=found.show,
        kinds=found.kinds,
        aim=found.aim,
        outlooks=[one for one in found.shown if one.band],
        waiting=[one for one in found.shown if not one.band],
        record=forecast.record_of(session, run),
        note=forecast.note_of(run),
        words=forecast.words(),
    )
    return render.page(request, "runs/forecast.html", context)


@api.get("/runs/{run}/forecasts", responses={404: {"model": ErrorOut}})
def get_forecasts(
    session: ReadSession,
    run: RunInPath,
    show: Annotated[str, Query(max_length=32)] = forecast.ALL,
    limit: Annotated[int, Query(ge=0, le=MAX_MADE)] = 200,
) -> ForecastsOut:
    """Fitted curves to the end of the run with 90% intervals, and the forecasts made so far with their outcomes.

    `show` chooses an ability or `losses`; `limit` is for the forecasts made.
    """
    found = forecast.outlooks(session, run, show)
    aim = found.aim
    scores = forecasts.coverage(session, run)
    return ForecastsOut(
        run=run.name,
        target_step=aim.step if aim else None,
        target_tokens=aim.tokens if aim else None,
        is_end=aim is not None and aim.is_end,
        curves=[_outlook_out(one) for one in found.shown],
        coverage=[
            CoverageOut(horizon=name, due=scores[name].due, inside=scores[name].inside)
            for name in forecasts.HORIZONS
            if name in scores
        ],
        made=[ForecastOut.model_validate(row) for row in forecasts.newest(session, run, limit)],
    )


def _outlook_out(one: Outlook) -> OutlookOut:
    return OutlookOut(
        task=one.curve.task,
        metric=one.curve.metric,
        protocol_key=one.curve.protocol_key,
        method=one.method_name,
        num_points=one.num_points,
        refusal=one.refusal,
        curve=[CurvePointOut(tokens=at, value=value, low=low, high=high) for at, value, low, high in one.band],
    )
