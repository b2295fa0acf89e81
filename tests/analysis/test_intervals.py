"""The intervals hold what they promise, on data whose truth is known."""

import math

import numpy as np
import pytest

from analysis.intervals import Estimate, mean_interval, ratio_interval, wilson

NUM_TRIALS = 4000
RNG = np.random.default_rng(20260101)


def covered(estimates: list[Estimate], truth: float) -> float:
    return sum(estimate.low <= truth <= estimate.high for estimate in estimates) / len(estimates)


class TestWilson:
    def test_it_gives_the_textbook_interval(self) -> None:
        estimate = wilson(8, 10)
        assert (round(estimate.low, 3), round(estimate.high, 3)) == (0.490, 0.943)

    def test_its_standard_error_is_lm_evals(self) -> None:
        answers = np.array([1.0] * 30 + [0.0] * 90)
        assert wilson(30, 120).stderr == pytest.approx(answers.std(ddof=1) / math.sqrt(120))

    @pytest.mark.parametrize(("right", "n"), [(0, 20), (20, 20)])
    def test_it_stays_within_zero_and_one_and_keeps_a_width(self, right: int, n: int) -> None:
        estimate = wilson(right, n)
        assert 0 <= estimate.low < estimate.high <= 1
        assert estimate.high - estimate.low > 0.1

    @pytest.mark.parametrize("share", [0.25, 0.3, 0.5, 0.9])
    def test_it_covers_the_truth_95_times_in_100(self, share: float) -> None:
        drawn = RNG.binomial(200, share, size=NUM_TRIALS)
        assert covered([wilson(int(right), 200) for right in drawn], share) == pytest.approx(0.95, abs=0.015)

    def test_more_right_answers_than_items_are_refused(self) -> None:
        with pytest.raises(ValueError, match="no share"):
            wilson(3, 2)


class TestMeanInterval:
    def test_it_covers_the_truth_95_times_in_100(self) -> None:
        drawn = RNG.beta(2, 3, size=(NUM_TRIALS, 160))
        assert covered([mean_interval(values) for values in drawn], 2 / 5) == pytest.approx(0.95, abs=0.015)

    def test_one_value_says_nothing_about_the_error(self) -> None:
        assert mean_interval([3.0]).stderr == math.inf

    def test_no_values_are_refused(self) -> None:
        with pytest.raises(ValueError, match="No values"):
            mean_interval([])


class TestRatioInterval:
    def test_the_ratio_is_of_the_sums(self) -> None:
        assert ratio_interval([1.0, 9.0], [1.0, 3.0]).value == 2.5

    def test_it_covers_the_truth_95_times_in_100_for_documents_of_unequal_length(self) -> None:
        sizes = RNG.integers(240, 480, size=(NUM_TRIALS, 64)).astype(float)
        bits = sizes * (2.2 + 0.4 * RNG.standard_normal((NUM_TRIALS, 64)))
        estimates = [ratio_interval(top, bottom) for top, bottom in zip(bits, sizes, strict=True)]
        assert covered(estimates, 2.2) == pytest.approx(0.95, abs=0.015)

    def test_sides_of_unequal_length_are_refused(self) -> None:
        with pytest.raises(ValueError, match="as many denominators"):
            ratio_interval([1.0], [1.0, 2.0])
