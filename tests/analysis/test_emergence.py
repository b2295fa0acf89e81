"""A jump of a curve: whether it is there, and whether a continuous metric shows it too."""

import numpy as np
import pytest

from analysis.emergence import largest_jump, microscope

NO_ERROR = np.full(8, 0.01)
LEAP = [0.25, 0.25, 0.26, 0.25, 0.8, 0.81, 0.82, 0.82]
RAMP = np.linspace(0.1, 0.8, 8)


class TestLargestJump:
    def test_it_is_the_step_with_the_largest_rise(self) -> None:
        jump = largest_jump(LEAP, NO_ERROR)
        assert jump is not None
        assert jump.at == 4
        assert jump.size == pytest.approx(0.55)
        assert jump.share == pytest.approx(0.55 / 0.57)

    def test_a_step_within_its_error_is_none(self) -> None:
        assert largest_jump(LEAP, np.full(8, 0.5)) is None

    def test_a_falling_curve_has_none(self) -> None:
        assert largest_jump(LEAP[::-1], NO_ERROR) is None

    def test_an_unknown_error_counts_as_none_at_all(self) -> None:
        assert largest_jump(LEAP, np.full(8, np.nan)) is not None


class TestMicroscope:
    def test_a_leap_over_a_ramp_is_made_by_the_threshold(self) -> None:
        found = microscope(LEAP, NO_ERROR, RAMP)
        assert found.finding == "threshold only"
        assert found.continuous_share == pytest.approx(1 / 7)

    def test_a_leap_of_both_is_in_the_answers(self) -> None:
        assert microscope(LEAP, NO_ERROR, LEAP).finding == "everywhere"

    def test_a_power_of_a_smooth_probability_leaps_where_the_probability_does_not(self) -> None:
        # Schaeffer et al. (2023), section 2: exact match of L tokens goes as p^L.
        tokens = np.linspace(0, 1, 8)
        p = 0.2 + 0.79 * tokens
        assert microscope(p**60, np.full(8, 0.001), p).finding == "threshold only"

    def test_a_ramp_is_gradual(self) -> None:
        assert microscope(RAMP, NO_ERROR, RAMP).finding == "gradual"

    def test_a_rise_too_small_for_any_single_step_is_gradual(self) -> None:
        assert microscope(RAMP, np.full(8, 0.2), RAMP).finding == "gradual"

    def test_noise_around_a_level_is_no_rise(self) -> None:
        flat = [0.25, 0.27, 0.24, 0.26, 0.25, 0.25, 0.26, 0.25]
        assert microscope(flat, np.full(8, 0.02), RAMP).finding == "no rise"

    def test_few_checkpoints_say_nothing(self) -> None:
        assert microscope([0.2, 0.9], [0.01, 0.01], [0.2, 0.3]).finding == "too few points"

    def test_a_continuous_metric_that_never_moves_has_no_share(self) -> None:
        assert microscope(LEAP, NO_ERROR, np.zeros(8)).continuous_share == 0.0

    def test_arrays_of_two_lengths_are_refused(self) -> None:
        with pytest.raises(ValueError, match="every checkpoint"):
            microscope(LEAP, NO_ERROR, RAMP[:-1])
