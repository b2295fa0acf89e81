"""One word for a task: what is measured, and which rule decides."""

import math

import numpy as np
import pytest

from analysis import quality
from analysis.intervals import Estimate, wilson
from analysis.quality import Facts

GOOD = Facts(
    num_checkpoints=20,
    newest=wilson(60, 100),
    growth_to_noise=12.0,
    monotonicity=0.9,
    chance_distance=7.0,
    smallest_change=0.05,
    room=0.4,
)


class TestVerdict:
    @pytest.mark.parametrize(
        ("changed", "word"),
        [
            ({}, "worth it"),
            ({"num_checkpoints": 4}, "too few"),
            ({"room": 0.04}, "saturated"),
            ({"chance_distance": 2.9}, "too early"),
            ({"monotonicity": -0.6}, "backwards"),
            ({"monotonicity": -0.6, "growth_to_noise": 3.0}, "too noisy"),
            ({"monotonicity": 0.49}, "too noisy"),
            ({"growth_to_noise": 4.9}, "too noisy"),
        ],
    )
    def test_each_rule(self, changed: dict[str, float], word: str) -> None:
        assert quality.verdict(GOOD._replace(**changed)) == word  # type: ignore[arg-type]

    def test_the_first_rule_that_applies_decides(self) -> None:
        assert quality.verdict(GOOD._replace(num_checkpoints=1, room=0.0, chance_distance=0.0)) == "too few"
        assert quality.verdict(GOOD._replace(chance_distance=0.0, monotonicity=0.0)) == "too early"

    def test_a_metric_without_guessing_or_ceiling_is_judged_by_its_curve(self) -> None:
        assert quality.verdict(GOOD._replace(chance_distance=None, room=None, smallest_change=None)) == "worth it"

    def test_every_word_can_be_said(self) -> None:
        assert set(quality.WORDS) == {"worth it", "too few", "saturated", "too early", "backwards", "too noisy"}


class TestFacts:
    def test_a_steady_curve_stands_out(self) -> None:
        steps = np.arange(1.0, 21.0)
        scores = 0.3 + 0.02 * steps + 0.003 * np.sin(9 * steps)
        found = quality.facts(steps, scores, wilson(140, 200), chance=0.25, ceiling=1.0, smallest_change=0.05)
        assert found.growth_to_noise is not None
        assert found.growth_to_noise > 50
        assert found.monotonicity == pytest.approx(1.0)
        assert found.chance_distance == pytest.approx((0.7 - 0.25) / wilson(140, 200).stderr)
        assert found.room == pytest.approx(0.3)
        assert quality.verdict(found) == "worth it"

    def test_a_curve_at_chance_is_too_early(self) -> None:
        scores = 0.25 + 0.01 * np.sin(np.arange(20.0) ** 2)
        found = quality.facts(np.arange(20.0), scores, wilson(52, 200), chance=0.25, ceiling=1.0)
        assert quality.verdict(found) == "too early"

    def test_a_falling_loss_improves(self) -> None:
        steps = np.arange(1.0, 21.0)
        newest = Estimate(2.2, 0.05, 2.1, 2.3, 120)
        found = quality.facts(steps, 2 + 3 / steps, newest, higher_is_better=False)
        assert found.monotonicity == pytest.approx(1.0)
        assert (found.chance_distance, found.room) == (None, None)

    def test_nothing_measured_is_too_few(self) -> None:
        assert quality.verdict(quality.facts([], [], None)) == "too few"


class TestSmallestChange:
    def test_measured_changes_come_first(self) -> None:
        found = quality.smallest_change([0.02, 0.02], wilson(60, 100), is_share=True)
        assert found == pytest.approx((1.96 + 0.8416) * 0.02, rel=1e-3)

    def test_else_the_number_of_items_tells(self) -> None:
        few, many = (quality.smallest_change([], wilson(n // 2, n), is_share=True) for n in (100, 1000))
        assert few is not None
        assert many is not None
        assert few > many > 0

    def test_it_is_not_known_for_other_numbers_or_none(self) -> None:
        assert quality.smallest_change([], Estimate(2.2, 0.05, 2.1, 2.3, 120), is_share=False) is None
        assert quality.smallest_change([], None, is_share=True) is None
        assert quality.smallest_change([0.0], wilson(0, 10), is_share=True) is None


class TestClearest:
    def test_it_is_the_steady_metric_with_the_least_noise(self) -> None:
        found = {"acc": (8.0, 0.9), "prob": (20.0, 0.9), "brier_score": (99.0, 0.1)}
        assert quality.clearest(found) == "prob"

    def test_none_where_none_is_steady(self) -> None:
        assert quality.clearest({"acc": (8.0, 0.2), "prob": (None, None)}) is None

    def test_a_curve_without_noise_is_the_clearest(self) -> None:
        assert quality.clearest({"acc": (8.0, 0.9), "prob": (math.inf, 1.0)}) == "prob"
