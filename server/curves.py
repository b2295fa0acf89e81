"""Growth curves as charts: a line for each protocol, gaps where evaluations failed, and a verdict on each step."""

from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple

from registry.curves import Point, Series
from registry.suites import PANEL
from server import protocols
from server.charts import ABILITIES, Chart, Dot, Line, change_of, words
from server.figures import change_text, is_share, metric_name, range_text, task_title, value_text, x_text
from server.i18n import gettext
from server.protocols import Protocol
from server.render import label

FEW_POINTS = 4
"""Fewer scores of a milestone task than this are drawn as points: a line would tell of what nobody measured."""


class Failure(NamedTuple):
    """An evaluation without a score, at its place on the x-axis."""

    x: float
    step: int
    evaluation_id: int
    error: str


class Notes(NamedTuple):
    """What stands beside the points of a run's growth curves."""

    protocols: Mapping[str, Protocol]
    """By protocol key."""
    failures: Mapping[str, Sequence[Failure]]
    """By name of the task, those of checkpoints that have no score otherwise."""
    warned: Collection[int]
    """Checkpoints that carry a warning."""


NO_NOTES = Notes({}, {}, ())


def growth_chart(series: Series, notes: Notes = NO_NOTES) -> Chart:
    """The growth of one ability over the checkpoints of a run, with its 95% interval, a line for each protocol."""
    task, metric, run = series.task, series.metric, series.run
    lines = _lines(series, notes.protocols)
    dots = _growth_dots(series, notes, len(lines) - 1)
    headline = metric == task.metric
    chance = task.chance if headline else None
    change = change_of([dot for dot in dots if dot.line == len(lines) - 1 and dot.y is not None])
    return Chart(
        key=task.name,
        title=task_title(task),
        colour=task.ability if task.ability in ABILITIES else "accent",
        metric_name=metric_name(metric),
        x_name=label(series.x),
        src=f"/runs/{run}/charts/{task.name}?x={series.x}" + ("" if headline else f"&metric={metric}"),
        live=f"evaluation:{run}:{task.name}",
        dots=dots,
        lines=lines,
        percent=is_share(metric),
        chance=chance,
        chance_text=gettext("guessing: %(value)s", value=value_text(metric, chance)) if chance is not None else "",
        higher_is_better=task.higher_is_better if headline else None,
        change_text=change_text(metric, change),
        improved=None if change is None or change == 0 or not headline else (change > 0) == task.higher_is_better,
        band=gettext("95%% interval") if any(dot.low is not None for dot in dots) else "",
        x_axis=series.x,
        words=words(),
    )


def _lines(series: Series, known: Mapping[str, Protocol]) -> list[Line]:
    found = series.lines
    latest = known.get(found[-1][0].protocol_key, {}) if found else {}
    return [
        Line(
            num_points=len(points),
            summary=protocols.summary(known.get(points[0].protocol_key, {})),
            differs="" if points is found[-1] else _differs(known.get(points[0].protocol_key, {}), latest),
            is_loose=series.task.schedule != PANEL and len(points) < FEW_POINTS,
        )
        for points in found
    ] or [Line(0)]


def _differs(earlier: Protocol, latest: Protocol) -> str:
    return protocols.difference_text(earlier, latest) or gettext("another protocol")


def _growth_dots(series: Series, notes: Notes, last: int) -> list[Dot]:
    """The points of every line, and the failures on the latest one, by x."""
    failures = notes.failures.get(series.task.name, ()) if series.metric == series.task.metric else ()
    dots = [_failed_dot(series, failure, last, notes) for failure in failures]
    for number, points in enumerate(series.lines):
        before: Point | None = None
        for point in points:
            is_cut = before is not None and any(before.step < failure.step < point.step for failure in failures)
            dots.append(_growth_dot(series, point, number, is_cut, notes))
            before = point
    return sorted(dots, key=lambda dot: (dot.x, dot.line))


def _growth_dot(series: Series, point: Point, line: int, is_cut: bool, notes: Notes) -> Dot:
    return Dot(
        x=point.x,
        y=point.value,
        low=point.low,
        high=point.high,
        x_text=x_text(series.x, point.x),
        y_text=value_text(series.metric, point.value),
        range_text=range_text(series.metric, point.low, point.high),
        n=point.n,
        step=point.step,
        href=f"/runs/{series.run}/checkpoints/{point.step}",
        tokens_text="" if point.tokens_seen is None or series.x == "tokens" else x_text("tokens", point.tokens_seen),
        evaluation_href=f"/evaluations/{point.evaluation_id}",
        line=line,
        after_gap=is_cut,
        verdict=point.verdict,
        imported=point.is_imported,
        warned=point.checkpoint_id in notes.warned,
    )


def _failed_dot(series: Series, failure: Failure, line: int, notes: Notes) -> Dot:
    return Dot(
        x=failure.x,
        y=None,
        low=None,
        high=None,
        x_text=x_text(series.x, failure.x),
        y_text="–",
        range_text="",
        step=failure.step,
        href=f"/runs/{series.run}/checkpoints/{failure.step}",
        evaluation_href=f"/evaluations/{failure.evaluation_id}",
        line=line,
        failed=failure.error,
    )
