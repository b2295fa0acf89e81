"""Runs: the list, one run's page, and the fragments that keep it up to date."""

from collections.abc import Sequence
from dataclasses import dataclass

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse, RedirectResponse, Response

from registry import evaluations, runs, suites
from registry.errors import NotFound, name_list
from registry.models import Run
from server import charts, growth, render
from server.deps import ReadSession, RunInPath, XAxis

router = APIRouter(include_in_schema=False)

SCALARS = (
    "train/loss",
    "heldout/loss_zh",
    "heldout/loss_en",
    "heldout/loss_code",
    "train/learning_rate",
    "train/grad_norm",
    "train/tokens_per_second",
)
"""The training curves in the order of the page; others follow by name."""


@dataclass(frozen=True)
class RunsPage:
    """Context of runs/list.html."""

    training: Sequence[growth.Age]
    uploads: Sequence[growth.Age]


@dataclass(frozen=True)
class RunPage:
    """Context of runs/page.html."""

    run: Run
    age: growth.Age
    x: str
    groups: Sequence[growth.Group]
    scalars: Sequence[charts.Chart]
    rows: Sequence[growth.CheckpointRow]
    parent: Run | None
    is_update: bool = False


@dataclass(frozen=True)
class ChartFragment:
    """Context of charts/_chart.html."""

    chart: charts.Chart
    is_update: bool = True


@dataclass(frozen=True)
class StatusFragment:
    """Context of runs/_status.html."""

    age: growth.Age


@dataclass(frozen=True)
class RowsFragment:
    """Context of runs/_checkpoints.html."""

    run: Run
    rows: Sequence[growth.CheckpointRow]


@router.get("/runs")
def list_runs(request: Request, session: ReadSession) -> HTMLResponse:
    """Every run with its age."""
    ages = [growth.age_of(session, run) for run in runs.list_runs(session)]
    context = RunsPage(
        training=[age for age in ages if age.run.kind == "training"],
        uploads=[age for age in ages if age.run.kind != "training"],
    )
    return render.page(request, "runs/list.html", context)


@router.get("/runs/{run}")
def show_run(request: Request, session: ReadSession, run: RunInPath, x: XAxis = "tokens") -> HTMLResponse:
    """One run: growth by ability, training curves, checkpoints."""
    spans = runs.thinned_metrics(session, run)
    keys = [key for key in SCALARS if key in spans] + [key for key in spans if key not in SCALARS]
    context = RunPage(
        run=run,
        age=growth.age_of(session, run),
        x=x,
        groups=growth.growth_groups(session, run, x),
        scalars=[charts.training_chart(run, key, spans[key], x) for key in keys],
        rows=growth.checkpoint_rows(session, run),
        parent=session.get(Run, run.parent_run_id) if run.parent_run_id else None,
    )
    return render.page(request, "runs/page.html", context)


@router.get("/runs/{run}/charts/{task}")
def show_chart(
    request: Request, session: ReadSession, run: RunInPath, task: str, x: XAxis = "tokens", metric: str = ""
) -> HTMLResponse:
    """The fragment of one growth curve."""
    found = suites.get_task(session, task)
    series = evaluations.growth_series(session, run, found, metric, x)
    return render.page(request, "charts/_chart.html", ChartFragment(charts.growth_chart(series)))


@router.get("/runs/{run}/scalars/{key:path}")
def show_scalar(request: Request, session: ReadSession, run: RunInPath, key: str, x: XAxis = "tokens") -> HTMLResponse:
    """The fragment of one training curve."""
    spans = runs.thinned_metrics(session, run, [key])
    if key not in spans:
        raise NotFound(f"Run '{run.name}' has no metric '{key}'. Metrics: {name_list(runs.metric_keys(session, run))}.")
    chart = charts.training_chart(run, key, spans[key], x)
    return render.page(request, "charts/_chart.html", ChartFragment(chart))


@router.get("/runs/{run}/status")
def show_status(request: Request, session: ReadSession, run: RunInPath) -> HTMLResponse:
    """The fragment with a run's age and progress."""
    return render.page(request, "runs/_status.html", StatusFragment(growth.age_of(session, run)))


@router.get("/runs/{run}/checkpoints")
def show_checkpoints(request: Request, session: ReadSession, run: RunInPath) -> Response:
    """The fragment with a run's checkpoints; the run's page for who typed the address."""
    if "hx-request" not in request.headers:
        return RedirectResponse(f"/runs/{run.name}#checkpoints", status_code=303)
    context = RowsFragment(run, growth.checkpoint_rows(session, run))
    return render.page(request, "runs/_checkpoints.html", context)
