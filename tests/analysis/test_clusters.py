"""Clustered errors are those of the textbooks, and of the plain formulas where nothing is clustered."""

import math

import numpy as np
import pytest
from statsmodels.regression.linear_model import OLS

from analysis.clusters import group_codes, spread


class TestSpread:
    def test_items_alone_have_the_standard_error_of_a_mean(self, rng: np.random.Generator) -> None:
        values = rng.normal(size=50)
        found = spread(values, np.ones(50))
        assert found.stderr == pytest.approx(values.std(ddof=1) / math.sqrt(50))
        assert found.df == pytest.approx(49)

    def test_equal_groups_have_the_error_that_statsmodels_gives(self, rng: np.random.Generator) -> None:
        groups = np.repeat(np.arange(20), 5)
        values = rng.normal(size=20)[groups] + rng.normal(size=100)
        fit = OLS(values, np.ones(100)).fit(cov_type="cluster", cov_kwds={"groups": groups})
        found = spread(values, np.ones(100), groups)
        assert found.stderr == pytest.approx(float(fit.bse[0]))
        assert found.df == pytest.approx(19)

    def test_unequal_groups_have_the_freedom_of_bell_and_mccaffreys_matrices(self) -> None:
        sizes = np.array([30, 12, 5, 2, 1])
        groups = np.repeat(np.arange(5), sizes)
        members = np.eye(5)[groups]
        annihilator = np.eye(50) - 1 / 50
        weighted = members / np.sqrt(1 - sizes / 50)
        between = weighted.T @ annihilator @ weighted
        expected = np.trace(between) ** 2 / np.trace(between @ between)
        assert spread(np.arange(50.0), np.ones(50), groups).df == pytest.approx(expected)

    def test_a_task_that_is_all_one_group_has_its_items_as_units(self) -> None:
        values = np.arange(6.0)
        assert spread(values, np.ones(6), ["anatomy"] * 6) == spread(values, np.ones(6))

    def test_one_item_says_nothing_about_the_error(self) -> None:
        assert spread(np.ones(1), np.ones(1)).stderr == math.inf

    def test_a_group_with_all_the_size_says_nothing_either(self) -> None:
        assert spread(np.array([4.0, 1.0]), np.array([2.0, 0.0])).stderr == math.inf

    def test_items_that_repeat_each_other_count_once(self, rng: np.random.Generator) -> None:
        values = rng.normal(size=30)
        repeated = spread(np.repeat(values, 4), np.ones(120), np.repeat(np.arange(30), 4))
        assert repeated.stderr == pytest.approx(spread(values, np.ones(30)).stderr)


class TestGroupCodes:
    def test_equal_labels_have_equal_numbers(self) -> None:
        assert group_codes(["law", "art", "law"], 3).tolist() == [1, 0, 1]

    def test_items_without_a_label_stand_alone(self) -> None:
        codes = group_codes(["", "law", "", "law", ""], 5)
        assert codes[1] == codes[3]
        assert len(set(codes.tolist())) == 4

    def test_a_label_is_needed_for_each_item(self) -> None:
        with pytest.raises(ValueError, match="3 items need 3 group labels; there are 2"):
            group_codes(["a", "b"], 3)
