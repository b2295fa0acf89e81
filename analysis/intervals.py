"""Estimates with their standard errors and 95% intervals."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy import stats

ALPHA = 0.05

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
    low, high = stats.binomtest(successes, n).proportion_ci(1 - ALPHA, method="wilson")
    stderr = math.sqrt(share * (1 - share) / max(n - 1, 1))
    return Estimate(share, stderr, float(low), float(high), n)


def mean_interval(values: Array) -> Estimate:
    """A mean, with Student's t interval (Student 1908, Biometrika 6)."""
    array = np.asarray(values, dtype=np.float64)
    if array.size == 0:
        raise ValueError("No values: there is no mean.")
    mean = float(array.mean())
    if array.size == 1:
        return Estimate(mean, math.inf, -math.inf, math.inf, 1)
    stderr = float(array.std(ddof=1) / math.sqrt(array.size))
    return _student(mean, stderr, array.size)


def ratio_interval(numerators: Array, denominators: Array) -> Estimate:
    """A ratio of sums, such as bits over bytes, with the items as the units that were drawn.

    The variance is the linearised one, Cochran, "Sampling Techniques" (3rd ed., 1977), section
    6.4: with residuals d_i = y_i - R x_i, Var(R) is about n / (n - 1) * sum(d_i^2) / (sum x_i)^2.
    """
    top = np.asarray(numerators, dtype=np.float64)
    bottom = np.asarray(denominators, dtype=np.float64)
    if top.shape != bottom.shape or top.size == 0 or bottom.sum() <= 0:
        raise ValueError("A ratio needs as many denominators as numerators, with a sum above zero.")
    ratio = float(top.sum() / bottom.sum())
    if top.size == 1:
        return Estimate(ratio, math.inf, -math.inf, math.inf, 1)
    residuals = top - ratio * bottom
    stderr = math.sqrt(top.size / (top.size - 1) * float(residuals @ residuals)) / float(bottom.sum())
    return _student(ratio, stderr, top.size)


def _student(value: float, stderr: float, n: int) -> Estimate:
    reach = float(stats.t.ppf(1 - ALPHA / 2, df=n - 1)) * stderr
    return Estimate(value, stderr, value - reach, value + reach, n)
