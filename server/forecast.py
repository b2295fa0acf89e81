"""Where a run is going: each curve with its forecast to the end, and what became of earlier forecasts."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from markupsafe import Markup
from sqlalchemy.orm import Session

from analysis import forecast, intervals
from analysis.forecast import POWER_LAW, SIGMOID, TOO_FAR, TOO_FEW, TOO_VAGUE, Fit, Unforeseeable
from registry import forecasts, growth, runs, suites
from registry.forecasts import DOUBLE, END, HALF, HORIZONS, NEXT, Curve, Score
from registry.models import Forecast, Run, Task
from server.charts import ABILITIES
from server.figures import is_share, metric_name, range_text, task_title, value_text, x_text
from server.i18n import N_, gettext, ngettext
from server.render import label, number, script_json
from server.training_curves import COLOURS

LOSSES = "losses"
"""What the losses are called among the abilities."""
ALL = "all"
MANY = 24
"""More curves than this are shown kind by kind."""
NUM_STEPS = 60
"""Positions at which a fitted curve is drawn."""
TABLE_STEPS = 6
MAX_DRAWN = 240
AGES = ((0.2, 0.3), (0.45, 0.55))
"""Forecasts that were made at a quarter and at half of today's tokens are drawn beside what came."""
FITS_KEPT = 512

METHODS = {
    POWER_LAW: N_("a power law that levels off"),
    SIGMOID: N_("an S-curve between guessing and a ceiling"),
}
REFUSALS = {
    TOO_FEW: N_("Fewer than five points so far: too few for a forecast."),
    TOO_FAR: N_("The end is more than 32 times as far as the run has come: too far to say."),
    TOO_VAGUE: N_("The points so far leave nearly everything possible: a forecast would say nothing."),
}
HORIZON_NAMES = {
    NEXT: N_("the next checkpoint"),
    HALF: N_("half as many tokens again"),
    DOUBLE: N_("twice the tokens"),
    END: N_("the end of the run"),
}


class Aim(NamedTuple):
    """How far the forecasts of a page go."""

    step: int
    tokens: float
    is_end: bool
    """The planned end of the run; else twice the tokens seen."""


class Row(NamedTuple):
    """A line of a table: a place, a value and its interval."""

    at: str
    value: str
    interval: str


class Mark(NamedTuple):
    """An earlier forecast, at the place that it was made for."""

    x: float
    value: float
    low: float
    high: float
    text: str


@dataclass(frozen=True)
class Outlook:
    """One curve and where it goes."""

    curve: Curve
    title: str
    ability: str
    """`losses` for those."""
    colour: str
    href: str
    now: str
    ahead: Row | None
    """At the end of the page's aim; None where it is refused."""
    method: str
    """The form of the curve, in words; empty without a fit."""
    method_name: str
    num_points: int
    refusal: str
    band: Sequence[tuple[float, float, float, float]]
    """Tokens, value, low, high."""
    marks: Sequence[Mark]
    chance: float | None

    @property
    def key(self) -> str:
        """Safe in HTML and CSS."""
        return "".join(c if c.isalnum() or c in "-_" else "-" for c in self.curve.task or self.curve.metric)

    @property
    def metric(self) -> str:
        """What is measured."""
        return metric_name(self.curve.metric) if self.curve.task else ""

    @property
    def rows(self) -> list[Row]:
        """The forecast at a few places, for the table."""
        ahead = [point for point in self.band if point[0] > self.curve.tokens[-1]]
        stride = max(1, len(ahead) // TABLE_STEPS)
        chosen = ahead[::-1][::stride][::-1]
        return [_row(self.curve.metric, *point) for point in chosen]

    @property
    def data(self) -> Markup:
        """JSON for the chart; `<` is escaped, so no text of ours can end the script tag."""
        stride = -(-len(self.curve.tokens) // MAX_DRAWN)
        points = list(zip(self.curve.tokens, self.curve.values, strict=True))[::-1][::stride][::-1]
        content = {
            "points": points,
            "band": self.band,
            "marks": [mark._asdict() for mark in self.marks],
            "percent": is_share(self.curve.metric),
            "chance": self.chance,
            "colour": self.colour,
        }
        return script_json(content)


class Outlooks(NamedTuple):
    """The curves of a page."""

    aim: Aim | None
    show: str
    """What is shown: an ability, `losses` or `all`."""
    kinds: list[str]
    """What can be shown."""
    shown: list[Outlook]


class CoverageRow(NamedTuple):
    """How often forecasts of one horizon were right."""

    horizon: str
    due: int
    inside: int
    share: str
    interval: str
    """Of the share, 95%."""


class Miss(NamedTuple):
    """A forecast that was wrong."""

    title: str
    made: str
    aimed: str
    said: str
    came: str
    href: str


@dataclass(frozen=True)
class Record:
    """Earlier forecasts against what happened."""

    sentence: str
    rows: Sequence[CoverageRow]
    misses: Sequence[Miss]
    waiting: int


def aim_of(run: Run, curves: Sequence[Curve]) -> Aim | None:
    """The end of the run, or twice the tokens where that is unknown or reached; None before the first point."""
    reached = [curve for curve in curves if curve.tokens]
    if not reached:
        return None
    furthest = max(reached, key=lambda curve: curve.tokens[-1])
    step, tokens = furthest.steps[-1], furthest.tokens[-1]
    if run.max_steps is not None and step < run.max_steps and step > 0:
        return Aim(run.max_steps, tokens * run.max_steps / step, is_end=True)
    return Aim(2 * step, 2 * tokens, is_end=False)


def outlooks(session: Session, run: Run, show: str = "") -> Outlooks:
    """The curves of a run with their forecasts, the losses first, then the tasks by ability.

    `show` is an ability, `losses` or `all`; empty, it is all of a few curves and the first kind of many,
    because each takes a tenth of a second to fit when it is looked at for the first time.
    """
    tasks = [task for task in suites.list_tasks(session) if task.metric]
    found = [forecasts.task_curve(run, curve) for curve in growth.growth_curves(session, run, tasks)]
    by_task = [(task, curve) for task, curve in zip(tasks, found, strict=True) if curve is not None]
    keys = [key for key in runs.metric_keys(session, run) if key == "train/loss" or key.startswith(runs.HELD_OUT)]
    losses = [curve for curve in forecasts.loss_curves(session, run, keys) if curve.tokens]
    aim = aim_of(run, [*losses, *(curve for _, curve in by_task)])
    if aim is None:
        return Outlooks(None, ALL, [], [])
    order = {ability: place for place, ability in enumerate(ABILITIES)}
    by_task.sort(key=lambda pair: order.get(pair[0].ability, len(order)))
    every: list[tuple[Task | None, Curve]] = [*((None, curve) for curve in losses), *by_task]
    kinds = list(dict.fromkeys(_kind(task) for task, _ in every))
    if not show:
        show = ALL if len(every) <= MANY else kinds[0]
    marks = _marks(session, run, max(curve.tokens[-1] for _, curve in every))
    shown = [_outlook(curve, aim, marks, task) for task, curve in every if show in (ALL, _kind(task))]
    return Outlooks(aim, show, kinds, shown)


def _kind(task: Task | None) -> str:
    return task.ability if task else LOSSES


def _outlook(curve: Curve, aim: Aim, marks: dict[tuple[str, str, str], list[Mark]], task: Task | None) -> Outlook:
    fitted = _fitted(curve.tokens, curve.values, curve.scale, curve.stderr)
    refusal, ahead, band = "", None, []
    if isinstance(fitted, Fit):
        band = _drawn(fitted, aim.tokens)
        try:
            ahead = _row(curve.metric, aim.tokens, *fitted.at(aim.tokens))
        except Unforeseeable as refused:
            refusal = gettext(REFUSALS[refused.reason])
    else:
        refusal = gettext(REFUSALS[fitted])
    return Outlook(
        curve=curve,
        title=task_title(task) if task else metric_name(curve.metric),
        ability=_kind(task),
        colour=_colour(curve, task),
        href=f"/runs/{curve.run.name}/tasks/{task.name}" if task else f"/runs/{curve.run.name}/training",
        now=value_text(curve.metric, curve.values[-1]),
        ahead=ahead,
        method=gettext(METHODS[fitted.method]) if isinstance(fitted, Fit) else "",
        method_name=fitted.method if isinstance(fitted, Fit) else "",
        num_points=fitted.num_points if isinstance(fitted, Fit) else 0,
        refusal=refusal,
        band=band,
        marks=marks.get((curve.task, curve.metric, curve.protocol_key), []),
        chance=task.chance if task else None,
    )


def _colour(curve: Curve, task: Task | None) -> str:
    if task is not None:
        return task.ability if task.ability in ABILITIES else "accent"
    return COLOURS.get(curve.metric, "knowledge")


@lru_cache(maxsize=FITS_KEPT)
def _fitted(tokens: tuple[float, ...], values: tuple[float, ...], scale: forecast.Scale, stderr: float) -> Fit | str:
    """The fit, or why there is none; the same points are fitted once."""
    try:
        return forecast.fit(tokens, values, scale, stderr)
    except Unforeseeable as refused:
        return refused.reason


def _drawn(fitted: Fit, end: float) -> list[tuple[float, float, float, float]]:
    """The curve from its first point as far as it says anything."""
    first = forecast.WARM_UP * fitted.seen
    places = np.geomspace(first, max(fitted.seen, min(end, forecast.MAX_REACH * fitted.seen)), NUM_STEPS)
    band = fitted.band(np.unique(np.append(places, fitted.seen)))
    points = zip(*(part.tolist() for part in band), strict=True)
    return [
        (tokens, value, low, high)
        for tokens, value, low, high in points
        if tokens <= fitted.seen or high - low <= fitted.widest
    ]


def _row(metric: str, tokens: float, value: float, low: float, high: float) -> Row:
    return Row(x_text("tokens", round(tokens)), value_text(metric, value), range_text(metric, low, high))


def _marks(session: Session, run: Run, now: float) -> dict[tuple[str, str, str], list[Mark]]:
    """The latest forecast of each curve that was made at about a quarter and half of today's tokens."""
    chosen: dict[tuple[str, str, str, int, str], Forecast] = {}
    for row in forecasts.made_between(session, run, [(low * now, high * now) for low, high in AGES]):
        age = 0 if row.made_tokens <= AGES[0][1] * now else 1
        chosen[row.task, row.metric, row.protocol_key, age, row.horizon] = row
    found: dict[tuple[str, str, str], list[Mark]] = {}
    for (task, metric, key, _age, horizon), row in chosen.items():
        if horizon == NEXT:
            continue  # it would lie on the curve
        text = gettext(
            "foretold at %(made)s: %(value)s (%(interval)s)",
            made=x_text("tokens", row.made_tokens),
            value=value_text(metric, row.value),
            interval=range_text(metric, row.low, row.high),
        )
        found.setdefault((task, metric, key), []).append(
            Mark(float(row.target_tokens), row.value, row.low, row.high, text)
        )
    return found


def record_of(session: Session, run: Run) -> Record:
    """How earlier forecasts of a run turned out."""
    found = forecasts.coverage(session, run)
    total = Score(sum(score.due for score in found.values()), sum(score.inside for score in found.values()))
    titles = {task.name: task_title(task) for task in suites.list_tasks(session)}
    return Record(
        sentence=_sentence(total),
        rows=[_coverage_row(gettext(HORIZON_NAMES[name]), found[name]) for name in HORIZONS if name in found],
        misses=[_miss(run, row, titles) for row in forecasts.worst_misses(session, run)] if total.due else [],
        waiting=forecasts.num_waiting(session, run),
    )


def _sentence(total: Score) -> str:
    if not total.due:
        return ""
    row = _coverage_row("", total)
    return ngettext(
        "Of %(due)s forecast that came due, %(inside)s (%(share)s, 95%% interval %(interval)s) fell in the 90%% band.",
        "Of %(due)s forecasts that came due, %(inside)s (%(share)s, 95%% interval %(interval)s) fell in the 90%% band.",
        total.due,
    ) % {"due": number(total.due), "inside": number(total.inside), "share": row.share, "interval": row.interval}


def _coverage_row(name: str, score: Score) -> CoverageRow:
    found = intervals.wilson(score.inside, score.due)
    span = f"{number(100 * found.low)}–{number(100 * found.high)}%"
    return CoverageRow(name, score.due, score.inside, f"{number(100 * found.value)}%", span)


def _miss(run: Run, row: Forecast, titles: dict[str, str]) -> Miss:
    return Miss(
        title=titles.get(row.task, row.task) if row.task else metric_name(row.metric),
        made=x_text("tokens", row.made_tokens),
        aimed=x_text("tokens", row.target_tokens),
        said=f"{value_text(row.metric, row.value)} ({range_text(row.metric, row.low, row.high)})",
        came=value_text(row.metric, row.outcome),
        href=f"/runs/{run.name}/checkpoints/{row.outcome_step}" if row.task else f"/runs/{run.name}/training",
    )


def note_of(run: Run) -> str:
    """What no curve can know: the learning rate's way down."""
    schedule: Any = run.config.get("schedule") if isinstance(run.config, dict) else None
    kind = schedule.get("kind") if isinstance(schedule, dict) else None
    if kind == "wsd":
        return gettext(
            "The learning rate of this run stays level and falls near the end. Losses usually drop faster then, "
            "which a curve fitted before cannot know: the end may come out better than the band."
        )
    if kind == "cosine":
        return gettext(
            "The learning rate of this run falls all the way (cosine). Part of what looks like levelling off, "
            "and a last drop at the end, comes from that and not from what is left to learn."
        )
    return gettext(
        "A forecast continues what was seen. If the learning rate or the data change on the way, the curve will too."
    )


def words() -> dict[str, str]:
    """What the chart says itself."""
    return {
        "measured": gettext("measured"),
        "fitted": gettext("fitted curve"),
        "band": gettext("90%% band"),
        "now": gettext("now"),
        "guessing": gettext("guessing"),
        "tokens": label("tokens"),
    }
