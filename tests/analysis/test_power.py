"""A change of the detectable size is found in four cases of five, by the tests that the site uses."""

import math

import numpy as np
import pytest

from analysis.compare import paired_difference
from analysis.power import expected_discordance, minimum_detectable_effect, minimum_detectable_mean


class TestMinimumDetectableEffect:
    @pytest.mark.parametrize(("n", "accuracy", "correlation"), [(160, 0.3, 0.5), (500, 0.5, 0.7), (2000, 0.9, 0.5)])
    def test_mcnemars_test_finds_it_four_times_in_five(
        self, rng: np.random.Generator, n: int, accuracy: float, correlation: float
    ) -> None:
        discordance = expected_discordance(accuracy, correlation)
        effect = minimum_detectable_effect(n, discordance)
        drawn = rng.multinomial(n, [(discordance + effect) / 2, (discordance - effect) / 2, 1 - discordance], size=800)
        changes = [np.repeat([1.0, -1.0, 0.0], counts) for counts in drawn]
        found = np.mean([paired_difference(change < 0, change > 0).p_value < 0.05 for change in changes])
        # The exact test is a little more careful than the formula, which knows only large samples.
        assert 0.7 < found < 0.85

    def test_four_times_the_items_halve_it(self) -> None:
        ratio = minimum_detectable_effect(4000, 0.2) / minimum_detectable_effect(1000, 0.2)
        assert ratio == pytest.approx(0.5, abs=0.01)

    def test_humanevals_164_items_do_not_resolve_3_points(self) -> None:
        # The example of Miller (2024).
        assert minimum_detectable_effect(164, expected_discordance(0.85, 0.5)) > 0.05

    def test_items_that_go_together_count_less(self) -> None:
        clustered = minimum_detectable_effect(1000, 0.2, design_effect=4.0)
        assert clustered == pytest.approx(minimum_detectable_effect(250, 0.2))

    def test_it_is_never_more_than_the_answers_that_change(self) -> None:
        assert minimum_detectable_effect(40, 0.01) < 1
        assert minimum_detectable_effect(3, 0.5) == math.inf

    @pytest.mark.parametrize(("n", "discordance"), [(0, 0.5), (10, 0.0), (10, 1.5)])
    def test_impossible_numbers_are_refused(self, n: int, discordance: float) -> None:
        with pytest.raises(ValueError, match="discordance above 0"):
            minimum_detectable_effect(n, discordance)


class TestExpectedDiscordance:
    def test_independent_answers_differ_as_two_coins_do(self) -> None:
        assert expected_discordance(0.5, 0.0) == 0.5

    def test_it_is_the_share_that_differs(self, rng: np.random.Generator) -> None:
        # Answers of correlation 0.6: with that chance the second checkpoint copies the first one's answer.
        first, fresh = rng.random((2, 100_000)) < 0.3
        second = np.where(rng.random(100_000) < 0.6, first, fresh)
        assert np.mean(first != second) == pytest.approx(expected_discordance(0.3, 0.6), abs=0.005)

    def test_impossible_numbers_are_refused(self) -> None:
        with pytest.raises(ValueError, match="between 0 and 1"):
            expected_discordance(1.2, 0.5)


class TestMinimumDetectableMean:
    def test_the_t_test_finds_it_four_times_in_five(self, rng: np.random.Generator) -> None:
        change = minimum_detectable_mean(60, 0.2)
        drawn = rng.normal(change, 0.2, size=(1500, 60))
        found = np.mean([paired_difference(np.zeros(60), values).p_value < 0.05 for values in drawn])
        assert found == pytest.approx(0.8, abs=0.03)

    def test_a_single_independent_item_is_refused(self) -> None:
        with pytest.raises(ValueError, match="two independent items"):
            minimum_detectable_mean(10, 0.2, design_effect=8.0)
