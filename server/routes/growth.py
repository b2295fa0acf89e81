"""The growth page of a run: its curves by ability, their data in every form, and a frame for other sites."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal, NamedTuple

import numpy as np
import orjson
from fastapi import APIRouter, Depends, Query, Request
from fastapi.responses import HTMLResponse, Response
from markupsafe import Markup
from sqlalchemy import String, cast, select
from sqlalchemy.orm import Session

from analysis.emergence import Microscope, microscope
from registry import growth as curves
from registry import runs, suites
from registry.errors import Invalid
from registry.growth import View
from registry.models import Checkpoint, Run, Task
from registry.models.base import SCORED
from registry.quantized import PLAIN_BITS
from server import gallery, growth, growth_data, render
from server.charts import words
from server.deps import ReadSession, RunInPath
from server.figures import metric_name, task_title, x_text
from server.i18n import gettext

MAX_TASKS = 100
CONTINUOUS = ("prob", "bits_per_byte", "brier_score")
"""Metrics without a threshold, the one that reads best first."""
LENSES = ("acc", "prob", "brier_score", "bits_per_byte")

router = APIRouter(include_in_schema=False)
api = APIRouter(prefix="/api/v1", tags=["growth"])


class Asked(NamedTuple):
    """A view as its address names it."""

    view: View
    tasks: str


def asked(
    tasks: Annotated[str, Query(max_length=10_000, description="Names, parted by commas; empty for every task.")] = "",
    metric: Annotated[str, Query(max_length=48, description="Empty for each task's headline metric.")] = "",
    x: Literal["tokens", "step", "flops", "time", "loss"] = "tokens",
    kind: Annotated[str, Query(pattern=r"^(pretrained|chat|avg[1-9]\d?)$")] = "pretrained",
    precision: Literal["16", "8", "4"] = "16",
) -> Asked:
    """The parameters that every form of the data takes."""
    return Asked(View(metric, x, kind, int(precision)), tasks)


AskedView = Annotated[Asked, Depends(asked)]


class Variant(NamedTuple):
    """Checkpoints of a run that are another kind or precision than its main ones."""

    kind: str
    precision: int

    @property
    def key(self) -> str:
        """As it stands in an address."""
        return f"{self.kind}-{self.precision}"


@dataclass(frozen=True)
class GrowthPage:
    """Context of runs/page.html."""

    run: Run
    age: growth.Age
    parent: Run | None
    abilities: Sequence[gallery.Ability]
    others: Sequence[Run]
    """Runs whose curves can be laid over these."""
    variants: Sequence[Variant]
    has_forms: bool
    """Whether checkpoints of it were quantized."""
    past: Markup
    """JSON: the runs that it goes on from, and the step after which a rewind took its place."""
    words: Markup
    """JSON for the page's script."""


@dataclass(frozen=True)
class EmbedPage:
    """Context of runs/embed.html."""

    run: Run
    abilities: Sequence[gallery.Ability]
    past: Markup
    words: Markup
    site_name: str
    full_href: str


@dataclass(frozen=True)
class MicroscopeFragment:
    """Context of runs/_microscope.html."""

    title: str
    finding: str
    """As `analysis.emergence` names it."""
    metric: str
    continuous: str
    at: str
    share: float | None
    continuous_share: float | None
    lenses: Sequence[tuple[str, str]]
    """The metrics that there are, with their names."""
    task: str


@router.get("/runs/{run}")
def show_run(request: Request, session: ReadSession, run: RunInPath) -> HTMLResponse:
    """One run: its growth by ability."""
    variants = _variants(session, run)
    context = GrowthPage(
        run=run,
        age=growth.age_of(session, run),
        parent=session.get(Run, run.parent_run_id) if run.parent_run_id else None,
        abilities=gallery.abilities(session, run),
        others=[other for other in runs.list_runs(session) if other.id != run.id],
        variants=variants,
        has_forms=any(variant.precision != PLAIN_BITS for variant in variants),
        past=_past(session, run),
        words=_words(),
    )
    return render.page(request, "runs/page.html", context)


@router.get("/embed/runs/{run}")
def show_embed(request: Request, session: ReadSession, run: RunInPath) -> HTMLResponse:
    """One chart alone, for a frame on another site; the address takes what the growth page takes."""
    context = EmbedPage(
        run=run,
        abilities=gallery.abilities(session, run),
        past=_past(session, run),
        words=_words(),
        site_name=render.common(request)["site_name"],
        full_href=f"/runs/{run.name}" + (f"?{request.url.query}" if request.url.query else ""),
    )
    return render.page(request, "runs/embed.html", context)


@router.get("/runs/{run}/microscope/{task}")
def show_microscope(
    request: Request,
    session: ReadSession,
    run: RunInPath,
    task: str,
    x: Literal["tokens", "step", "flops", "time", "loss"] = "tokens",
) -> HTMLResponse:
    """The fragment that says whether a jump of a curve is in the answers or in the metric."""
    found = suites.get_task(session, task)
    by_metric = {name: _latest_line(session, run, found, View(name, x)) for name in (found.metric, *LENSES) if name}
    present = {name: line for name, line in by_metric.items() if line is not None and len(line.x) > 0}
    continuous = next((name for name in CONTINUOUS if name in present and name != found.metric), "")
    seen = _look(present, found, continuous)
    jump = seen.jump
    context = MicroscopeFragment(
        title=task_title(found),
        finding=seen.finding if continuous else "",
        metric=metric_name(found.metric),
        continuous=metric_name(continuous) if continuous else "",
        at=x_text(x, float(present[found.metric].x[jump.at])) if jump and x != "loss" else "",
        share=jump.share if jump else None,
        continuous_share=seen.continuous_share,
        lenses=[(name, metric_name(name)) for name in dict.fromkeys((found.metric, *LENSES)) if name in present],
        task=task,
    )
    return render.page(request, "runs/_microscope.html", context)


@api.get("/runs/{run}/growth")
def get_growth(session: ReadSession, run: RunInPath, wanted: AskedView) -> Response:
    """Growth curves as columns: `series[].lines[]` with `x`, `step`, `tokens`, `value`, `low`, `high`, `n`,
    `verdict`, `evaluation`; the line of the latest protocol is the last."""
    found = curves.growth_curves(session, run, _tasks(session, wanted.tasks), wanted.view)
    pinned = curves.pins(session, run, wanted.view.x)
    content = growth_data.payload(run, wanted.view, found, pinned, _warned(session, run))
    return _json(content)


@api.get("/runs/{run}/growth.csv", response_class=Response)
def get_growth_csv(session: ReadSession, run: RunInPath, wanted: AskedView) -> Response:
    """The same as a table, one row a point."""
    found = curves.growth_curves(session, run, _tasks(session, wanted.tasks), wanted.view)
    headers = {"Content-Disposition": f'attachment; filename="{run.name}-growth.csv"'}
    return Response(growth_data.as_csv(run, wanted.view, found), media_type="text/csv; charset=utf-8", headers=headers)


def _json(content: dict[str, Any]) -> Response:
    return Response(orjson.dumps(content, option=orjson.OPT_SERIALIZE_NUMPY), media_type="application/json")


def _tasks(session: Session, names: str) -> list[Task]:
    """Those of the names, in their order; every one with a headline metric where none is named."""
    if not names:
        return [task for task in suites.list_tasks(session) if task.metric][:MAX_TASKS]
    asked_for = list(dict.fromkeys(name for name in names.split(",") if name))
    if len(asked_for) > MAX_TASKS:
        raise Invalid("At most %(limit)s tasks at once.", limit=MAX_TASKS)
    return suites.get_tasks(session, asked_for)


def _warned(session: Session, run: Run) -> list[int]:
    is_warned = cast(Checkpoint.warnings, String) != "[]"
    return sorted(set(session.scalars(select(Checkpoint.step).where(Checkpoint.run_id == run.id, is_warned))))


def _past(session: Session, run: Run) -> Markup:
    """The nearest ancestor first, each with the last step that it shares with this run."""
    by_id = {branch.run.id: branch for branch in runs.family(session, run)}
    own = at = by_id[run.id]
    ancestors, until = [], own.from_step
    while at.parent is not None and at.from_step is not None:
        until = min(until, at.from_step) if until is not None else at.from_step
        ancestors.append({"run": at.parent.name, "until": until})
        at = by_id[at.parent.id]
    return render.script_json({"superseded_after": own.superseded_after, "ancestors": ancestors})


def _variants(session: Session, run: Run) -> list[Variant]:
    query = (
        select(Checkpoint.kind, Checkpoint.precision)
        .where(Checkpoint.run_id == run.id, Checkpoint.state.in_(SCORED))
        .distinct()
        .order_by(Checkpoint.kind.desc(), Checkpoint.precision.desc())
    )
    found = [Variant(kind, precision) for kind, precision in session.execute(query)]
    return [variant for variant in found if variant != ("pretrained", 16)]


def _latest_line(session: Session, run: Run, task: Task, view: View) -> curves.Line | None:
    [curve] = curves.growth_curves(session, run, [task], view)
    return curve.lines[-1] if curve.lines else None


def _look(present: dict[str, curves.Line], task: Task, continuous: str) -> Microscope:
    """The headline metric against a continuous one at the checkpoints that have both."""
    if task.metric not in present or not continuous:
        return Microscope("too few points", None, None)
    one, other = present[task.metric], present[continuous]
    _, here, there = np.intersect1d(one.evaluation, other.evaluation, return_indices=True)
    if not here.size:  # their latest protocols differ
        return Microscope("too few points", None, None)
    order = np.argsort(one.x[here], kind="stable")
    here, there = here[order], there[order]
    signs = [1 if growth_data.higher_is_better(task, name) else -1 for name in (task.metric, continuous)]
    stderrs = (one.high[here] - one.low[here]) / 3.92  # the width of a 95% interval
    return microscope(signs[0] * one.value[here], stderrs, signs[1] * other.value[there])


def _words() -> Markup:
    """What the page's script says itself."""
    said = {
        **words(),
        "guessing": gettext("guessing"),
        "interval": gettext("95%% interval"),
        "verdict": gettext("Verdict"),
        "protocol": gettext("Protocol"),
        "value": gettext("Value"),
        "step": gettext("Step"),
        "since": gettext("Since the first checkpoint"),
        "higher": gettext("higher is better"),
        "lower": gettext("lower is better"),
        "above_chance": gettext("above guessing"),
        "superseded": gettext("superseded"),
        "none": gettext("No score in this metric."),
        "no_place": gettext("No point has a place on this axis."),
        "waiting": gettext("The first score is on its way."),
        "broken": gettext("The data could not be loaded. It is tried again when you change the view."),
        "copied": gettext("Copied"),
        "remove": gettext("Remove"),
        "axis_tokens": gettext("tokens seen"),
        "axis_step": gettext("training steps"),
        "axis_flops": gettext("training compute in FLOPs"),
        "axis_time": gettext("time since the run began"),
        "axis_loss": gettext("held-out loss in nats a token"),
        "chat": gettext("chat model"),
        "average": gettext("mean of the last %(num)s", num="{num}"),
        "bits": gettext("%(bits)s bit", bits="{bits}"),
        "points_of": gettext("%(num)s of its points", num="{num}"),
        "incident": render.label("incident"),
    }
    return render.script_json(said)
