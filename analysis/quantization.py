"""Does quantization cost more as a model learns more? Averages over tasks, and a trend over tokens."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy import special

from analysis.intervals import quantile

MIN_POINTS = 3
"""A line through two points says nothing about noise."""
MIN_ERROR = 1e-9


class Cost(NamedTuple):
    """How much worse the quantized model is: positive is worse. `stderr` is None where it is not known."""

    value: float
    stderr: float | None


class Average(NamedTuple):
    """The mean cost over tasks with its 95% interval."""

    value: float
    stderr: float | None
    low: float | None
    high: float | None
    num_tasks: int


class Trend(NamedTuple):
    """By how much the cost grows with every tenfold of tokens."""

    slope: float
    low: float
    """Lower end of the 95% interval."""
    high: float
    p_value: float
    num_points: int

    @property
    def direction(self) -> str:
        """`grows`, `shrinks` or `unclear`, at the 5% level."""
        return "grows" if self.low > 0 else "shrinks" if self.high < 0 else "unclear"


def average(costs: Sequence[Cost]) -> Average:
    """The plain mean over tasks: each counts alike, however many items it has.

    Tasks have items of their own, so their errors are independent.

    Raises:
        ValueError: there are none.
    """
    if not costs:
        raise ValueError("An average needs at least one cost.")
    value = sum(cost.value for cost in costs) / len(costs)
    errors = [cost.stderr for cost in costs if cost.stderr is not None and math.isfinite(cost.stderr)]
    if len(errors) < len(costs):
        return Average(value, None, None, None, len(costs))
    stderr = math.sqrt(sum(error**2 for error in errors)) / len(costs)
    reach = quantile(math.inf) * stderr
    return Average(value, stderr, value - reach, value + reach, len(costs))


def trend(tokens: Sequence[float], costs: Sequence[Cost]) -> Trend | None:
    """The slope of cost on log10 tokens, by least squares weighted with the errors; None with too few places.

    As in meta-analysis with known variances (Thompson & Higgins 2002, Statistics in Medicine 21), and where the
    points scatter more than their errors allow, the interval is widened by that much (Birge 1932, Physical Review
    40); it is never narrowed. Checkpoints of one run answer the same items, so their errors go together: that moves
    the level of the curve more than its slope.

    Raises:
        ValueError: the two have different lengths.
    """
    usable = [
        (math.log10(at), cost.value, max(cost.stderr, MIN_ERROR))
        for at, cost in zip(tokens, costs, strict=True)
        if at > 0 and cost.stderr is not None and math.isfinite(cost.stderr)
    ]
    if len({at for at, _, _ in usable}) < MIN_POINTS:
        return None
    x, y, errors = (np.array(column, dtype=np.float64) for column in zip(*usable, strict=True))
    from statsmodels.regression.linear_model import WLS  # noqa: PLC0415 - late, as in analysis.intervals

    fitted = WLS(y, np.column_stack([np.ones_like(x), x]), weights=errors**-2).fit()
    ratio = max(1.0, math.sqrt(float(fitted.scale)))
    stderr = ratio * math.sqrt(float(fitted.normalized_cov_params[1, 1]))
    slope, df = float(fitted.params[1]), float(fitted.df_resid)
    reach = quantile(df) * stderr
    return Trend(slope, slope - reach, slope + reach, _two_sided(slope / stderr, df), len(usable))


def _two_sided(statistic: float, df: float) -> float:
    return 2 * float(special.stdtr(df, -abs(statistic)))
