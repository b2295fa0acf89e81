"""Two checkpoints side by side in words: the table of tasks, what was measured differently, what one alone has."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from analysis.intervals import ALPHA
from registry import comparisons
from registry.changes import Pair
from registry.comparisons import Comparison, Outcome
from registry.models import Checkpoint, Evaluation
from server import figures, protocols, scores
from server.charts import ABILITIES
from server.figures import VERDICT_MARKS
from server.flips import flips_src
from server.i18n import gettext
from server.sides import Sides


@dataclass(frozen=True)
class Row:
    """One task of both checkpoints."""

    task: str
    title: str
    ability: str
    metric: str
    before: str
    after: str
    before_href: str
    after_href: str
    change: scores.ChangeView
    corrected_p: str
    higher_is_better: bool
    learned: int | None
    forgotten: int | None
    flips_src: str
    differs: str
    """In what the two were measured differently; empty where they were not."""


@dataclass(frozen=True)
class Group:
    """The tasks of one ability."""

    ability: str
    rows: Sequence[Row]


@dataclass(frozen=True)
class Apart:
    """A task whose two scores do not belong side by side."""

    title: str
    before: str
    after: str
    before_href: str
    after_href: str
    why: str


@dataclass(frozen=True)
class Alone:
    """A task that one of the two has no score of."""

    title: str
    label: str
    """Of the one that has."""
    value: str
    href: str


@dataclass(frozen=True)
class Told:
    """A comparison in words."""

    groups: Sequence[Group]
    apart: Sequence[Apart]
    alone: Sequence[Alone]
    counts: Mapping[str, int]
    """Tasks by verdict."""

    @property
    def num_tasks(self) -> int:
        """How many were compared."""
        return sum(self.counts.values())

    @property
    def num_unpaired(self) -> int:
        """Those that were compared by their two scores alone."""
        return sum(not row.change.is_paired for group in self.groups for row in group.rows)


def tell(sides: Sides, found: Comparison) -> Told:
    """A comparison as the page shows it."""
    rows = [_row(outcome, sides) for outcome in found.outcomes]
    order = {ability: place for place, ability in enumerate(ABILITIES)}
    abilities = sorted({row.ability for row in rows}, key=lambda ability: (order.get(ability, len(order)), ability))
    groups = [Group(ability, [row for row in rows if row.ability == ability]) for ability in abilities]
    return Told(
        groups=groups,
        apart=[_apart_of(pair) for pair in found.apart],
        alone=[_alone(evaluation, sides) for evaluation in found.alone],
        counts={word: sum(outcome.verdict == word for outcome in found.outcomes) for word in VERDICT_MARKS},
    )


def _row(outcome: Outcome, sides: Sides) -> Row:
    """One task of both in words."""
    pair, task = outcome.pair, outcome.pair.after.task
    return Row(
        task=task.name,
        title=figures.task_title(task),
        ability=task.ability,
        metric=figures.metric_name(task.metric),
        before=_headline(pair.before, task.metric),
        after=_headline(pair.after, task.metric),
        before_href=f"/evaluations/{pair.before.id}",
        after_href=f"/evaluations/{pair.after.id}",
        change=change_of(outcome, sides.before),
        corrected_p=figures.p_text(outcome.corrected_p),
        higher_is_better=task.higher_is_better,
        learned=outcome.learned,
        forgotten=outcome.forgotten,
        flips_src=flips_src(pair),
        differs="" if comparisons.is_alike(pair) else _differs(pair),
    )


def change_of(outcome: Outcome, before: Checkpoint) -> scores.ChangeView:
    """What changed, as the table of a checkpoint's scores says it."""
    found, metric = outcome.found, outcome.pair.after.task.metric
    return scores.ChangeView(
        before_step=before.step,
        before=_headline(outcome.pair.before, metric),
        change=figures.change_text(metric, found.value),
        interval=figures.change_range_text(metric, found.low, found.high),
        p=figures.p_text(found.p_value),
        in_words=scores.p_in_words(found.p_value),
        verdict=outcome.verdict,
        is_paired=found.is_paired,
        n=found.n,
        is_corrected_away=outcome.verdict == "within noise" and found.p_value is not None and found.p_value < ALPHA,
    )


def against(found: Comparison, before: Checkpoint) -> scores.Against:
    """A comparison as the table of the later checkpoint's scores takes it."""
    return scores.Against(
        changes={outcome.pair.after.id: change_of(outcome, before) for outcome in found.outcomes},
        apart={pair.after.id: _differs(pair) for pair in found.apart},
    )


def _headline(evaluation: Evaluation, metric: str) -> str:
    found = next((result for result in evaluation.results if result.metric == metric), None)
    return figures.value_text(metric, found.value if found else None)


def _differs(pair: Pair) -> str:
    return protocols.difference_text(pair.before.protocol, pair.after.protocol) or gettext("another protocol")


def _apart_of(pair: Pair) -> Apart:
    metric = pair.after.task.metric
    return Apart(
        title=figures.task_title(pair.after.task),
        before=_headline(pair.before, metric),
        after=_headline(pair.after, metric),
        before_href=f"/evaluations/{pair.before.id}",
        after_href=f"/evaluations/{pair.after.id}",
        why=_differs(pair),
    )


def _alone(evaluation: Evaluation, sides: Sides) -> Alone:
    has = sides.after if evaluation.checkpoint_id == sides.after.id else sides.before
    return Alone(
        title=figures.task_title(evaluation.task),
        label=has.label,
        value=_headline(evaluation, evaluation.task.metric),
        href=f"/evaluations/{evaluation.id}",
    )
