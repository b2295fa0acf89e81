"""Noise is told from growth, and tasks that show a run's growth from tasks that do not."""

import math

import numpy as np
import pytest

from analysis.curves import Noise, chance_distance, growth_to_noise, monotonicity, signal_to_noise, step_noise
from analysis.intervals import Estimate, wilson

STEPS = np.arange(1, 31) * 1000.0
GROWTH = 0.25 + 0.4 * (1 - np.exp(-STEPS / 15_000))


class TestStepNoise:
    def test_growth_alone_is_no_noise(self) -> None:
        found = step_noise(STEPS, GROWTH)
        assert found is not None
        assert found.value < 0.0005
        assert GROWTH[-10:].std() > 0.01  # what the plain deviation would have called noise

    @pytest.mark.parametrize("steps", [STEPS, np.geomspace(1, 30_000, 30)], ids=["even steps", "doubling steps"])
    def test_it_is_the_deviation_from_a_growing_curve(self, rng: np.random.Generator, steps: np.ndarray) -> None:
        course = 0.25 + 0.4 * np.linspace(0, 1, 30) if steps is STEPS else np.full(30, 0.4)
        drawn = course + 0.02 * rng.standard_normal((2000, 30))
        found = [step_noise(steps, scores) for scores in drawn]
        assert math.sqrt(np.mean([one.value**2 for one in found if one])) == pytest.approx(0.02, rel=0.05)

    def test_on_a_flat_curve_it_is_the_relative_deviation_of_signal_and_noise(self, rng: np.random.Generator) -> None:
        scores = 0.5 + 0.01 * rng.standard_normal(200)
        found = step_noise(np.arange(200), scores, last=200)
        assert found is not None
        assert found.relative == pytest.approx(scores.std() / scores.mean(), rel=0.1)

    def test_only_the_last_checkpoints_count(self, rng: np.random.Generator) -> None:
        wild = np.concatenate([rng.random(20), np.full(10, 0.7)])
        assert step_noise(STEPS, wild) == pytest.approx((0.0, 0.0, 10), abs=1e-12)

    def test_two_checkpoints_say_nothing(self) -> None:
        assert step_noise([1, 2], [0.1, 0.2]) is None
        assert step_noise([], []) is None

    def test_steps_out_of_order_are_refused(self) -> None:
        with pytest.raises(ValueError, match="rising order"):
            step_noise([1, 3, 2], [0.1, 0.2, 0.3])


class TestSignalToNoise:
    def test_it_is_the_relative_spread_of_runs_over_the_relative_noise(self) -> None:
        assert signal_to_noise([0.4, 0.5, 0.6], Noise(0.01, 0.02, 10)) == pytest.approx(0.4 / 0.02)

    def test_one_run_has_no_spread(self) -> None:
        with pytest.raises(ValueError, match="two or more"):
            signal_to_noise([0.4], Noise(0.01, 0.02, 10))

    def test_without_noise_any_spread_is_clear(self) -> None:
        assert signal_to_noise([0.4, 0.5], Noise(0.0, 0.0, 10)) == math.inf


class TestGrowthToNoise:
    def test_it_is_the_range_over_the_noise(self, rng: np.random.Generator) -> None:
        scores = GROWTH + 0.01 * rng.standard_normal(30)
        noise = step_noise(STEPS, scores)
        assert noise is not None
        assert growth_to_noise(STEPS, scores) == pytest.approx(np.ptp(scores) / noise.value)

    def test_a_task_that_only_jitters_has_little(self, rng: np.random.Generator) -> None:
        grown = [growth_to_noise(STEPS, GROWTH + 0.01 * rng.standard_normal(30)) or 0 for _ in range(50)]
        jittered = [growth_to_noise(STEPS, 0.25 + 0.01 * rng.standard_normal(30)) or 0 for _ in range(50)]
        assert np.median(jittered) < 6 < 20 < np.median(grown)

    def test_two_checkpoints_say_nothing(self) -> None:
        assert growth_to_noise([1, 2], [0.1, 0.2]) is None


class TestMonotonicity:
    def test_steady_improvement_is_one_whatever_its_shape(self) -> None:
        assert monotonicity(STEPS, GROWTH) == pytest.approx(1.0)
        assert monotonicity(STEPS, -GROWTH, higher_is_better=False) == pytest.approx(1.0)

    def test_steady_decline_is_minus_one(self) -> None:
        assert monotonicity(STEPS, -GROWTH) == pytest.approx(-1.0)

    def test_a_curve_that_never_moves_is_zero(self) -> None:
        assert monotonicity([1, 2, 3], [0.25, 0.25, 0.25]) == 0.0

    def test_two_checkpoints_say_nothing(self) -> None:
        assert monotonicity([1, 2], [0.1, 0.2]) is None


class TestChanceDistance:
    def test_it_counts_standard_errors(self) -> None:
        assert chance_distance(Estimate(0.31, 0.02, 0.27, 0.35, 500), 0.25) == pytest.approx(3.0)

    def test_lower_is_better_for_some(self) -> None:
        estimate = Estimate(0.70, 0.01, 0.68, 0.72, 500)
        assert chance_distance(estimate, 0.75, higher_is_better=False) == pytest.approx(5.0)

    def test_no_right_answer_is_finitely_below_chance(self) -> None:
        assert -20 < chance_distance(wilson(0, 40), 0.25) < -3
