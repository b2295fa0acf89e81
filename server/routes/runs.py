"""Runs: the list, one run's page, and the fragments that keep it up to date."""

from collections.abc import Sequence
from dataclasses import dataclass

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse

from registry import curves, runs, suites
from registry.models import Run
from server import backlog, charts, growth, render
from server.deps import ReadSession, RunInPath, XAxis
from server.training_curves import Relative, relatives_of

router = APIRouter(include_in_schema=False)


@dataclass(frozen=True)
class RunsPage:
    """Context of runs/list.html."""

    training: Sequence[growth.Age]
    trees: Sequence[Sequence[Relative]]
    """Families of more than one run."""
    uploads: Sequence[growth.Age]


@dataclass(frozen=True)
class CheckpointsPage:
    """Context of runs/checkpoints.html."""

    run: Run
    age: growth.Age
    rows: Sequence[growth.CheckpointRow]
    backlog: backlog.Backlog


@dataclass(frozen=True)
class ChartFragment:
    """Context of charts/_chart.html."""

    chart: charts.Chart
    is_update: bool = True


@dataclass(frozen=True)
class ChartPage:
    """Context of runs/chart.html."""

    run: Run
    chart: charts.Chart
    is_update: bool = False


@dataclass(frozen=True)
class StatusFragment:
    """Context of runs/_status.html."""

    age: growth.Age


@dataclass(frozen=True)
class RowsFragment:
    """Context of runs/_checkpoints.html."""

    run: Run
    rows: Sequence[growth.CheckpointRow]
    backlog: backlog.Backlog


@router.get("/runs")
def list_runs(request: Request, session: ReadSession) -> HTMLResponse:
    """Every run with its age, and the trees that rewinds and branches make of them."""
    found = runs.list_runs(session)
    ages = [growth.age_of(session, run) for run in found]
    context = RunsPage(
        training=[age for age in ages if age.run.kind == "training"],
        trees=[relatives_of(tree) for tree in runs.families(found) if len(tree) > 1],
        uploads=[age for age in ages if age.run.kind != "training"],
    )
    return render.page(request, "runs/list.html", context)


@router.get("/runs/{run}/charts/{task}")
def show_chart(
    request: Request, session: ReadSession, run: RunInPath, task: str, x: XAxis = "tokens", metric: str = ""
) -> HTMLResponse:
    """The fragment of one growth curve; a page with it and its table for who opens the address."""
    found = suites.get_task(session, task)
    series = curves.growth_series(session, run, found, metric, x)
    [chart] = growth.growth_charts(session, run, [series])
    if "hx-request" not in request.headers and "text/html" in request.headers.get("accept", ""):
        return render.page(request, "runs/chart.html", ChartPage(run, chart))
    return render.page(request, "charts/_chart.html", ChartFragment(chart))


@router.get("/runs/{run}/status")
def show_status(request: Request, session: ReadSession, run: RunInPath) -> HTMLResponse:
    """The fragment with a run's age and progress."""
    return render.page(request, "runs/_status.html", StatusFragment(growth.age_of(session, run)))


@router.get("/runs/{run}/checkpoints")
def show_checkpoints(request: Request, session: ReadSession, run: RunInPath) -> HTMLResponse:
    """Every checkpoint of a run; to htmx the list alone."""
    rows = growth.checkpoint_rows(session, run)
    work = backlog.backlog_of(session, run, rows)
    if "hx-request" in request.headers:
        return render.page(request, "runs/_checkpoints.html", RowsFragment(run, rows, work))
    context = CheckpointsPage(run, growth.age_of(session, run), rows, work)
    return render.page(request, "runs/checkpoints.html", context)
