"""The bootstrap says what the formulas say, of means and ratios, of items and of whole groups."""

import math

import numpy as np
import pytest

from analysis.bootstrap import MAX_ACCELERATED, paired_bootstrap
from analysis.compare import paired_difference, paired_ratio_difference

GROUPS = np.repeat(np.arange(50), 8)


def test_it_agrees_with_the_t_interval_of_a_mean(rng: np.random.Generator) -> None:
    before = rng.normal(size=400)
    after = before + rng.normal(0.05, 0.3, size=400)
    drawn, formula = paired_bootstrap(before, after), paired_difference(before, after)
    assert drawn[:4] == pytest.approx(formula[:4], abs=0.2 * formula.stderr)
    assert drawn.p_value == pytest.approx(formula.p_value, abs=0.01)


def test_it_agrees_with_the_clustered_interval_when_groups_are_drawn(rng: np.random.Generator) -> None:
    before = np.zeros(400)
    after = rng.normal(0.1, 0.3, size=50)[GROUPS] + rng.normal(0, 0.3, size=400)
    drawn, formula = paired_bootstrap(before, after, groups=GROUPS), paired_difference(before, after, GROUPS)
    assert drawn.stderr == pytest.approx(formula.stderr, rel=0.1)
    assert drawn.stderr > 2 * paired_bootstrap(before, after).stderr


def test_it_agrees_with_the_interval_of_a_ratio(rng: np.random.Generator) -> None:
    sizes = rng.lognormal(6, 0.5, size=400)
    before = sizes * rng.normal(2.2, 0.4, size=400)
    after = before - sizes * rng.normal(0.02, 0.1, size=400)
    drawn, formula = paired_bootstrap(before, after, sizes), paired_ratio_difference(before, after, sizes)
    assert drawn[:4] == pytest.approx(formula[:4], abs=0.2 * formula.stderr)


def test_its_interval_covers_the_change_95_times_in_100(rng: np.random.Generator) -> None:
    # 600 trials: the share that covers has a standard error of 0.009.
    changes = rng.normal(0.03, 0.1, size=(600, 120))
    found = [paired_bootstrap(np.zeros(120), change, num_resamples=600) for change in changes]
    assert np.mean([one.low <= 0.03 <= one.high for one in found]) == pytest.approx(0.95, abs=0.0225)


def test_it_is_wrong_at_most_5_times_in_100_when_nothing_changed(rng: np.random.Generator) -> None:
    right = rng.random((2, 600, 160)) < rng.random((600, 160))
    found = [paired_bootstrap(one, two, num_resamples=600) for one, two in zip(*right.astype(float), strict=True)]
    assert np.mean([one.verdict() != "within noise" for one in found]) <= 0.05 + 0.0225


def test_the_same_seed_gives_the_same_numbers(rng: np.random.Generator) -> None:
    before, after = rng.random((2, 100))
    assert paired_bootstrap(before, after, seed=7) == paired_bootstrap(before, after, seed=7)
    assert paired_bootstrap(before, after, seed=7) != paired_bootstrap(before, after, seed=8)


def test_many_items_are_drawn_too(rng: np.random.Generator) -> None:
    before, after = (rng.random((2, MAX_ACCELERATED + 1)) < 0.5).astype(float)
    drawn, formula = paired_bootstrap(before, after), paired_difference(before, after)
    assert (drawn.low, drawn.high) == pytest.approx((formula.low, formula.high), abs=0.2 * formula.stderr)


def test_a_change_that_all_items_share_is_certain() -> None:
    assert paired_bootstrap([0.1, 0.2, 0.3], [0.2, 0.3, 0.4])[1:5] == pytest.approx((0.0, 0.1, 0.1, 0.0))
    assert paired_bootstrap([0.1, 0.2], [0.1, 0.2]).verdict() == "within noise"


def test_a_single_item_says_nothing() -> None:
    found = paired_bootstrap([0.1], [0.5], groups=["law"])
    assert (found.stderr, found.p_value) == (math.inf, 1.0)


def test_a_ratio_needs_a_size_for_each_item() -> None:
    with pytest.raises(ValueError, match="as many denominators"):
        paired_bootstrap([1.0, 2.0], [1.0, 2.0], [1.0])
