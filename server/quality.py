"""What each task of a run is worth at this stage, in words and numbers."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from sqlalchemy.orm import Session

from analysis import curves, quality
from analysis.intervals import Estimate
from analysis.quality import Facts, Word
from registry import panel, suites
from registry.models import Run, Task
from registry.panel import Record, Scored
from server.figures import change_text, is_share, metric_name, task_title, value_text
from server.i18n import N_, gettext
from server.render import duration, number

Sort = Literal["panel", "verdict", "growth", "monotonicity", "chance", "change", "items", "cost"]

NAMES: dict[Word, str] = {
    "worth it": N_("worth it"),
    "too noisy": N_("too noisy"),
    "too early": N_("too early: still at chance"),
    "backwards": N_("goes backwards"),
    "saturated": N_("finished: saturated"),
    "too few": N_("too few checkpoints to tell"),
}
MARKS: dict[Word, str] = {
    "worth it": "✓",
    "too noisy": "≈",
    "too early": "○",
    "backwards": "▼",
    "saturated": "■",
    "too few": "…",
}
"""A shape for each verdict, so that none is told by its colour alone."""


@dataclass(frozen=True)
class Row:
    """A task with what is known about it."""

    task: Task
    title: str
    suite: str
    word: Word
    name: str
    """The verdict as the page says it."""
    mark: str
    reason: str
    facts: Facts
    score: str
    growth: str
    monotonicity: str
    chance: str
    change: str
    items: int | None
    seconds: float | None
    cost: str
    clearest: str
    """Which of several metrics stands out the most from its noise; empty where there is no choice."""
    metrics: dict[str, float | None]
    """Growth to noise by metric."""


@dataclass(frozen=True)
class Total:
    """The panel as a whole."""

    num_tasks: int
    num_worth: int
    seconds: float
    """Per checkpoint, of every task of the panel."""
    worth_seconds: float


def rows_of(session: Session, run: Run) -> list[Row]:
    """Every task with scores in a run, in the order of the suites."""
    return [_row(record) for record in panel.records(session, run)]


def total_of(rows: Sequence[Row]) -> Total:
    """What the tasks of every checkpoint cost, and those that are worth it."""
    own = [row for row in rows if row.task.schedule == suites.PANEL]
    worth = [row for row in own if row.word == "worth it"]
    return Total(len(own), len(worth), sum(row.seconds or 0.0 for row in own), sum(row.seconds or 0.0 for row in worth))


def ordered(rows: Sequence[Row], sort: Sort, *, reverse: bool = False) -> list[Row]:
    """The rows by one column, the best first; what is not known comes last either way."""
    keys: dict[str, Callable[[Row], float | None]] = {
        "verdict": lambda row: -float(quality.WORDS.index(row.word)),
        "growth": lambda row: row.facts.growth_to_noise,
        "monotonicity": lambda row: row.facts.monotonicity,
        "chance": lambda row: row.facts.chance_distance,
        "change": lambda row: None if row.facts.smallest_change is None else -row.facts.smallest_change,
        "items": lambda row: row.items,
        "cost": lambda row: None if row.seconds is None else -row.seconds,
    }
    if sort == "panel":
        return list(rows[::-1] if reverse else rows)
    known = [(value, row) for row in rows if (value := keys[sort](row)) is not None]
    known.sort(key=lambda pair: pair[0], reverse=not reverse)
    return [row for _, row in known] + [row for row in rows if keys[sort](row) is None]


def _row(record: Record) -> Row:
    task = record.task
    scores = record.scores.get(task.metric, [])
    newest = _estimate(scores[-1]) if scores else None
    measured = quality.facts(
        [score.step for score in scores],
        [score.value for score in scores],
        newest,
        higher_is_better=task.higher_is_better,
        chance=task.chance if task.chance is not None else 0.0 if is_share(task.metric) else None,
        ceiling=1.0 if is_share(task.metric) and task.higher_is_better else None,
        smallest_change=quality.smallest_change(record.change_errors, newest, is_share=is_share(task.metric)),
    )
    word = quality.verdict(measured)
    by_metric = {metric: _shape(metric, task, found) for metric, found in record.scores.items()}
    best = quality.clearest(by_metric)
    return Row(
        task=task,
        title=task_title(task),
        suite=task.suite.name,
        word=word,
        name=gettext(NAMES[word]),
        mark=MARKS[word],
        reason=_reason(word, measured, task),
        facts=measured,
        score=value_text(task.metric, newest.value if newest else None),
        growth=_times(measured.growth_to_noise),
        monotonicity="–" if measured.monotonicity is None else f"{measured.monotonicity:.2f}".replace("-", "−"),
        chance=_plain(measured.chance_distance),
        change=_change(task.metric, measured.smallest_change),
        items=newest.n if newest else None,
        seconds=record.engine_seconds,
        cost="–" if record.engine_seconds is None else duration(record.engine_seconds),
        clearest=_clearest(best, by_metric),
        metrics={metric: grown for metric, (grown, _) in by_metric.items()},
    )


def _estimate(score: Scored) -> Estimate:
    low = score.value if score.low is None else score.low
    high = score.value if score.high is None else score.high
    return Estimate(score.value, score.stderr or 0.0, low, high, score.n)


def _shape(metric: str, task: Task, scores: Sequence[Scored]) -> tuple[float | None, float | None]:
    steps, values = [float(score.step) for score in scores], [score.value for score in scores]
    rises = task.higher_is_better if metric == task.metric else metric not in suites.LOWER_IS_BETTER
    return curves.growth_to_noise(steps, values), curves.monotonicity(steps, values, higher_is_better=rises)


def _reason(word: Word, measured: Facts, task: Task) -> str:
    """The rule that decided, with its numbers."""
    growth, trend = _times(measured.growth_to_noise), _signed(measured.monotonicity)
    if word == "too few":
        return gettext(
            "%(num)s of the %(least)s checkpoints that a trend needs.",
            num=measured.num_checkpoints,
            least=quality.MIN_CHECKPOINTS,
        )
    if word == "saturated":
        return gettext(
            "What is left to gain (%(room)s) is less than the smallest change it can see (%(change)s).",
            room=_change(task.metric, measured.room),
            change=_change(task.metric, measured.smallest_change),
        )
    if word == "too early":
        return gettext(
            "Its newest score lies %(distance)s standard errors above guessing; from 3 on it is no luck.",
            distance=_plain(measured.chance_distance),
        )
    if word == "backwards":
        return gettext("It gets worse with training (rank correlation %(trend)s): look at the task.", trend=trend)
    if word == "too noisy":
        return gettext(
            "It grew by %(growth)s its noise with a rank correlation of %(trend)s; 5 times and 0.5 are asked.",
            growth=growth,
            trend=trend,
        )
    return gettext(
        "It grew by %(growth)s its noise, and steadily (rank correlation %(trend)s).", growth=growth, trend=trend
    )


def _clearest(best: str | None, found: Mapping[str, tuple[float | None, float | None]]) -> str:
    if best is None or len(found) < 2:
        return ""
    return gettext(
        "Clearest metric: %(metric)s (%(growth)s its noise).",
        metric=metric_name(best),
        growth=_times(found[best][0]),
    )


def _times(value: float | None) -> str:
    return "–" if value is None else f"{_plain(value)}×"


def _plain(value: float | None) -> str:
    if value is None:
        return "–"
    return "∞" if math.isinf(value) else number(value, 1).replace("-", "−")


def _signed(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f}".replace("-", "−")


def _change(metric: str, value: float | None) -> str:
    return "–" if value is None else change_text(metric, value).lstrip("+")
