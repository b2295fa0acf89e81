"""Estimates with their standard errors and 95% intervals."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy import special

from analysis.clusters import Floats, Groups, Spread, spread

ALPHA = 0.05
ROUNDING = 1e-12
"""Standard errors below this are the rounding of zero."""

Array = Sequence[float] | npt.NDArray[np.float64]


class Estimate(NamedTuple):
    """A number, its standard error, its 95% interval and how many items it is made of."""

    value: float
    stderr: float
    low: float
    high: float
    n: int


def wilson(successes: int, n: int) -> Estimate:
    """A share of right answers, with Wilson's score interval.

    Wilson, E. B. (1927), "Probable inference, the law of succession, and statistical inference",
    JASA 22; recommended over the usual interval by Brown, Cai & DasGupta (2001), Statistical
    Science 16(2): it keeps its coverage near 0 and 1 and for small n. The standard error is
    lm-eval's, sqrt(p(1-p)/(n-1)), so that it equals what others report.
    """
    if not 0 <= successes <= n or n == 0:
        raise ValueError(f"{successes} right answers out of {n} is no share.")
    share = successes / n
    low, high = _wilson(successes, n, ALPHA)
    stderr = math.sqrt(share * (1 - share) / max(n - 1, 1))
    return Estimate(share, stderr, low, high, n)


def _wilson(successes: float, n: float, alpha: float) -> tuple[float, float]:
    # Statsmodels brings pandas along, 40 MB in all, which most of a web server's pages never need.
    from statsmodels.stats.proportion import proportion_confint  # noqa: PLC0415

    low, high = proportion_confint(successes, n, alpha=alpha, method="wilson")
    return float(low), float(high)


def proportion_interval(values: Array, groups: Groups | None = None) -> Estimate:
    """A share of right answers from zeros and ones; with groups, for items that go wrong together.

    With groups it is Wilson's interval for as many independent answers as would have the clustered
    error, s^2 / stderr^2 (Korn & Graubard 1998, Survey Methodology 24; Franco, Little, Louis &
    Slud 2019, Journal of Survey Statistics and Methodology 7, recommend Wilson's form), with
    Student's t in place of the normal quantile. Where groups show no spread at all, each counts as one answer.
    """
    answers = as_floats(values)
    if not is_binary(answers):
        raise ValueError("A share needs answers that are 0 or 1.")
    if groups is None:
        return wilson(int(answers.sum()), answers.size)
    share, error = float(answers.mean()), spread(answers, np.ones(answers.size), groups)
    if not math.isfinite(error.stderr):
        return Estimate(share, math.inf, 0.0, 1.0, answers.size)
    count = effective_count(answers, error)
    alpha = 2 * float(special.ndtr(-quantile(error.df)))
    low, high = _wilson(share * count, count, alpha)
    return Estimate(share, error.stderr, low, high, answers.size)


def mean_interval(values: Array, groups: Groups | None = None) -> Estimate:
    """A mean, with Student's t interval (Student 1908, Biometrika 6); with groups, the clustered error."""
    array = as_floats(values)
    return _student(float(array.mean()), spread(array, np.ones(array.size), groups), array.size)


def ratio_interval(numerators: Array, denominators: Array, groups: Groups | None = None) -> Estimate:
    """A ratio of sums, such as bits over bytes, with the items, or their groups, as the units that were drawn.

    The variance is the linearised one, Cochran, "Sampling Techniques" (3rd ed., 1977), section
    6.4, with the correction for few or unequal units that `clusters.spread` describes.
    """
    top, bottom = as_floats(numerators), np.asarray(denominators, dtype=np.float64)
    if top.shape != bottom.shape or bottom.sum() <= 0:
        raise ValueError("A ratio needs as many denominators as numerators, with a sum above zero.")
    return _student(float(top.sum() / bottom.sum()), spread(top, bottom, groups), top.size)


def as_floats(values: Array) -> Floats:
    """A flat array of at least one number.

    Raises:
        ValueError: it is empty, or holds something that is not a number.
    """
    array = np.asarray(values, dtype=np.float64)
    if array.size == 0:
        raise ValueError("No values: there is no mean.")
    if np.isnan(array).any():
        raise ValueError(f"Value {int(np.isnan(array).argmax())} is not a number.")
    return array


def is_binary(values: Floats) -> bool:
    """Whether every value is 0 or 1."""
    return bool(((values == 0) | (values == 1)).all())


def effective_count(values: Floats, error: Spread) -> float:
    """How many independent items as varied as these would have this error; the groups, where it is zero."""
    return float(values.var(ddof=1)) / error.stderr**2 if error.stderr > ROUNDING else float(error.num_groups)


def quantile(df: float) -> float:
    """The upper 2.5% point of Student's t."""
    return float(special.stdtrit(df, 1 - ALPHA / 2))


def _student(value: float, error: Spread, n: int) -> Estimate:
    if not math.isfinite(error.stderr):
        return Estimate(value, math.inf, -math.inf, math.inf, n)
    reach = quantile(error.df) * error.stderr
    return Estimate(value, error.stderr, value - reach, value + reach, n)
