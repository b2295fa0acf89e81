"""One checkpoint: its scores against the one before, what it wrote, and its facts."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import structlog
from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse
from sqlalchemy.orm import Session

from analysis import compare
from registry import checkpoints, evaluations, samples
from registry.errors import RegistryError
from registry.models import Checkpoint, Evaluation, Result
from registry.models.base import FINISHED
from registry.settings import get_settings
from server import charts, growth, probes, render
from server.deps import ReadSession, RunInPath

router = APIRouter(include_in_schema=False)
log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class ScoreRow:
    """One task of a checkpoint, against the checkpoint before."""

    task: str
    title: str
    ability: str
    metric: str
    status: str
    error: str
    value: str = ""
    interval: str = ""
    before: str = ""
    change: str = ""
    verdict: str = ""
    """`gain`, `loss`, `within noise`, or empty where there is nothing to compare."""
    paired: bool = False
    chance: str = ""
    n: int | None = None


class Change(NamedTuple):
    """A score against the earlier one; `paired` where the same items were compared one by one."""

    value: float | None = None
    verdict: str = ""
    paired: bool = False


@dataclass(frozen=True)
class CheckpointPage:
    """Context of checkpoints/page.html."""

    checkpoint: Checkpoint
    before: Checkpoint | None
    before_href: str
    after_href: str
    scores: Sequence[ScoreRow]
    sayings: Sequence[probes.Saying]
    engine_seconds: float
    num_open: int
    protocol: Mapping[str, str]
    files: Sequence[tuple[str, int]]
    siblings: Sequence[growth.CheckpointRow]
    is_update: bool = False


@router.get("/runs/{run}/checkpoints/{step}")
def show_checkpoint(
    request: Request,
    session: ReadSession,
    run: RunInPath,
    step: int,
    kind: Literal["pretrained", "chat"] | None = None,
    precision: Literal["16", "8", "4"] | None = None,
) -> HTMLResponse:
    """The page of one checkpoint."""
    checkpoint = checkpoints.get_checkpoint(session, run, step, kind, int(precision) if precision else None)
    return render.page(request, "checkpoints/page.html", _page_of(session, checkpoint))


def _page_of(session: Session, checkpoint: Checkpoint) -> CheckpointPage:
    rows = growth.checkpoint_rows(session, checkpoint.run)
    before = checkpoints.previous(session, checkpoint)
    own = evaluations.for_checkpoint(session, checkpoint)
    earlier = evaluations.for_checkpoint(session, before) if before else []
    by_task = {evaluation.task_id: evaluation for evaluation in earlier}
    scored = [evaluation for evaluation in own if not evaluation.task.is_probe]
    like_this = [row for row in rows if _same_kind(row.checkpoint, checkpoint)]
    place = next(index for index, row in enumerate(like_this) if row.checkpoint.id == checkpoint.id)
    return CheckpointPage(
        checkpoint=checkpoint,
        before=before,
        before_href=growth.checkpoint_href(before) if before else "",
        after_href=like_this[place - 1].href if place else "",
        scores=[_score_row(evaluation, by_task.get(evaluation.task_id)) for evaluation in scored],
        sayings=probes.sayings(earlier, own),
        engine_seconds=sum(evaluation.engine_seconds or 0.0 for evaluation in own),
        num_open=sum(evaluation.status in ("queued", "running") for evaluation in own),
        protocol=_protocol(own),
        files=[(name, entry["size"]) for name, entry in checkpoint.manifest.get("files", {}).items()],
        siblings=[row for row in rows if row.checkpoint.step == checkpoint.step and row.checkpoint is not checkpoint],
    )


def _same_kind(one: Checkpoint, other: Checkpoint) -> bool:
    return one.kind == other.kind and one.precision == other.precision


def _protocol(own: Sequence[Evaluation]) -> dict[str, str]:
    done = [evaluation for evaluation in own if evaluation.protocol]
    return {key: str(value) for key, value in done[-1].protocol.items()} if done else {}


def _headline(evaluation: Evaluation | None) -> Result | None:
    if evaluation is None or evaluation.status != FINISHED:
        return None
    return next((result for result in evaluation.results if result.metric == evaluation.task.metric), None)


def _score_row(evaluation: Evaluation, earlier: Evaluation | None) -> ScoreRow:
    task, now, then = evaluation.task, _headline(evaluation), _headline(earlier)
    change = _compare(evaluation, earlier, now, then)
    return ScoreRow(
        task=task.name,
        title=charts.task_title(task),
        ability=task.ability,
        metric=charts.metric_name(task.metric),
        status=evaluation.status,
        error=evaluation.error,
        value=charts.value_text(task.metric, now.value) if now else "",
        interval=charts.range_text(task.metric, now.low, now.high) if now else "",
        before=charts.value_text(task.metric, then.value) if then else "",
        change=charts.change_text(task.metric, change.value),
        verdict=change.verdict,
        paired=change.paired,
        chance=charts.value_text(task.metric, task.chance) if task.chance is not None else "",
        n=now.n if now else None,
    )


def _compare(evaluation: Evaluation, earlier: Evaluation | None, now: Result | None, then: Result | None) -> Change:
    if earlier is None or now is None or then is None:
        return Change()
    better = evaluation.task.higher_is_better
    difference = _paired(earlier, evaluation)
    # The files pair by the plain metric; only where that is what is shown do the two agree.
    if difference is not None and abs(difference.value - (now.value - then.value)) < 1e-6:
        return Change(difference.value, difference.verdict(higher_is_better=better), paired=True)
    return Change(now.value - then.value, compare.verdict(then, now, higher_is_better=better))


def _paired(before: Evaluation, after: Evaluation) -> compare.Difference | None:
    if not before.samples_file or not after.samples_file:
        return None
    folder = get_settings().samples_dir
    try:
        return samples.compare(folder / before.samples_file, folder / after.samples_file)
    except RegistryError as error:
        log.warning("Sample files cannot be paired.", evaluation_id=after.id, error=str(error))
        return None
