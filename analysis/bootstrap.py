"""The paired bootstrap: the same question as `compare`, answered by drawing the items again instead of by a formula."""

import math

import numpy as np
import numpy.typing as npt
from scipy import stats

from analysis.clusters import Floats, Groups, group_codes
from analysis.compare import Difference, same_items
from analysis.intervals import ALPHA, ROUNDING, Array

NUM_RESAMPLES = 2000
BATCH_VALUES = 2_000_000
"""Numbers drawn at once: it bounds the memory at some 50 MB."""

MAX_ACCELERATED = 2000
"""BCa costs the square of the number of units; beyond this it and the percentile interval agree."""


def paired_bootstrap(
    before: Array,
    after: Array,
    denominators: Array | None = None,
    groups: Groups | None = None,
    *,
    num_resamples: int = NUM_RESAMPLES,
    seed: int = 0,
) -> Difference:
    """The change of a mean, or of a ratio of sums, with items (whole groups where given) drawn anew.

    Efron & Tibshirani (1993), "An Introduction to the Bootstrap", chapters 8 and 14: both
    checkpoints keep their answers to a drawn item. The interval is BCa up to 2,000 units and the
    percentile one beyond; the p-value counts how often the change around its own value is as large
    as the change itself (Davison & Hinkley 1997, "Bootstrap Methods and their Application", 4.4).
    With fewer than some 30 units the formulas of `compare` are nearer the truth. The same seed
    gives the same numbers.
    """
    first, second = same_items(before, after)
    sizes = np.ones(first.size) if denominators is None else np.asarray(denominators, dtype=np.float64)
    if sizes.shape != first.shape or sizes.sum() <= 0:
        raise ValueError("A ratio needs as many denominators as numerators, with a sum above zero.")
    units = _units(second - first, sizes, groups)
    value = float(_ratio(*units))
    if units[0].size == 1:
        return Difference(value, math.inf, -math.inf, math.inf, 1.0, first.size)
    if np.ptp(units[0] - value * units[1]) <= ROUNDING:
        return Difference(value, 0.0, value, value, 1.0 if value == 0 else 0.0, first.size)
    found = stats.bootstrap(
        units,
        _ratio,
        n_resamples=num_resamples,
        batch=max(1, BATCH_VALUES // units[0].size),
        vectorized=True,
        paired=True,
        confidence_level=1 - ALPHA,
        method="BCa" if units[0].size <= MAX_ACCELERATED else "percentile",
        rng=np.random.default_rng(seed),
    )
    interval, drawn = found.confidence_interval, found.bootstrap_distribution
    # The sample itself counts as one of the draws, so the p-value is never zero.
    p_value = (1 + int((np.abs(drawn - value) >= abs(value)).sum())) / (num_resamples + 1)
    return Difference(
        value, float(found.standard_error), float(interval.low), float(interval.high), p_value, first.size
    )


def _units(changes: Floats, sizes: Floats, groups: Groups | None) -> tuple[Floats, Floats]:
    if groups is None:
        return changes, sizes
    codes = group_codes(groups, changes.size)
    return np.bincount(codes, changes).astype(np.float64), np.bincount(codes, sizes).astype(np.float64)


def _ratio(changes: Floats, sizes: Floats, axis: int = -1) -> npt.NDArray[np.float64]:
    return np.asarray(changes.sum(axis=axis) / sizes.sum(axis=axis), dtype=np.float64)
