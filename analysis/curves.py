"""What a task's curve over one training run is worth: its step-to-step noise, its growth against it, its direction."""

import math
from typing import NamedTuple

import numpy as np
from scipy import stats

from analysis.clusters import Floats
from analysis.intervals import Array, Estimate, as_floats, quantile

NUM_LAST = 10
"""Checkpoints from the end of a run that its noise is taken from."""


class Noise(NamedTuple):
    """How far one checkpoint's score lies off the run's smooth course, as a standard deviation."""

    value: float
    """In the units of the score."""
    relative: float
    """Divided by the mean score of the checkpoints it was taken from."""
    num_checkpoints: int


def step_noise(steps: Array, scores: Array, last: int = NUM_LAST) -> Noise | None:
    """Step-to-step noise of a task from the last checkpoints of a run; None with fewer than three.

    Heineman et al. (2025), "Signal and Noise", arXiv:2508.13144, take the relative standard
    deviation of the last checkpoints. A run that still grows would then count its growth as
    noise; so here it is the deviation of each score from the line through its two neighbours:
    Gasser, Sroka & Jennen-Steinmetz (1986), Biometrika 73, von Neumann's (1941) successive
    differences for steps of any spacing. On a flat curve both estimate the same number.
    """
    places, values = _in_order(steps, scores)
    places, values = places[-last:], values[-last:]
    if values.size < 3:
        return None
    left = (places[2:] - places[1:-1]) / (places[2:] - places[:-2])
    off = values[1:-1] - left * values[:-2] - (1 - left) * values[2:]
    variance = float((off**2 / (1 + left**2 + (1 - left) ** 2)).mean())
    middle = float(values.mean())
    return Noise(math.sqrt(variance), math.sqrt(variance) / abs(middle) if middle else math.inf, values.size)


def signal_to_noise(final_scores: Array, noise: Noise) -> float:
    """How well a task tells runs apart: relative dispersion of their final scores over the relative noise.

    Heineman et al. (2025), arXiv:2508.13144: signal = max |m_j - m_k| / mean(m), over
    `Noise.relative`. It needs several runs or models; `growth_to_noise` is for one.
    """
    scores = as_floats(final_scores)
    if scores.size < 2:
        raise ValueError("Signal is the spread between runs: it needs the final scores of two or more.")
    return _over(float(np.ptp(scores) / abs(scores.mean())) if scores.mean() else math.inf, noise.relative)


def growth_to_noise(steps: Array, scores: Array, last: int = NUM_LAST) -> float | None:
    """How well a task shows one run's growth: the range of its curve over its step-to-step noise.

    The range-based variant of Heineman et al. (2025), arXiv:2508.13144, with the checkpoints of one
    run in place of several models; so it is no number to compare with theirs. The range of pure
    noise over k checkpoints is some 3 (k = 10) to 5 (k = 100) times the noise. None with fewer
    than three checkpoints.
    """
    noise = step_noise(steps, scores, last)
    return None if noise is None else _over(float(np.ptp(as_floats(scores))), noise.value)


def monotonicity(steps: Array, scores: Array, *, higher_is_better: bool = True) -> float | None:
    """Spearman's rank correlation of score and step, turned so that 1 is steady improvement.

    Spearman (1904), American Journal of Psychology 15; FineTasks (Hugging Face 2024) admits tasks
    from an average of 0.5. 0 for a curve that never moves; None with fewer than three checkpoints.
    """
    places, values = _in_order(steps, scores)
    if values.size < 3:
        return None
    if np.ptp(values) == 0:
        return 0.0
    correlation = float(stats.spearmanr(places, values).statistic)
    return correlation if higher_is_better else -correlation


def chance_distance(estimate: Estimate, chance: float, *, higher_is_better: bool = True) -> float:
    """How many standard errors a score lies on the better side of what guessing gives.

    FineTasks (Hugging Face 2024) asks for three. A share of exactly 0 or 1 has no standard error of
    its own; half its interval stands in.
    """
    distance = estimate.value - chance if higher_is_better else chance - estimate.value
    error = estimate.stderr or (estimate.high - estimate.low) / (2 * quantile(math.inf))
    return _over(distance, error)


def _in_order(steps: Array, scores: Array) -> tuple[Floats, Floats]:
    if np.size(steps) == 0 and np.size(scores) == 0:
        return np.empty(0), np.empty(0)
    places, values = as_floats(steps), as_floats(scores)
    if places.shape != values.shape or (np.diff(places) <= 0).any():
        raise ValueError("A curve needs one score a step, and the steps in rising order.")
    return places, values


def _over(signal: float, noise: float) -> float:
    if noise > 0:
        return signal / noise
    return math.copysign(math.inf, signal) if signal else 0.0
