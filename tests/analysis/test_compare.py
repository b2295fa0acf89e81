"""Verdicts are rarely wrong when nothing changed, and seldom miss a real change."""

import numpy as np
import pytest

from analysis.compare import paired_difference, paired_ratio_difference, verdict
from analysis.intervals import Estimate, mean_interval, wilson

NUM_TRIALS = 2000
RNG = np.random.default_rng(20260102)


def share_wrong(verdicts: list[str]) -> float:
    return sum(found != "within noise" for found in verdicts) / len(verdicts)


class TestVerdict:
    def test_a_large_rise_is_a_gain_and_a_large_fall_a_loss(self) -> None:
        low, high = wilson(40, 160), wilson(100, 160)
        assert (verdict(low, high), verdict(high, low)) == ("gain", "loss")

    def test_fewer_bits_per_byte_are_a_gain(self) -> None:
        before, after = Estimate(2.8, 0.05, 2.7, 2.9, 64), Estimate(2.0, 0.05, 1.9, 2.1, 64)
        assert verdict(before, after, higher_is_better=False) == "gain"

    def test_without_a_standard_error_nothing_is_claimed(self) -> None:
        class Bare:
            value, stderr = 0.9, None

        assert verdict(Bare(), wilson(1, 100)) == "within noise"

    def test_a_share_of_zero_lends_the_error_of_the_other(self) -> None:
        assert verdict(wilson(0, 20), wilson(1, 20)) == "within noise"

    @pytest.mark.parametrize("share", [0.25, 0.5])
    def test_it_is_wrong_at_most_5_times_in_100_when_nothing_changed(self, share: float) -> None:
        drawn = RNG.binomial(200, share, size=(NUM_TRIALS, 2))
        verdicts: list[str] = [verdict(wilson(int(one), 200), wilson(int(two), 200)) for one, two in drawn]
        assert share_wrong(verdicts) <= 0.05 + 0.012  # 2.5 standard errors of the simulation


class TestPairedDifference:
    def test_it_is_wrong_at_most_5_times_in_100_for_right_or_wrong_answers(self) -> None:
        hardness = RNG.random((NUM_TRIALS, 160))
        before, after = (RNG.random((NUM_TRIALS, 160)) < hardness for _ in range(2))
        found: list[str] = [paired_difference(one, two).verdict() for one, two in zip(before, after, strict=True)]
        assert share_wrong(found) <= 0.05

    def test_it_is_wrong_at_most_5_times_in_100_for_other_numbers(self) -> None:
        before, after = RNG.gamma(2.0, size=(2, NUM_TRIALS, 100))
        found: list[str] = [paired_difference(one, two).verdict() for one, two in zip(before, after, strict=True)]
        assert share_wrong(found) <= 0.05 + 0.012

    def test_it_sees_a_change_that_two_error_bars_hide(self) -> None:
        hardness = RNG.normal(0.4, 0.2, size=160)
        before, after = hardness, hardness + RNG.normal(0.02, 0.02, size=160)
        assert verdict(mean_interval(before), mean_interval(after)) == "within noise"
        assert paired_difference(before, after).verdict() == "gain"

    def test_equal_answers_are_no_difference(self) -> None:
        found = paired_difference([1, 0, 1], [1, 0, 1])
        assert (found.value, found.p_value, found.verdict()) == (0.0, 1.0, "within noise")

    def test_other_items_are_refused(self) -> None:
        with pytest.raises(ValueError, match="same items"):
            paired_difference([1.0], [1.0, 2.0])


def test_a_paired_ratio_is_the_change_of_the_ratio() -> None:
    sizes = np.array([100.0, 300.0, 250.0])
    found = paired_ratio_difference(2.5 * sizes, 2.0 * sizes, sizes)
    assert found.value == pytest.approx(-0.5)
    assert found.verdict(higher_is_better=False) == "gain"
