"""The forest plot of a comparison: a mark and an interval for each task, one plot for each unit."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from registry.comparisons import Outcome
from server import figures
from server.charts import ABILITIES
from server.compare import Group, Row
from server.i18n import gettext
from server.render import label, script_json


@dataclass(frozen=True)
class Forest:
    """The differences in one unit, to be drawn."""

    key: str
    title: str
    left: str
    """What a mark left of zero means."""
    right: str
    num_rows: int
    data: Markup


def forests(groups: Sequence[Group], outcomes: Iterable[Outcome]) -> list[Forest]:
    """One plot for each unit: points of per cent and bits per byte do not share an axis."""
    by_task = {outcome.pair.after.task.name: outcome for outcome in outcomes}
    rows = [(by_task[row.task], row) for group in groups for row in group.rows]
    units = dict.fromkeys(_unit(outcome) for outcome, _ in rows)
    return [_forest(unit, [pair for pair in rows if _unit(pair[0]) == unit]) for unit in units]


def _unit(outcome: Outcome) -> tuple[str, bool]:
    task = outcome.pair.after.task
    return "share" if figures.is_share(task.metric) else task.metric, task.higher_is_better


def _forest(unit: tuple[str, bool], rows: Sequence[tuple[Outcome, Row]]) -> Forest:
    name, higher_is_better = unit
    scale = 100 if name == "share" else 1
    title = gettext("percentage points") if name == "share" else figures.metric_name(name)
    left, right = gettext("A is better"), gettext("B is better")
    if not higher_is_better:
        left, right = right, left
    data = {
        "unpaired": gettext("by the two scores alone"),
        "rows": [_forest_row(outcome, row, scale) for outcome, row in rows],
    }
    key = f"{'up' if higher_is_better else 'down'}-{name}"
    return Forest(key, title, left, right, len(rows), script_json(data))


def _forest_row(outcome: Outcome, row: Row, scale: float) -> dict[str, Any]:
    found = outcome.found
    return {
        "task": row.task,
        "title": row.title,
        "ability": label(row.ability),
        "colour": row.ability if row.ability in ABILITIES else "accent",
        "value": scale * found.value,
        "low": _end(found.low, scale),
        "high": _end(found.high, scale),
        "verdict": outcome.verdict,
        "word": label(outcome.verdict),
        "text": row.change.change,
        "range": row.change.interval,
        "p": row.change.p,
        "scores": f"A {row.before} · B {row.after}",
        "is_paired": found.is_paired,
    }


def _end(value: float | None, scale: float) -> float | None:
    """An end of an interval; None for one that nobody knows, or that has no end."""
    return None if value is None or not math.isfinite(value) else scale * value
