"""Whether a task is worth a place in the panel at this stage of a run, by rules that anybody can follow."""

import math
from typing import Literal, NamedTuple

import numpy as np
from scipy import special

from analysis import curves, power
from analysis.intervals import ALPHA, Array, Estimate, as_floats

Word = Literal["worth it", "too early", "too noisy", "backwards", "saturated", "too few"]
WORDS: tuple[Word, ...] = ("worth it", "too noisy", "too early", "backwards", "saturated", "too few")

MIN_CHECKPOINTS = 5
"""Fewer scores have no trend to speak of."""
MIN_MONOTONICITY = 0.5
"""FineTasks (Hugging Face 2024) admits tasks from this rank correlation of step and score."""
MIN_CHANCE_DISTANCE = 3.0
"""Standard errors; FineTasks asks for as many."""
MIN_GROWTH_TO_NOISE = 5.0
"""What the range of pure noise reaches over a hundred checkpoints; see `curves.growth_to_noise`."""
USUAL_CORRELATION = 0.5
"""Of the answers of two neighbouring checkpoints, where none were compared; Miller (2024), arXiv:2411.00640."""


class Facts(NamedTuple):
    """What is measured about a task in a run; None where the data do not tell."""

    num_checkpoints: int
    newest: Estimate | None
    growth_to_noise: float | None
    """Range of the curve over its step-to-step noise."""
    monotonicity: float | None
    chance_distance: float | None
    """Standard errors of the newest score from guessing; None for a metric that nobody can guess at."""
    smallest_change: float | None
    """What a comparison of two checkpoints finds in four cases of five."""
    room: float | None
    """How much the score can still grow; None without a ceiling."""


def facts(
    steps: Array,
    scores: Array,
    newest: Estimate | None,
    *,
    higher_is_better: bool = True,
    chance: float | None = None,
    ceiling: float | None = None,
    smallest_change: float | None = None,
) -> Facts:
    """Measure a task's curve under one protocol, its steps in rising order."""
    number = len(steps)
    grown = curves.growth_to_noise(steps, scores) if number else None
    trend = curves.monotonicity(steps, scores, higher_is_better=higher_is_better) if number else None
    distance = None
    if newest is not None and chance is not None:
        distance = curves.chance_distance(newest, chance, higher_is_better=higher_is_better)
    room = None if newest is None or ceiling is None else ceiling - newest.value
    return Facts(number, newest, grown, trend, distance, smallest_change, room)


def verdict(measured: Facts) -> Word:
    """One word; the first rule that applies decides.

    The thresholds of trend and distance from chance are those of FineTasks (Hugging Face 2024),
    "Scaling FineWeb to 1000+ languages: Step 1". Its signal-to-noise compares several runs; for one
    run the growth over the noise (Heineman et al. 2025, "Signal and Noise", arXiv:2508.13144) stands in.
    """
    if measured.num_checkpoints < MIN_CHECKPOINTS:
        return "too few"
    if _below(measured.room, measured.smallest_change):
        return "saturated"
    if _below(measured.chance_distance, MIN_CHANCE_DISTANCE):
        return "too early"
    if measured.monotonicity is not None and measured.monotonicity <= -MIN_MONOTONICITY and not _is_noise(measured):
        return "backwards"
    if _below(measured.monotonicity, MIN_MONOTONICITY) or _is_noise(measured):
        return "too noisy"
    return "worth it"


def smallest_change(change_errors: Array, newest: Estimate | None, *, is_share: bool) -> float | None:
    """The smallest change that a comparison of two checkpoints finds in four cases of five.

    From the standard errors of the paired changes that were measured, (z_0.975 + z_0.8) times their
    mean square root: Cohen (1988), "Statistical Power Analysis". Where none was, for a share, from the
    number of items and the usual correlation of answers (`power.minimum_detectable_effect`).
    """
    errors = as_floats(change_errors) if len(change_errors) else np.zeros(1)
    typical = math.sqrt(float((errors**2).mean()))
    if typical > 0:
        return float(special.ndtri(1 - ALPHA / 2) + special.ndtri(power.POWER)) * typical
    if newest is None or not is_share or not 0 < newest.value < 1:
        return None
    discordance = power.expected_discordance(newest.value, USUAL_CORRELATION)
    found = float(power.minimum_detectable_effect(newest.n, discordance))
    return found if math.isfinite(found) else None


def clearest(found: dict[str, tuple[float | None, float | None]]) -> str | None:
    """The metric whose curve stands out the most from its noise, of those that improve steadily.

    `found` has growth to noise and monotonicity by metric. None where no metric does.
    """
    steady = {
        metric: grown
        for metric, (grown, trend) in found.items()
        if grown is not None and trend is not None and trend >= MIN_MONOTONICITY
    }
    return max(steady, key=lambda metric: steady[metric]) if steady else None


def _below(value: float | None, bound: float | None) -> bool:
    return value is not None and bound is not None and value < bound


def _is_noise(measured: Facts) -> bool:
    return _below(measured.growth_to_noise, MIN_GROWTH_TO_NOISE)
