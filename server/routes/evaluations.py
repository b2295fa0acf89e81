"""One evaluation: its results, its change, its protocol, what went wrong, and every item with its answer."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import HTMLResponse, RedirectResponse
from sqlalchemy import ColumnElement, select
from sqlalchemy.orm import Session

from registry import db, evaluations, events
from registry.models import Change, Checkpoint, Evaluation, Result
from registry.models.base import QUEUED, RUNNING
from server import auth, csrf, figures, growth, items, protocols, render, scores
from server.deps import ReadSession

router = APIRouter(route_class=csrf.FormRoute, include_in_schema=False)


@dataclass(frozen=True)
class ResultRow:
    """A metric of an evaluation."""

    metric: str
    name: str
    value: str
    interval: str
    stderr: str
    n: int
    is_headline: bool


class Loaded(NamedTuple):
    """An evaluation with everything that belongs to it."""

    evaluation: Evaluation
    checkpoint: Checkpoint
    others: list[Evaluation]
    """Those of the same task and checkpoint."""


@dataclass(frozen=True)
class Neighbour:
    """The same task under the same protocol at another step."""

    href: str
    step: int


@dataclass(frozen=True)
class EvaluationPage:
    """Context of evaluations/page.html."""

    evaluation: Evaluation
    checkpoint: Checkpoint
    checkpoint_href: str
    row: scores.ScoreRow
    summary: str
    """The protocol in a few words."""
    results: Sequence[ResultRow]
    before: Neighbour | None
    after: Neighbour | None
    protocol: Sequence[protocols.Field]
    browser: items.Browser
    is_open: bool
    again: bool
    """It was just asked for again."""


@router.get("/evaluations/{evaluation_id}")
def show_evaluation(
    request: Request,
    session: ReadSession,
    evaluation_id: int,
    page: int = Query(default=1, ge=1),
    show: items.Show = "all",
    again: bool = False,
) -> HTMLResponse:
    """The page of one evaluation; `page` and `show` choose among its items."""
    evaluation, checkpoint, others = _load(session, evaluation_id)
    row = scores.score_row(evaluation, others, scores.befores(session, [evaluation]).get(evaluation.id))
    context = EvaluationPage(
        evaluation=evaluation,
        checkpoint=checkpoint,
        checkpoint_href=growth.checkpoint_href(checkpoint),
        row=row,
        summary=protocols.summary(evaluation.protocol),
        results=[_result_row(evaluation, result) for result in evaluation.results],
        before=_neighbour(session, Evaluation.id == evaluation.change.against_id) if evaluation.change else None,
        after=_neighbour(session, _is_counted_from(evaluation.id)),
        protocol=protocols.table(evaluation.protocol),
        browser=items.browse(evaluation, show, page),
        is_open=evaluation.status in (QUEUED, RUNNING),
        again=again,
    )
    return render.page(request, "evaluations/page.html", context)


@router.post("/evaluations/{evaluation_id}/retry")
def run_again(_admin: auth.Admin, evaluation_id: int) -> Response:
    """Queue a failed or cancelled evaluation again."""
    with db.transaction() as session:
        evaluation = evaluations.retry(session, evaluation_id)
        checkpoint, task = evaluation.checkpoint, evaluation.task.name
        place = {"run": checkpoint.run.name, "step": checkpoint.step, "task": task, "checkpoint_id": checkpoint.id}
    events.publish_board("evaluation", place)
    return RedirectResponse(f"/evaluations/{evaluation_id}?again=true", 303)


def _load(session: Session, evaluation_id: int) -> Loaded:
    checkpoint = evaluations.shown_evaluation(session, evaluation_id).checkpoint
    own = evaluations.for_checkpoint(session, checkpoint)
    evaluation = next(one for one in own if one.id == evaluation_id)
    others = [one for one in own if one.task.name == evaluation.task.name and one is not evaluation]
    return Loaded(evaluation, checkpoint, others)


def _neighbour(session: Session, which: ColumnElement[bool]) -> Neighbour | None:
    query = select(Evaluation.id, Checkpoint.step).join(Checkpoint, Checkpoint.id == Evaluation.checkpoint_id)
    found = session.execute(query.where(which).limit(1)).first()
    return None if found is None else Neighbour(f"/evaluations/{found.id}", found.step)


def _is_counted_from(evaluation_id: int) -> ColumnElement[bool]:
    """Picks the evaluation of the next checkpoint, whose change is counted from this one."""
    return Evaluation.id.in_(select(Change.evaluation_id).where(Change.against_id == evaluation_id))


def _result_row(evaluation: Evaluation, result: Result) -> ResultRow:
    metric = result.metric
    return ResultRow(
        metric=metric,
        name=figures.metric_name(metric),
        value=figures.value_text(metric, result.value),
        interval=figures.range_text(metric, result.low, result.high),
        stderr=figures.value_text(metric, result.stderr),
        n=result.n,
        is_headline=metric == evaluation.task.metric,
    )
