"""Forecasts: the interval covers what it promises on curves of its kind, and nothing is foretold from nothing."""

from collections.abc import Callable

import numpy as np
import pytest

from analysis import forecast
from analysis.clusters import Floats
from analysis.forecast import LOSS, POWER_LAW, SIGMOID, TOO_FAR, TOO_FEW, TOO_VAGUE, Scale, Unforeseeable

SHARE = Scale(True, 0.25, 1.0)
Course = Callable[[Floats], Floats]


def a_loss(rng: np.random.Generator) -> Course:
    level, size, exponent = rng.uniform(1.5, 3), rng.uniform(1, 8), rng.uniform(0.1, 1)
    return lambda tokens: level + size * tokens**-exponent


def a_sigmoid(rng: np.random.Generator) -> Course:
    size, slope, middle = rng.uniform(0.3, 0.7), rng.uniform(0.6, 2.5), rng.uniform(0, 3)
    return lambda tokens: 0.25 + size / (1 + np.exp(-slope * (np.log(tokens) - middle)))


def a_saturating_share(rng: np.random.Generator) -> Course:
    level, size, exponent = rng.uniform(0.5, 0.95), rng.uniform(0.1, 0.4), rng.uniform(0.1, 1)
    return lambda tokens: level - size * tokens**-exponent


def share_of_hits(
    kind: Callable[[np.random.Generator], Course], scale: Scale, noise: float, num_points: int, trials: int
) -> float:
    """How often the interval for 1.1, 2 and 4 times the tokens holds the number that then comes."""
    rng = np.random.default_rng(11)
    tokens, reach = np.linspace(1, num_points, num_points), np.array([1.1, 2.0, 4.0]) * num_points
    hits = []
    for _ in range(trials):
        course = kind(rng)
        unit = course(tokens) if scale is LOSS else np.ones(num_points)
        fitted = forecast.fit(tokens, course(tokens) + noise * unit * rng.standard_normal(num_points), scale)
        band, later = fitted.band(reach), course(reach)
        came = later + noise * (later if scale is LOSS else 1.0) * rng.standard_normal(3)
        hits.append((band.low <= came) & (came <= band.high))
    return float(np.mean(hits))


class TestCoverage:
    @pytest.mark.parametrize("num_points", [10, 40])
    def test_nine_of_ten_losses_fall_inside(self, num_points: int) -> None:
        assert share_of_hits(a_loss, LOSS, 0.01, num_points, 250) == pytest.approx(0.9, abs=0.04)

    @pytest.mark.parametrize("kind", [a_sigmoid, a_saturating_share])
    def test_nine_of_ten_scores_fall_inside(self, kind: Callable[[np.random.Generator], Course]) -> None:
        assert share_of_hits(kind, SHARE, 0.02, 20, 100) == pytest.approx(0.9, abs=0.04)


class TestMethods:
    TOKENS = np.arange(1.0, 31.0)

    def test_a_loss_without_noise_is_found_again(self) -> None:
        fitted = forecast.fit(self.TOKENS, 2 + 3 * self.TOKENS**-0.5)
        value, low, high = fitted.at(120.0)
        assert value == pytest.approx(2 + 3 * 120**-0.5, abs=0.002)
        assert low <= value <= high
        assert fitted.method == POWER_LAW

    def test_an_s_shaped_score_is_told_by_the_sigmoid(self) -> None:
        rng = np.random.default_rng(2)
        scores = 0.25 + 0.6 / (1 + np.exp(-3 * (np.log(self.TOKENS) - 2.5))) + 0.005 * rng.standard_normal(30)
        assert forecast.fit(self.TOKENS, scores, SHARE).method == SIGMOID

    def test_scores_stay_between_nothing_and_everything(self) -> None:
        band = forecast.fit(self.TOKENS, 1 - 0.5 * self.TOKENS**-0.9, SHARE, stderr=0.05).band([60.0, 900.0])
        assert (band.high <= 1).all()
        assert (band.low >= 0).all()

    def test_one_outlier_does_not_bend_the_curve(self) -> None:
        losses = 2 + 3 * self.TOKENS**-0.5
        losses[12] *= 1.5
        assert forecast.fit(self.TOKENS, losses).at(60.0)[0] == pytest.approx(2 + 3 * 60**-0.5, rel=0.02)

    def test_the_warm_up_is_left_out(self) -> None:
        tokens = np.arange(1.0, 101.0)
        losses = np.where(tokens <= 5, 11.0, 2 + 3 * tokens**-0.5)
        fitted = forecast.fit(tokens, losses)
        assert fitted.num_points == 95
        assert fitted.at(200.0)[0] == pytest.approx(2 + 3 * 200**-0.5, rel=0.01)

    def test_a_number_that_rises_without_end_is_told_too(self) -> None:
        fitted = forecast.fit(self.TOKENS, 10 - 8 * self.TOKENS**-0.4, Scale(True, None))
        assert fitted.at(60.0)[0] == pytest.approx(10 - 8 * 60**-0.4, rel=0.02)

    def test_the_same_points_give_the_same_forecast(self) -> None:
        losses = 2 + 3 * self.TOKENS**-0.5 + 0.01 * np.sin(self.TOKENS)
        assert forecast.fit(self.TOKENS, losses).at(60.0) == forecast.fit(self.TOKENS, losses).at(60.0)

    def test_further_ahead_is_less_certain(self) -> None:
        losses = 2 + 3 * self.TOKENS**-0.3 + 0.02 * np.sin(7 * self.TOKENS)
        band = forecast.fit(self.TOKENS, losses).band([31.0, 60.0, 240.0])
        assert np.diff(band.high - band.low).min() > 0

    def test_a_long_curve_is_thinned(self) -> None:
        tokens = np.arange(1.0, 5001.0)
        assert forecast.fit(tokens, 2 + tokens**-0.5).num_points == forecast.MAX_POINTS

    def test_zeros_in_a_row_still_leave_room_for_a_first_right_answer(self) -> None:
        value, low, high = forecast.fit(self.TOKENS, np.zeros(30), Scale(True, 0.0, 1.0), stderr=0.012).at(60.0)
        assert (value, low) == (0.0, 0.0)
        assert high > 0.005


class TestRefusals:
    @pytest.mark.parametrize("number", [0, 1, 4])
    def test_a_few_points_are_no_curve(self, number: int) -> None:
        with pytest.raises(Unforeseeable) as refusal:
            forecast.fit(np.arange(1.0, number + 1), np.ones(number))
        assert refusal.value.reason == TOO_FEW

    def test_nobody_sees_a_hundred_times_as_far(self) -> None:
        tokens = np.arange(1.0, 21.0)
        with pytest.raises(Unforeseeable) as refusal:
            forecast.fit(tokens, 2 + tokens**-0.5).at(2000.0)
        assert refusal.value.reason == TOO_FAR

    def test_a_curve_that_goes_up_and_down_is_not_foretold(self) -> None:
        tokens = np.arange(1.0, 41.0)
        with pytest.raises(Unforeseeable) as refusal:
            forecast.fit(tokens, 3 + np.sin(tokens / 4)).at(160.0)
        assert refusal.value.reason == TOO_VAGUE

    def test_a_flat_curve_is_foretold_as_flat(self) -> None:
        rng = np.random.default_rng(3)
        scores = 0.5 + 0.01 * rng.standard_normal(40)
        value, low, high = forecast.fit(np.arange(1.0, 41.0), scores, SHARE).at(44.0)
        assert value == pytest.approx(0.5, abs=0.01)
        assert low < 0.5 < high

    def test_a_jump_that_an_earlier_fit_did_not_see_widens_the_interval(self) -> None:
        tokens = np.arange(1.0, 41.0)
        losses = 3 + tokens**-0.5 + 0.002 * np.sin(5 * tokens)
        calm = forecast.fit(tokens, losses)
        jumped = forecast.fit(tokens, np.where(tokens > 33, losses + 0.1, losses))
        assert calm.stretch == 1.0
        assert jumped.stretch > 2.0

    def test_positions_must_rise(self) -> None:
        with pytest.raises(ValueError, match="rising order"):
            forecast.fit([1.0, 1.0, 2.0, 3.0, 4.0], [1.0, 1.0, 1.0, 1.0, 1.0])
