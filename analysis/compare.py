"""Has a checkpoint become better than the one before? Paired differences, and verdicts over many tasks at once."""

import math
from collections.abc import Sequence
from typing import Literal, NamedTuple, Protocol

import numpy as np
from scipy import special

from analysis.clusters import Floats, Groups, Spread, spread
from analysis.intervals import ALPHA, ROUNDING, Array, as_floats, effective_count, is_binary, quantile

Verdict = Literal["gain", "loss", "within noise"]


class Measured(Protocol):
    """Anything with a value and a standard error: an `Estimate`, a `Result` row, a `Score`."""

    @property
    def value(self) -> float:
        """The number."""

    @property
    def stderr(self) -> float | None:
        """Its standard error; None where it is not known."""


class Change(NamedTuple):
    """What one task says about two checkpoints; `p_value` is two-sided, None where nothing can be tested."""

    value: float
    p_value: float | None
    higher_is_better: bool = True


class Difference(NamedTuple):
    """After minus before over the same items; `p_value` is two-sided."""

    value: float
    stderr: float
    low: float
    high: float
    p_value: float
    n: int

    def change(self, *, higher_is_better: bool = True) -> Change:
        """This difference as one of a family of `verdicts`."""
        return Change(self.value, self.p_value, higher_is_better)

    def verdict(self, *, higher_is_better: bool = True) -> Verdict:
        """What the difference means at the 5% level, where this is the only task looked at."""
        return verdicts([self.change(higher_is_better=higher_is_better)])[0]


def verdicts(changes: Sequence[Change], alpha: float = ALPHA) -> list[Verdict]:
    """One word for each task of a pair of checkpoints, corrected for how many tasks were looked at.

    Benjamini & Hochberg (1995), Journal of the Royal Statistical Society B 57: where no task has
    changed, the chance of claiming any change is at most `alpha`; where some have, that is the
    expected share of false claims among all claims. It holds for tasks that rise and fall
    together (Benjamini & Yekutieli 2001, Annals of Statistics 29).
    """
    tested = [place for place, change in enumerate(changes) if _is_testable(change)]
    found: list[Verdict] = ["within noise"] * len(changes)
    if not tested:
        return found
    is_claimed = _correct([changes[place].p_value for place in tested], alpha)[0]
    for place, claimed in zip(tested, is_claimed, strict=True):
        change = changes[place]
        if claimed and change.value != 0:
            found[place] = "gain" if (change.value > 0) == change.higher_is_better else "loss"
    return found


def _correct(p_values: Sequence[float | None], alpha: float = ALPHA) -> tuple[Sequence[bool], Sequence[float]]:
    """Which are claimed, and each adjusted."""
    # Late, as in analysis.intervals.
    from statsmodels.stats.multitest import multipletests  # noqa: PLC0415

    is_claimed, adjusted, *_ = multipletests(p_values, alpha=alpha, method="fdr_bh")
    return is_claimed, adjusted


def corrected_p_values(changes: Sequence[Change]) -> list[float | None]:
    """Each p-value as large as the correction of `verdicts` makes it: at most 5% is where a change is claimed.

    Benjamini & Hochberg's adjusted p-values, after Yekutieli & Benjamini (1999), Journal of Statistical
    Planning and Inference 82; None where nothing can be tested.
    """
    found: list[float | None] = [None] * len(changes)
    tested = [place for place, change in enumerate(changes) if _is_testable(change)]
    if tested:
        adjusted = _correct([changes[place].p_value for place in tested])[1]
        for place, p_value in zip(tested, adjusted, strict=True):
            found[place] = float(p_value)
    return found


def verdict(before: Measured, after: Measured, *, higher_is_better: bool = True) -> Verdict:
    """The verdict of `unpaired_change` alone, at the 5% level."""
    return verdicts([unpaired_change(before, after, higher_is_better=higher_is_better)])[0]


def unpaired_change(before: Measured, after: Measured, *, higher_is_better: bool = True) -> Change:
    """A two-sided z test on two numbers with standard errors, for scores whose answers are not kept.

    It takes the two as independent. Two checkpoints that answered the same items are not: their
    errors go together, so this test is too careful and misses small gains (Miller 2024,
    arXiv:2411.00640). Where both sample files exist, the paired tests see more.
    """
    value = after.value - before.value
    if before.stderr is None or after.stderr is None:
        return Change(value, None, higher_is_better)
    return Change(value, _two_sided(value, _unpaired_error(before.stderr, after.stderr), math.inf), higher_is_better)


def unpaired_interval(before: Measured, after: Measured) -> tuple[float, float] | None:
    """The 95% interval of the difference that `unpaired_change` tests; None where an error is not known."""
    if before.stderr is None or after.stderr is None:
        return None
    value, reach = after.value - before.value, quantile(math.inf) * _unpaired_error(before.stderr, after.stderr)
    return value - reach, value + reach


def _unpaired_error(before: float, after: float) -> float:
    """A share of exactly 0 or 1 has no standard error of its own; the other one's stands in."""
    return math.hypot(before or after, after or before)


def paired_difference(before: Array, after: Array, groups: Groups | None = None) -> Difference:
    """The mean change over the same items, in the same order.

    Right-or-wrong answers get the exact test of McNemar (1947), Psychometrika 12, other numbers
    the paired t test. Miller (2024), arXiv:2411.00640, on why pairing. With groups the
    error is the clustered one; right-or-wrong answers then must pass both tests, because with few
    changed answers the clustered one alone is not careful enough.
    """
    first, second = same_items(before, after)
    change, ones = second - first, np.ones(first.size)
    value, error = float(change.mean()), spread(change, ones, groups)
    p_value = _two_sided(value, error.stderr, error.df)
    if not (is_binary(first) and is_binary(second)):
        return _student(value, error, p_value, first.size)
    # The source takes the normal quantile; groups can be few, and get Student's.
    low, high = _bonett_price(change, error if groups is not None else error._replace(df=math.inf))
    exact = _mcnemar(change)
    p_value = exact if groups is None else max(exact, p_value)
    return Difference(value, error.stderr, low, high, p_value, first.size)


def paired_ratio_difference(
    before: Array, after: Array, denominators: Array, groups: Groups | None = None
) -> Difference:
    """The change of a ratio of sums, such as bits per byte, over the same items with the same denominators.

    A t test with the error of `clusters.spread`.
    """
    first, second = same_items(before, after)
    sizes = np.asarray(denominators, dtype=np.float64)
    if sizes.shape != first.shape or sizes.sum() <= 0:
        raise ValueError("A ratio needs as many denominators as numerators, with a sum above zero.")
    value, error = float((second - first).sum() / sizes.sum()), spread(second - first, sizes, groups)
    return _student(value, error, _two_sided(value, error.stderr, error.df), first.size)


def _is_testable(change: Change) -> bool:
    return change.p_value is not None and not math.isnan(change.p_value)


def same_items(before: Array, after: Array) -> tuple[Floats, Floats]:
    """Both sides as arrays of one length.

    Raises:
        ValueError: they differ in length, are empty, or hold something that is not a number.
    """
    if np.shape(before) != np.shape(after) or np.size(before) == 0:
        raise ValueError("A paired comparison needs the same items on both sides, and at least one.")
    return as_floats(before), as_floats(after)


def _student(value: float, error: Spread, p_value: float, n: int) -> Difference:
    if not math.isfinite(error.stderr):
        return Difference(value, math.inf, -math.inf, math.inf, p_value, n)
    reach = quantile(error.df) * error.stderr
    return Difference(value, error.stderr, value - reach, value + reach, p_value, n)


def _mcnemar(change: Floats) -> float:
    gained, lost = int((change > 0).sum()), int((change < 0).sum())
    # The exact test: without a change, each differing item is a gain or a loss with one half.
    return min(1.0, 2 * float(special.bdtr(min(gained, lost), gained + lost, 0.5))) if gained + lost else 1.0


def _bonett_price(change: Floats, error: Spread) -> tuple[float, float]:
    """Interval of a paired difference of shares: Bonett & Price (2012), J. Educ. Behav. Stat. 37.

    One answer is added to either kind of change, so it has a width where nothing changed. With
    groups the counts are first scaled to as many independent items as would have the error.
    """
    n = change.size
    if not math.isfinite(error.stderr):
        return -1.0, 1.0
    count = effective_count(change, error)
    gained = ((change > 0).sum() * count / n + 1) / (count + 2)
    lost = ((change < 0).sum() * count / n + 1) / (count + 2)
    reach = quantile(error.df) * math.sqrt((gained + lost - (gained - lost) ** 2) / (count + 2))
    return max(float(gained - lost) - reach, -1.0), min(float(gained - lost) + reach, 1.0)


def _two_sided(value: float, stderr: float, df: float) -> float:
    if not math.isfinite(stderr) or value == 0:
        return 1.0
    # Where every item changed by the same amount there is no spread, and no doubt.
    return 2 * float(special.stdtr(df, -abs(value) / stderr)) if stderr > ROUNDING else 0.0
