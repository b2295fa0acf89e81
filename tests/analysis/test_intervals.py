"""The intervals hold what they promise, on data whose truth is known."""

import math
from collections.abc import Sequence

import numpy as np
import pytest
from scipy import stats

from analysis.intervals import Estimate, mean_interval, proportion_interval, ratio_interval, wilson

NUM_TRIALS = 2500
TOLERANCE = 0.015
"""Of 2,500 trials the share that covers has a standard error of 0.0044."""

UNEQUAL = np.array([60, 40, 30, 20, 20, 15, 15, 12, 10, 10, 8, 8, 6, 6, 5, 5, 4, 4, 3, 3, 2, 2, 1, 1])
SHAPES = {"8 subjects": np.full(8, 20), "40 passages": np.full(40, 4), "24 unequal subjects": UNEQUAL}


def covered(estimates: Sequence[Estimate], truths: Sequence[float]) -> float:
    return float(np.mean([one.low <= truth <= one.high for one, truth in zip(estimates, truths, strict=True)]))


def groups_of(sizes: np.ndarray) -> np.ndarray:
    return np.repeat(np.arange(sizes.size), sizes)


def alike_answers(
    rng: np.random.Generator, sizes: np.ndarray, share: float, likeness: float
) -> tuple[np.ndarray, np.ndarray]:
    """Right-or-wrong answers whose correlation within a group is `likeness`, and their groups."""
    groups = groups_of(sizes)
    strength = 1 / likeness - 1
    easiness = rng.beta(share * strength, (1 - share) * strength, size=sizes.size)
    return (rng.random(groups.size) < easiness[groups]).astype(float), groups


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

    @pytest.mark.parametrize("n", [20, 50, 164, 500])
    def test_it_covers_the_truth_95_times_in_100(self, n: int) -> None:
        # Not drawn but summed: every share of right answers with its probability, for every truth.
        found = [wilson(right, n) for right in range(n + 1)]
        truths = np.linspace(0.02, 0.98, 97)
        low, high = (np.array([getattr(one, side) for one in found])[:, None] for side in ("low", "high"))
        probability = stats.binom.pmf(np.arange(n + 1)[:, None], n, truths)
        coverage = (probability * ((low <= truths) & (truths <= high))).sum(axis=0)
        assert coverage.mean() == pytest.approx(0.95, abs=TOLERANCE)

    def test_more_right_answers_than_items_are_refused(self) -> None:
        with pytest.raises(ValueError, match="no share"):
            wilson(3, 2)


class TestProportionInterval:
    def test_without_groups_it_is_wilsons(self) -> None:
        assert proportion_interval([1, 0, 0, 1, 1]) == wilson(3, 5)

    def test_a_group_for_each_item_is_nearly_wilsons(self, rng: np.random.Generator) -> None:
        answers = (rng.random(2000) < 0.3).astype(float)
        assert proportion_interval(answers, np.arange(2000)) == pytest.approx(proportion_interval(answers), abs=1e-4)

    @pytest.mark.parametrize("sizes", SHAPES.values(), ids=SHAPES)
    @pytest.mark.parametrize("likeness", [0.02, 0.15])
    def test_it_covers_the_truth_95_times_in_100_where_items_go_together(
        self, rng: np.random.Generator, sizes: np.ndarray, likeness: float
    ) -> None:
        truths = rng.uniform(0.1, 0.9, size=NUM_TRIALS).tolist()
        drawn = [proportion_interval(*alike_answers(rng, sizes, share, likeness)) for share in truths]
        assert covered(drawn, truths) == pytest.approx(0.95, abs=TOLERANCE)

    def test_the_plain_interval_would_not(self, rng: np.random.Generator) -> None:
        drawn = [proportion_interval(alike_answers(rng, SHAPES["8 subjects"], 0.5, 0.15)[0]) for _ in range(NUM_TRIALS)]
        assert covered(drawn, [0.5] * NUM_TRIALS) < 0.75

    def test_no_right_answer_in_few_groups_leaves_much_open(self) -> None:
        estimate = proportion_interval([0.0] * 200, np.repeat(np.arange(10), 20))
        assert estimate.low == 0
        assert estimate.high > wilson(0, 10).high > wilson(0, 200).high

    def test_one_item_in_a_group_leaves_everything_open(self) -> None:
        assert proportion_interval([1.0], ["law"])[1:4] == (math.inf, 0.0, 1.0)

    def test_other_numbers_are_refused(self) -> None:
        with pytest.raises(ValueError, match="0 or 1"):
            proportion_interval([0.5])


class TestMeanInterval:
    def test_it_covers_the_truth_95_times_in_100(self, rng: np.random.Generator) -> None:
        drawn = rng.beta(2, 3, size=(NUM_TRIALS, 160))
        assert covered([mean_interval(values) for values in drawn], [2 / 5] * NUM_TRIALS) == pytest.approx(
            0.95, abs=TOLERANCE
        )

    @pytest.mark.parametrize("sizes", SHAPES.values(), ids=SHAPES)
    def test_it_covers_the_truth_where_items_go_together(self, rng: np.random.Generator, sizes: np.ndarray) -> None:
        groups, num_trials = groups_of(sizes), 2 * NUM_TRIALS
        shared = 0.3 * rng.standard_normal((num_trials, sizes.size))[:, groups]
        drawn = shared + rng.standard_normal((num_trials, groups.size))
        estimates = [mean_interval(values, groups) for values in drawn]
        assert covered(estimates, [0.0] * num_trials) == pytest.approx(0.95, abs=TOLERANCE)

    def test_one_value_says_nothing_about_the_error(self) -> None:
        assert mean_interval([3.0]).stderr == math.inf

    def test_no_values_are_refused(self) -> None:
        with pytest.raises(ValueError, match="No values"):
            mean_interval([])

    def test_what_is_not_a_number_is_refused(self) -> None:
        with pytest.raises(ValueError, match="Value 1 is not a number"):
            mean_interval([0.5, math.nan])


class TestRatioInterval:
    def test_the_ratio_is_of_the_sums(self) -> None:
        assert ratio_interval([1.0, 9.0], [1.0, 3.0]).value == 2.5

    @pytest.mark.parametrize("unevenness", [0.2, 0.7])
    def test_it_covers_the_truth_95_times_in_100_for_documents_of_unequal_length(
        self, rng: np.random.Generator, unevenness: float
    ) -> None:
        sizes = rng.lognormal(6, unevenness, size=(NUM_TRIALS, 64))
        bits = sizes * (2.2 + 0.4 * rng.standard_normal((NUM_TRIALS, 64)))
        estimates = [ratio_interval(top, bottom) for top, bottom in zip(bits, sizes, strict=True)]
        assert covered(estimates, [2.2] * NUM_TRIALS) == pytest.approx(0.95, abs=TOLERANCE)

    @pytest.mark.parametrize("shape", ["8 subjects", "40 passages"])
    def test_it_covers_the_truth_where_documents_go_together(self, rng: np.random.Generator, shape: str) -> None:
        groups = groups_of(SHAPES[shape])
        sizes = rng.lognormal(6, 0.5, size=(NUM_TRIALS, groups.size))
        rates = 2.2 + 0.2 * rng.standard_normal((NUM_TRIALS, groups.max() + 1))[:, groups]
        bits = sizes * (rates + 0.4 * rng.standard_normal(sizes.shape))
        estimates = [ratio_interval(top, bottom, groups) for top, bottom in zip(bits, sizes, strict=True)]
        assert covered(estimates, [2.2] * NUM_TRIALS) == pytest.approx(0.95, abs=TOLERANCE)

    def test_sides_of_unequal_length_are_refused(self) -> None:
        with pytest.raises(ValueError, match="as many denominators"):
            ratio_interval([1.0], [1.0, 2.0])
