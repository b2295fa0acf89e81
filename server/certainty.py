"""How sure each age was of what it wrote: the mean log-probability of its own tokens, as a curve over the run."""

import math
from collections.abc import Sequence
from typing import Any

from registry.models import Checkpoint, Turn
from server import series
from server.charts import Chart, Dot, Line, words
from server.figures import x_text
from server.i18n import gettext
from server.render import compact

LEAST_POINTS = 2
"""One point is no curve."""


def mean_logprob(tokens: Sequence[Any] | None) -> tuple[float, int] | None:
    """The mean log-probability of an answer's tokens, in nats, and how many they are; None where none was kept.

    A text shown instead of its tokens, or the first token of a prompt, has none and does not count.
    """
    known = [float(row[1]) for row in tokens or () if row[1] is not None]
    return (math.fsum(known) / len(known), len(known)) if known else None


def chart(answers: Sequence[tuple[Checkpoint, Turn]], address: str) -> Chart | None:
    """The curve over these ages, the youngest first; None where too few kept the probabilities of their tokens."""
    dots = [dot for checkpoint, turn in answers if (dot := _dot(checkpoint, turn)) is not None]
    if len(dots) < LEAST_POINTS:
        return None
    return Chart(
        key="certainty",
        title=gettext("How sure it was of its own words"),
        colour="accent",
        metric_name=gettext("mean log-probability a token"),
        x_name=gettext("step"),
        src=address,
        live="",
        dots=dots,
        lines=(Line(len(dots)),),
        x_axis="step",
        words={**words(), "items": gettext("tokens")},
    )


def _dot(checkpoint: Checkpoint, turn: Turn) -> Dot | None:
    found = mean_logprob(turn.tokens)
    if found is None:
        return None
    mean, num = found
    seen = checkpoint.tokens_seen
    return Dot(
        x=checkpoint.step,
        y=mean,
        low=None,
        high=None,
        x_text=x_text("step", checkpoint.step),
        y_text=f"{mean:.3f}",
        range_text="",
        n=num,
        step=checkpoint.step,
        href=series.address_of(checkpoint),
        tokens_text=gettext("%(count)s tokens", count=compact(seen)) if seen is not None else "",
    )
