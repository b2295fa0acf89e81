"""Two checkpoints side by side, or two runs at the same age; the items that changed sides; the same as JSON."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

from fastapi import APIRouter, Query, Request
from fastapi.responses import HTMLResponse

from registry import comparisons, evaluations
from registry.changes import Pair
from registry.errors import Conflict, Invalid, NotFound
from registry.models.base import FINISHED, REJECTED
from server import compare, figures, flips, forest, growth, render, sides
from server.deps import ReadSession
from server.flips import Show
from server.i18n import error_text
from server.outputs import ComparisonOut, ErrorOut
from server.sides import At, Sides, View

router = APIRouter(include_in_schema=False)
api = APIRouter(prefix="/api/v1", tags=["v1"])

Label = Annotated[str, Query(max_length=120)]
Amount = Annotated[float | None, Query(ge=0, le=1e30)]
EvaluationId = Annotated[int, Query(ge=1, lt=2**31)]


@dataclass(frozen=True)
class ComparePage:
    """Context of compare/page.html."""

    view: View
    groups: Sequence[sides.OptionGroup]
    sides: Sides | None
    told: compare.Told | None
    forests: Sequence[forest.Forest]
    hrefs: Sequence[str]
    """Addresses of the two checkpoints."""
    rejected: Sequence[str]
    """Sentences about those of the two that were not accepted."""
    error: str
    """Why nothing is compared."""


@dataclass(frozen=True)
class FlipsPage:
    """Context of compare/flips.html."""

    title: str
    labels: Sequence[str]
    lists: Sequence[flips.FlipList]
    is_growth: bool
    compare_href: str


@router.get("/compare")
def show_comparison(
    request: Request,
    session: ReadSession,
    a: Label = "",
    b: Label = "",
    at: At = "tokens",
    x: Amount = None,
    mixed: bool = False,
) -> HTMLResponse:
    """What two checkpoints differ in; without both, only the choice of them."""
    view = View(a, b, at, x, mixed)
    found, told, forests, error, status = None, None, [], "", 200
    if a and b:
        try:
            found = sides.find(session, view)
            compared = comparisons.compare(session, found.before, found.after, mixed=mixed)
            told = compare.tell(found, compared)
            forests = forest.forests(told.groups, compared.outcomes)
        except (NotFound, Invalid) as refusal:
            error, status = error_text(refusal), 404 if isinstance(refusal, NotFound) else 422
    chosen = (found.before, found.after) if found else ()
    context = ComparePage(
        view=view,
        groups=sides.option_groups(session),
        sides=found,
        told=told,
        forests=forests,
        hrefs=[growth.checkpoint_href(checkpoint) for checkpoint in chosen],
        rejected=[f"{one.label}: {one.reason}" for one in chosen if one.state == REJECTED],
        error=error,
    )
    return render.page(request, "compare/page.html", context, status_code=status)


@router.get("/compare/flips")
def show_flips(
    request: Request,
    session: ReadSession,
    a: EvaluationId,
    b: EvaluationId,
    show: Show = "both",
    whole: bool = False,
) -> HTMLResponse:
    """The items of one task that are right in one of two evaluations only: a page, or the fragment of it."""
    pair = Pair(evaluations.shown_evaluation(session, a), evaluations.shown_evaluation(session, b))
    for evaluation in pair:
        if evaluation.status != FINISHED or not evaluation.slices:
            raise Conflict("The answers of evaluation %(evaluation_id)s are not here.", evaluation_id=evaluation.id)
    if pair.before.task.name != pair.after.task.name:
        raise Invalid("The two evaluations are of different tasks, so they share no item.")
    before, after = pair.before.checkpoint, pair.after.checkpoint
    context = FlipsPage(
        title=figures.task_title(pair.after.task),
        labels=[before.label, after.label],
        lists=flips.flip_lists(pair, show, whole=whole),
        is_growth=Sides(before, after, None).is_growth,
        compare_href=View(before.label, after.label).href,
    )
    template = "compare/_flips.html" if "hx-request" in request.headers else "compare/flips.html"
    return render.page(request, template, context)


@api.get("/compare", responses={404: {"model": ErrorOut}, 422: {"model": ErrorOut}})
def get_comparison(
    session: ReadSession, a: Label, b: Label, at: At = "tokens", x: Amount = None, mixed: bool = False
) -> ComparisonOut:
    """Two checkpoints `run@step`, or two runs at equal tokens or FLOPs, over all tasks that both answered.

    `mixed` takes in tasks that were measured differently; without it they are listed in `apart`.
    """
    pair = sides.find(session, View(a, b, at, x))
    found = comparisons.compare(session, pair.before, pair.after, mixed=mixed)
    return ComparisonOut.of(pair.before, pair.after, found)
