"""A checkpoint's evaluations as rows of a table: score, change against another checkpoint, verdict, progress."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from sqlalchemy import select
from sqlalchemy.orm import Session

from analysis.intervals import ALPHA
from registry import evaluations
from registry.models import Checkpoint, Evaluation, Result
from registry.models.base import CANCELLED, FAILED, FINISHED, QUEUED, RUNNING
from registry.settings import get_settings
from registry.suites import IDLE
from server import figures, protocols
from server.figures import VERDICT_MARKS
from server.i18n import gettext


class Before(NamedTuple):
    """The score that a change is counted from."""

    step: int
    value: float


@dataclass(frozen=True)
class ChangeView:
    """What changed against the checkpoint before, in words."""

    before_step: int
    before: str
    change: str
    interval: str
    p: str
    in_words: str
    verdict: str
    is_paired: bool
    n: int
    is_corrected_away: bool
    """It would have counted as a change, had its task been the only one."""

    @property
    def mark(self) -> str:
        """The shape of the verdict."""
        return VERDICT_MARKS.get(self.verdict, "")


@dataclass(frozen=True)
class OtherRow:
    """An evaluation of the same task under another protocol, or an attempt before."""

    href: str
    status: str
    value: str
    interval: str
    differs: str


@dataclass(frozen=True)
class ScoreRow:
    """One task of a checkpoint."""

    evaluation_id: int
    href: str
    task: str
    title: str
    ability: str
    suite: str
    metric: str
    status: str
    error: str
    num_done: int
    num_items: int
    num_truncated: int
    is_imported: bool
    value: str = ""
    interval: str = ""
    chance: str = ""
    n: int | None = None
    seconds: float | None = None
    """What it cost the engine."""
    change: ChangeView | None = None
    apart: str = ""
    """In what the other checkpoint was measured differently, so that there is no change to tell."""
    others: Sequence[OtherRow] = ()

    @property
    def can_retry(self) -> bool:
        """Whether it ended without a score."""
        return self.status in (FAILED, CANCELLED)


@dataclass(frozen=True)
class ScoreGroup:
    """The tasks of one suite."""

    suite: str
    rows: Sequence[ScoreRow]


@dataclass(frozen=True)
class Against:
    """A checkpoint's tasks against one that the reader chose, by the id of its evaluations."""

    changes: Mapping[int, ChangeView]
    apart: Mapping[int, str]


@dataclass(frozen=True)
class Cost:
    """Engine seconds of a checkpoint's evaluations."""

    seconds: float
    spent: float
    """Of the budget: without what was asked for by hand."""
    budget: float
    """0 where there is no limit."""

    @property
    def share(self) -> float:
        """Of the budget, 0 to 1."""
        return min(1.0, self.spent / self.budget) if self.budget else 0.0

    @property
    def by_hand(self) -> float:
        """What does not count against the budget."""
        return max(0.0, self.seconds - self.spent)


def score_groups(session: Session, own: Sequence[Evaluation], against: Against | None = None) -> list[ScoreGroup]:
    """The scored tasks by suite; of one task's evaluations the newest stands for it, the others beside it.

    Changes are those against the checkpoint before, or against another one that was compared.
    """
    scored = [one for one in own if not one.task.is_probe]
    before = befores(session, scored) if against is None else {}
    by_task: dict[str, list[Evaluation]] = {}
    for evaluation in scored:
        by_task.setdefault(evaluation.task.name, []).append(evaluation)
    rows = [_row_of(same, before) for same in by_task.values()]
    if against is not None:
        rows = [_set_against(row, against) for row in rows]
    suites = dict.fromkeys(row.suite for row in rows)
    return [ScoreGroup(suite, [row for row in rows if row.suite == suite]) for suite in suites]


def cost_of(session: Session, checkpoint: Checkpoint, own: Iterable[Evaluation]) -> Cost:
    """What a checkpoint's evaluations cost so far."""
    return Cost(
        # What visitors proposed is asked when nothing else waits: it is no cost of the checkpoint.
        seconds=sum(one.engine_seconds or 0.0 for one in own if one.task.schedule != IDLE),
        spent=evaluations.seconds_spent(session, checkpoint.id),
        budget=get_settings().evaluation_budget_seconds,
    )


def befores(session: Session, found: Iterable[Evaluation]) -> dict[int, Before]:
    """By the id of an evaluation, the headline score that its change is counted from; one query."""
    wanted = {one.change.against_id: one for one in found if one.change is not None}
    query = (
        select(Evaluation.id, Checkpoint.step, Result.metric, Result.value)
        .join(Checkpoint, Checkpoint.id == Evaluation.checkpoint_id)
        .join(Result, Result.evaluation_id == Evaluation.id)
        .where(Evaluation.id.in_(wanted))
    )
    return {
        wanted[row.id].id: Before(row.step, row.value)
        for row in session.execute(query)
        if row.metric == wanted[row.id].task.metric
    }


def headline(evaluation: Evaluation) -> Result | None:
    """The result that the growth curve shows; None while there is none."""
    if evaluation.status != FINISHED:
        return None
    return next((result for result in evaluation.results if result.metric == evaluation.task.metric), None)


def change_view(evaluation: Evaluation, before: Before | None) -> ChangeView | None:
    """An evaluation's change in words; None for the first of a line."""
    change, metric = evaluation.change, evaluation.task.metric
    if change is None or before is None:
        return None
    return ChangeView(
        before_step=before.step,
        before=figures.value_text(metric, before.value),
        change=figures.change_text(metric, change.value),
        interval=figures.change_range_text(metric, change.low, change.high),
        p=figures.p_text(change.p_value),
        in_words=p_in_words(change.p_value),
        verdict=change.verdict,
        is_paired=change.is_paired,
        n=change.n,
        is_corrected_away=change.verdict == "within noise" and change.p_value is not None and change.p_value < ALPHA,
    )


def p_in_words(p: float | None) -> str:
    """What a p-value says, for who has never met one."""
    if p is None:
        return gettext("Without an error of both scores, nobody can say how much of this is chance.")
    if p < 0.001:
        return gettext(
            "Had nothing changed, chance would make a difference this large less than once in 1,000 comparisons."
        )
    times, total = (round(100 * p), 100) if p >= 0.01 else (max(1, round(1000 * p)), 1000)
    return gettext(
        "Had nothing changed, chance would make a difference this large in about %(times)s of %(total)s comparisons.",
        times=times,
        total=f"{total:,}",
    )


def _row_of(same: Sequence[Evaluation], before: Mapping[int, Before]) -> ScoreRow:
    """The newest that was not given up stands for the task; an older version of it stands beside."""
    same = sorted(same, key=lambda one: one.id, reverse=True)
    chosen = next((one for one in same if one.status != CANCELLED), same[0])
    return score_row(chosen, [one for one in same if one is not chosen], before.get(chosen.id))


def _set_against(row: ScoreRow, against: Against) -> ScoreRow:
    return replace(row, change=against.changes.get(row.evaluation_id), apart=against.apart.get(row.evaluation_id, ""))


def score_row(evaluation: Evaluation, others: Sequence[Evaluation], before: Before | None) -> ScoreRow:
    """An evaluation in words, with those of the same task and checkpoint beside it."""
    task, now = evaluation.task, headline(evaluation)
    return ScoreRow(
        evaluation_id=evaluation.id,
        href=f"/evaluations/{evaluation.id}",
        task=task.name,
        title=figures.task_title(task),
        ability=task.ability,
        suite=task.suite.name,
        metric=figures.metric_name(task.metric),
        status=evaluation.status,
        error=evaluation.error,
        num_done=evaluation.num_done,
        num_items=evaluation.num_items or 0,
        num_truncated=evaluation.num_truncated,
        is_imported=bool(evaluation.protocol.get("imported")),
        value=figures.value_text(task.metric, now.value) if now else "",
        interval=figures.range_text(task.metric, now.low, now.high) if now else "",
        chance=figures.value_text(task.metric, task.chance) if task.chance is not None else "",
        n=now.n if now else None,
        seconds=evaluation.engine_seconds,
        change=change_view(evaluation, before),
        others=[_other(one, evaluation) for one in others],
    )


def _other(evaluation: Evaluation, chosen: Evaluation) -> OtherRow:
    now, metric = headline(evaluation), evaluation.task.metric
    return OtherRow(
        href=f"/evaluations/{evaluation.id}",
        status=evaluation.status,
        value=figures.value_text(metric, now.value) if now else "",
        interval=figures.range_text(metric, now.low, now.high) if now else "",
        differs=protocols.difference_text(evaluation.protocol, chosen.protocol) if now else evaluation.error,
    )


def num_open(own: Iterable[Evaluation]) -> int:
    """How many are still to come."""
    return sum(one.status in (QUEUED, RUNNING) and one.task.schedule != IDLE for one in own)
