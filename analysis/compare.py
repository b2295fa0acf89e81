"""Has a checkpoint become better than the one before? Verdicts and paired differences."""

import math
from typing import Literal, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt
from scipy import stats

from analysis.intervals import ALPHA, Array, Estimate, mean_interval, ratio_interval

Floats = npt.NDArray[np.float64]
Verdict = Literal["gain", "loss", "within noise"]


class Measured(Protocol):
    """Anything with a value and a standard error: an `Estimate`, a `Result` row, a `Score`."""

    @property
    def value(self) -> float:
        """The number."""

    @property
    def stderr(self) -> float | None:
        """Its standard error; None where it is not known."""


class Difference(NamedTuple):
    """After minus before over the same items; `p_value` is two-sided."""

    value: float
    stderr: float
    low: float
    high: float
    p_value: float
    n: int

    def verdict(self, *, higher_is_better: bool = True) -> Verdict:
        """What the difference means at the 5% level."""
        return _judge(self.value, self.p_value, higher_is_better=higher_is_better)


def verdict(before: Measured, after: Measured, *, higher_is_better: bool = True) -> Verdict:
    """A two-sided z test at the 5% level on two numbers with standard errors.

    It takes the two as independent. Two checkpoints that answered the same items are not: their
    errors go together, so this test is too careful and misses small gains. Where both sample
    files exist, `paired_difference` or `paired_ratio_difference` sees more with the same items.
    """
    if before.stderr is None or after.stderr is None:
        return "within noise"
    # A share of exactly 0 or 1 has no standard error of its own; the other one's stands in.
    errors = [error for error in (before.stderr, after.stderr) if error > 0] or [0.0]
    spread = math.hypot(before.stderr or errors[0], after.stderr or errors[0])
    change = after.value - before.value
    if not math.isfinite(spread) or change == 0:
        return "within noise"
    p_value = 2 * float(stats.norm.sf(abs(change) / spread)) if spread > 0 else 0.0
    return _judge(change, p_value, higher_is_better=higher_is_better)


def paired_difference(before: Array, after: Array) -> Difference:
    """The mean change over the same items, in the same order.

    Right-or-wrong answers get the exact test of McNemar (1947), Psychometrika 12, other numbers
    the paired t test. Miller (2024), "Adding error bars to evals", arXiv:2411.00640, on why pairing.
    """
    first, second = _same_items(before, after)
    change = mean_interval(second - first)
    if set(np.unique(np.concatenate([first, second]))) <= {0.0, 1.0}:
        return _difference(change, _mcnemar(first, second))
    return _difference(change, _two_sided(change))


def paired_ratio_difference(before: Array, after: Array, denominators: Array) -> Difference:
    """The change of a ratio of sums, such as bits per byte, over the same items with the same denominators."""
    first, second = _same_items(before, after)
    change = ratio_interval(second - first, denominators)
    return _difference(change, _two_sided(change))


def _same_items(before: Array, after: Array) -> tuple[Floats, Floats]:
    first, second = np.asarray(before, dtype=np.float64), np.asarray(after, dtype=np.float64)
    if first.shape != second.shape or first.size == 0:
        raise ValueError("A paired comparison needs the same items on both sides, and at least one.")
    return first, second


def _difference(change: Estimate, p_value: float) -> Difference:
    return Difference(change.value, change.stderr, change.low, change.high, p_value, change.n)


def _mcnemar(first: Floats, second: Floats) -> float:
    gained = int(((first == 0) & (second == 1)).sum())
    lost = int(((first == 1) & (second == 0)).sum())
    # The exact test: without a change, each differing item is a gain or a loss with one half.
    return float(stats.binomtest(gained, gained + lost).pvalue) if gained + lost else 1.0


def _two_sided(change: Estimate) -> float:
    if not math.isfinite(change.stderr):
        return 1.0
    if change.stderr == 0:
        return 1.0 if change.value == 0 else 0.0
    return 2 * float(stats.t.sf(abs(change.value) / change.stderr, df=change.n - 1))


def _judge(change: float, p_value: float, *, higher_is_better: bool) -> Verdict:
    if p_value >= ALPHA or change == 0:
        return "within noise"
    return "gain" if (change > 0) == higher_is_better else "loss"
