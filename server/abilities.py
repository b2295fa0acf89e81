"""What a model has lately become able to do, in a sentence each: read from its growth curves and their verdicts."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from server.figures import change_text, value_text
from server.i18n import gettext
from server.render import compact
from server.sparklines import Sparkline


@dataclass(frozen=True)
class Ability:
    """One ability and when it came."""

    kind: Literal["above chance", "gain"]
    title: str
    sentence: str
    href: str
    """Address of its curve."""
    tokens: float


def newest(curves: Sequence[Sparkline], limit: int = 3) -> list[Ability]:
    """The abilities that came last, one for each curve: those that rose above guessing, then those that gained."""
    risen = [found for curve in curves if (found := _risen(curve)) is not None]
    gained = [found for curve in curves if (found := _gained(curve)) is not None]
    known = {found.title for found in risen}
    ordered = [
        *sorted(risen, key=lambda found: -found.tokens),
        *(found for found in sorted(gained, key=lambda found: -found.tokens) if found.title not in known),
    ]
    return ordered[:limit]


def _risen(curve: Sparkline) -> Ability | None:
    """From the first score on whose whole interval, and that of every later one, is above guessing.

    A single interval is above it by chance once in forty curves, so the next checkpoint, or the
    verdict, which is corrected over the tasks, must agree.
    """
    line, chance = curve.line, curve.chance
    if line is None or chance is None or not curve.higher_is_better:
        return None
    is_above = line.low > chance  # false without an interval
    first = int(np.flatnonzero(~is_above).max(initial=-1)) + 1
    num_above = line.x.size - first
    if num_above == 0 or first == 0 or (num_above == 1 and line.verdict[first] != "gain"):
        return None
    sentence = gettext(
        "above guessing since %(count)s tokens: %(value)s right (guessing: %(chance)s)",
        count=compact(float(line.x[first])),
        value=curve.latest_text,
        chance=value_text(curve.metric, chance),
    )
    return Ability("above chance", curve.title, sentence, _href(curve), float(line.x[first]))


def _gained(curve: Sparkline) -> Ability | None:
    """At its newest significant gain; nothing where a significant loss came after it."""
    line = curve.line
    judged = [at for at, word in enumerate(line.verdict) if word in ("gain", "loss")] if line is not None else []
    if line is None or not judged or judged[-1] == 0 or line.verdict[judged[-1]] != "gain":
        return None
    at = judged[-1]
    sentence = gettext(
        "better at %(count)s tokens: %(metric)s %(value)s (%(change)s)",
        count=compact(float(line.x[at])),
        metric=curve.metric_name,
        value=value_text(curve.metric, float(line.value[at])),
        change=change_text(curve.metric, float(line.value[at] - line.value[at - 1])),
    )
    return Ability("gain", curve.title, sentence, _href(curve), float(line.x[at]))


def _href(curve: Sparkline) -> str:
    return f"/runs/{curve.run}#{curve.element_id}"
