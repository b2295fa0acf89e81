"""One checkpoint: its scores against another, the items that flipped, what it wrote, its family; and more suites."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

from fastapi import APIRouter, Path, Query, Request, Response
from fastapi.responses import HTMLResponse, RedirectResponse
from pydantic import StringConstraints
from sqlalchemy.orm import Session

from registry import checkpoints, comparisons, db, evaluations, events, quantizations
from registry import lineage as registry_lineage
from registry.changes import Pair
from registry.errors import Conflict
from registry.models import Checkpoint, Evaluation
from registry.models.base import FINISHED, READY, SCORED, VERIFYING
from server import (
    auth,
    compare,
    csrf,
    figures,
    growth,
    lineage,
    pedigree,
    probes,
    protocols,
    quantization,
    render,
    scores,
)
from server.deps import ReadSession, RunInPath
from server.flips import flips_src
from server.i18n import gettext
from server.sides import View

router = APIRouter(route_class=csrf.FormRoute, include_in_schema=False)

MAX_OTHERS = 200
MAX_DIGITS = 18
KINDS = r"^(pretrained|chat|avg[1-9]\d?)$"
Step = Annotated[int, Path(ge=0, lt=10**MAX_DIGITS)]
Kind = Annotated[str, StringConstraints(pattern=KINDS)]
Precision = Literal["16", "8", "4"]
Against = Annotated[str, Query(max_length=120)]


@dataclass(frozen=True)
class Warning:
    """What looks wrong about a checkpoint, and the other step that it is about."""

    kind: str
    """`same_weights`, `twin` or `tokenizer`."""
    step: int | None
    href: str
    distance: float | None


@dataclass(frozen=True)
class Other:
    """A checkpoint of the same run that this one can be held against."""

    value: str
    text: str
    is_chosen: bool


@dataclass(frozen=True)
class FlippedTask:
    """How many items of a task changed in one direction, and where they can be read."""

    title: str
    num_items: int
    src: str


@dataclass(frozen=True)
class FlipsFragment:
    """Context of checkpoints/_flips.html."""

    before: Checkpoint | None
    learned: Sequence[FlippedTask]
    forgotten: Sequence[FlippedTask]


@dataclass(frozen=True)
class CheckpointPage:
    """Context of checkpoints/page.html."""

    checkpoint: Checkpoint
    warnings: Sequence[Warning]
    before: Checkpoint | None
    """The one that it is held against: the one before, or another that the reader chose."""
    before_href: str
    others: Sequence[Other]
    own_href: str
    flips_href: str
    compare_href: str
    lineage: lineage.Lineage
    precisions: Sequence[quantization.Precision]
    pedigree: pedigree.Pedigree
    groups: Sequence[scores.ScoreGroup]
    sayings: Sequence[probes.Saying]
    cost: scores.Cost
    num_open: int
    can_ask: bool
    """Whether the full suites can be asked for."""
    engines: Sequence[str]
    """The protocols of its scores in a few words each."""
    files: Sequence[tuple[str, int]]
    planned: int | None
    """How many evaluations were just asked for."""
    is_update: bool = False


@router.get("/runs/{run}/checkpoints/{step}")
def show_checkpoint(
    request: Request,
    session: ReadSession,
    run: RunInPath,
    step: Step,
    kind: Kind | None = None,
    precision: Precision | None = None,
    against: Against = "",
    planned: int | None = Query(default=None, ge=0),
) -> HTMLResponse:
    """The page of one checkpoint; `against` is the step or label of another, without it the one before."""
    checkpoint = checkpoints.get_checkpoint(session, run, step, kind, int(precision) if precision else None)
    context = _page_of(session, checkpoint, _before(session, checkpoint, against), planned)
    return render.page(request, "checkpoints/page.html", context)


@router.get("/runs/{run}/checkpoints/{step}/flips")
def show_flips(
    request: Request,
    session: ReadSession,
    run: RunInPath,
    step: Step,
    kind: Kind | None = None,
    precision: Precision | None = None,
    against: Against = "",
) -> HTMLResponse:
    """The fragment with the tasks of which items flipped between two checkpoints, those with most first."""
    checkpoint = checkpoints.get_checkpoint(session, run, step, kind, int(precision) if precision else None)
    before = _before(session, checkpoint, against)
    outcomes = comparisons.compare(session, before, checkpoint).outcomes if before else []
    context = FlipsFragment(
        before=before,
        learned=_flipped("learned", [(outcome.pair, outcome.learned) for outcome in outcomes]),
        forgotten=_flipped("forgotten", [(outcome.pair, outcome.forgotten) for outcome in outcomes]),
    )
    return render.page(request, "checkpoints/_flips.html", context)


@router.post("/checkpoints/{checkpoint_id}/full-suites")
def ask_full_suites(_admin: auth.Admin, checkpoint_id: int) -> Response:
    """Make a checkpoint a milestone and queue what it was not asked yet, whatever that costs."""
    with db.transaction() as session:
        checkpoint = checkpoints.get_by_id(session, checkpoint_id)
        if checkpoint.state not in (READY, VERIFYING):
            raise Conflict(
                "%(checkpoint)s is %(state)s: there is nothing that an engine could load.",
                checkpoint=checkpoint.label,
                state=render.label(checkpoint.state),
            )
        checkpoint.is_milestone = True
        planned = evaluations.plan(session, checkpoint)
        for evaluation in planned:
            evaluation.ignore_budget = True  # an administrator asked for it
        address, state = growth.checkpoint_href(checkpoint), checkpoint.state
        place = {"run": checkpoint.run.name, "step": checkpoint.step, "checkpoint_id": checkpoint.id, "state": state}
    events.publish_board("checkpoint", place)
    joined_by = "&" if "?" in address else "?"
    return RedirectResponse(f"{address}{joined_by}planned={len(planned)}", 303)


def _before(session: Session, checkpoint: Checkpoint, against: str) -> Checkpoint | None:
    """The checkpoint that was chosen by step or label; the one before where none was, or itself."""
    if against.isdecimal() and len(against) <= MAX_DIGITS:
        chosen = checkpoints.get_checkpoint(session, checkpoint.run, int(against))
    else:
        chosen = checkpoints.by_label(session, against) if against else checkpoint
    return _usual(session, checkpoint) if chosen is checkpoint else chosen


def _usual(session: Session, checkpoint: Checkpoint) -> Checkpoint | None:
    """What it is held against unasked: the checkpoint before, a quantized one its 16-bit form."""
    return quantizations.parent_of(session, checkpoint) or checkpoints.previous(session, checkpoint)


def _page_of(
    session: Session, checkpoint: Checkpoint, before: Checkpoint | None, planned: int | None
) -> CheckpointPage:
    rows = growth.checkpoint_rows(session, checkpoint.run)
    family = lineage.lineage_of(session, checkpoint, rows)
    is_chosen = before is not None and before is not checkpoints.previous(session, checkpoint)
    own = evaluations.for_checkpoint(session, checkpoint)
    earlier = evaluations.for_checkpoint(session, before) if before else []
    against = None
    if before is not None and is_chosen:
        against = compare.against(comparisons.compare(session, before, checkpoint), before)
    own_href = growth.checkpoint_href(checkpoint)
    return CheckpointPage(
        checkpoint=checkpoint,
        warnings=[_warning(checkpoint, found) for found in checkpoint.warnings],
        before=before,
        before_href=growth.checkpoint_href(before) if before else "",
        others=_others(rows, checkpoint, before),
        own_href=own_href,
        flips_href=_flips_href(own_href, before.label) if before else "",
        compare_href=View(before.label if before else "", checkpoint.label).href,
        lineage=family,
        precisions=quantization.precisions_of(session, checkpoint),
        pedigree=pedigree.draw(registry_lineage.of_checkpoint(session, checkpoint), f"checkpoint:{checkpoint.id}"),
        groups=scores.score_groups(session, own, against),
        sayings=probes.sayings(earlier, own),
        cost=scores.cost_of(session, checkpoint, own),
        num_open=scores.num_open(own),
        can_ask=checkpoint.state in (READY, VERIFYING) and not checkpoint.is_milestone,
        engines=_engines(own),
        files=[(name, entry["size"]) for name, entry in checkpoint.manifest.get("files", {}).items()],
        planned=planned,
    )


def _flips_href(own_href: str, label: str) -> str:
    path, _, asked = own_href.partition("?")
    return f"{path}/flips?{asked}{'&' if asked else ''}against={label}"


def _flipped(kind: str, counted: Iterable[tuple[Pair, int | None]]) -> list[FlippedTask]:
    found = [
        FlippedTask(figures.task_title(pair.after.task), number, f"{flips_src(pair)}&show={kind}")
        for pair, number in counted
        if number
    ]
    return sorted(found, key=lambda task: -task.num_items)


def _others(rows: Sequence[growth.CheckpointRow], checkpoint: Checkpoint, before: Checkpoint | None) -> list[Other]:
    """The ready ones of the run, evenly spaced where there are many; a chosen one of another run too."""
    usable = [row.checkpoint for row in rows if row.checkpoint.state in SCORED and row.checkpoint is not checkpoint]
    stride = -(-len(usable) // MAX_OTHERS) or 1
    shown = [one for place, one in enumerate(usable) if place % stride == 0 or one is before]
    shown = shown if before is None or before in shown else [before, *shown]
    return [Other(one.label, _other_text(one, checkpoint), one is before) for one in shown]


def _other_text(other: Checkpoint, checkpoint: Checkpoint) -> str:
    if other.run_id != checkpoint.run_id:
        return other.label
    words = [gettext("step %(step)s", step=render.number(other.step))]
    words += [render.label(other.kind)] if other.kind != "pretrained" else []
    words += [gettext("%(bits)s bit", bits=other.precision)] if other.precision != 16 else []
    return " · ".join(words)


def _warning(checkpoint: Checkpoint, found: dict[str, object]) -> Warning:
    step, distance = found.get("step"), found.get("distance")
    return Warning(
        kind=str(found.get("kind", "")),
        step=step if isinstance(step, int) else None,
        href=growth.step_href(checkpoint, step) if isinstance(step, int) else "",
        distance=float(distance) if isinstance(distance, int | float) else None,
    )


def _engines(own: Sequence[Evaluation]) -> list[str]:
    found = [protocols.summary(one.protocol) for one in own if one.status == FINISHED and one.protocol]
    return list(dict.fromkeys(text for text in found if text))
