"""Verdicts are rarely wrong when nothing changed, and seldom miss a real change."""

import math
from collections.abc import Sequence

import numpy as np
import pytest
from statsmodels.stats.contingency_tables import mcnemar

from analysis.compare import (
    Change,
    Difference,
    corrected_p_values,
    paired_difference,
    paired_ratio_difference,
    unpaired_change,
    unpaired_interval,
    verdict,
    verdicts,
)
from analysis.intervals import Estimate, mean_interval, wilson

NUM_TRIALS = 2000
TOLERANCE = 0.015
SLACK = 0.012
"""2.5 standard errors of a share of 5% in 2,000 trials."""

GROUPS = np.repeat(np.arange(40), 4)


def share_wrong(verdicts: Sequence[str]) -> float:
    return sum(found != "within noise" for found in verdicts) / len(verdicts)


def covered(found: Sequence[Difference], truths: Sequence[float]) -> float:
    return float(np.mean([one.low <= truth <= one.high for one, truth in zip(found, truths, strict=True)]))


def answer_pair(rng: np.random.Generator, n: int, gained: float, lost: float) -> tuple[np.ndarray, np.ndarray]:
    """Answers of two checkpoints to `n` items, of which these shares were learnt and forgotten."""
    drawn = rng.random(n)
    right_before = rng.random(n) < 0.5
    is_gain, is_loss = drawn < gained, (drawn >= gained) & (drawn < gained + lost)
    before = np.where(is_gain, False, np.where(is_loss, True, right_before))
    after = np.where(is_gain, True, np.where(is_loss, False, right_before))
    return before.astype(float), after.astype(float)


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
        assert unpaired_change(Bare(), wilson(1, 100)).p_value is None

    def test_a_share_of_zero_lends_the_error_of_the_other(self) -> None:
        assert verdict(wilson(0, 20), wilson(1, 20)) == "within noise"

    @pytest.mark.parametrize("share", [0.25, 0.5])
    def test_it_is_wrong_at_most_5_times_in_100_when_nothing_changed(
        self, rng: np.random.Generator, share: float
    ) -> None:
        drawn = rng.binomial(200, share, size=(NUM_TRIALS, 2))
        found: list[str] = [verdict(wilson(int(one), 200), wilson(int(two), 200)) for one, two in drawn]
        assert share_wrong(found) <= 0.05 + SLACK


class TestPairedDifference:
    def test_its_p_value_is_statsmodels_exact_one(self, rng: np.random.Generator) -> None:
        before, after = answer_pair(rng, 160, 0.15, 0.08)
        table = [[np.sum((before == one) & (after == two)) for two in (1, 0)] for one in (1, 0)]
        assert paired_difference(before, after).p_value == pytest.approx(mcnemar(table, exact=True).pvalue)

    @pytest.mark.parametrize("n", [50, 160, 500])
    def test_its_interval_covers_the_change_of_right_answers_95_times_in_100(
        self, rng: np.random.Generator, n: int
    ) -> None:
        gained, lost = rng.uniform(0.05, 0.3, size=(2, NUM_TRIALS))
        found = [paired_difference(*answer_pair(rng, n, up, down)) for up, down in zip(gained, lost, strict=True)]
        assert covered(found, (gained - lost).tolist()) == pytest.approx(0.95, abs=TOLERANCE)

    def test_its_interval_covers_the_change_of_other_numbers_95_times_in_100(self, rng: np.random.Generator) -> None:
        hardness = rng.beta(2, 3, size=(NUM_TRIALS, 100))
        after = hardness + rng.normal(0.03, 0.1, size=hardness.shape)
        found = [paired_difference(one, two) for one, two in zip(hardness, after, strict=True)]
        assert covered(found, [0.03] * NUM_TRIALS) == pytest.approx(0.95, abs=TOLERANCE)

    def test_its_interval_covers_the_change_where_items_go_together(self, rng: np.random.Generator) -> None:
        shared = rng.normal(0.03, 0.1, size=(NUM_TRIALS, 40))[:, GROUPS]
        after = shared + rng.normal(0, 0.1, size=shared.shape)
        nothing = np.zeros(GROUPS.size)
        found = [paired_difference(nothing, values, GROUPS) for values in after]
        assert covered(found, [0.03] * NUM_TRIALS) == pytest.approx(0.95, abs=TOLERANCE)
        assert covered([paired_difference(nothing, values) for values in after], [0.03] * NUM_TRIALS) < 0.85

    def test_its_interval_covers_the_change_of_right_answers_where_items_go_together(
        self, rng: np.random.Generator
    ) -> None:
        found = [paired_difference(*swinging_answers(rng), GROUPS) for _ in range(NUM_TRIALS)]
        assert covered(found, [0.0] * NUM_TRIALS) == pytest.approx(0.95, abs=TOLERANCE)
        assert share_wrong([one.verdict() for one in found]) <= 0.05

    def test_it_is_wrong_at_most_5_times_in_100_for_right_or_wrong_answers(self, rng: np.random.Generator) -> None:
        hardness = rng.random((NUM_TRIALS, 160))
        before, after = (rng.random((NUM_TRIALS, 160)) < hardness for _ in range(2))
        found: list[str] = [paired_difference(one, two).verdict() for one, two in zip(before, after, strict=True)]
        assert share_wrong(found) <= 0.05

    def test_it_is_wrong_at_most_5_times_in_100_for_other_numbers(self, rng: np.random.Generator) -> None:
        before, after = rng.gamma(2.0, size=(2, NUM_TRIALS, 100))
        found: list[str] = [paired_difference(one, two).verdict() for one, two in zip(before, after, strict=True)]
        assert share_wrong(found) <= 0.05 + SLACK

    def test_it_sees_a_change_that_two_error_bars_hide(self, rng: np.random.Generator) -> None:
        hardness = rng.normal(0.4, 0.2, size=160)
        before, after = hardness, hardness + rng.normal(0.02, 0.02, size=160)
        assert verdict(mean_interval(before), mean_interval(after)) == "within noise"
        assert paired_difference(before, after).verdict() == "gain"

    def test_equal_answers_are_no_difference_but_leave_room_for_one(self) -> None:
        found = paired_difference([1, 0, 1], [1, 0, 1])
        assert (found.value, found.p_value, found.verdict()) == (0.0, 1.0, "within noise")
        assert found.low < 0 < found.high

    def test_a_gain_in_one_subject_alone_is_no_proof(self) -> None:
        groups = np.repeat(np.arange(8), 20)
        after = (groups == 3).astype(float)
        assert paired_difference(np.zeros(160), after).verdict() == "gain"
        assert paired_difference(np.zeros(160), after, groups).verdict() == "within noise"

    def test_a_single_item_says_nothing(self) -> None:
        assert paired_difference([0.2], [0.9]).verdict() == "within noise"
        assert paired_difference([0.0], [1.0], ["law"])[2:5] == (-1.0, 1.0, 1.0)

    def test_other_items_are_refused(self) -> None:
        with pytest.raises(ValueError, match="same items"):
            paired_difference([1.0], [1.0, 2.0])


def swinging_answers(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Two checkpoints of the same ability, each better in some groups of items: correlation 0.2 within a group."""
    upward = rng.beta(2.0, 2.0, size=40)[GROUPS]
    has_changed, is_gain = rng.random(160) < 0.4, rng.random(160) < upward
    right_before = rng.random(160) < 0.5
    before = np.where(has_changed, ~is_gain, right_before)
    return before.astype(float), np.where(has_changed, is_gain, right_before).astype(float)


class TestPairedRatioDifference:
    def test_it_is_the_change_of_the_ratio(self) -> None:
        sizes = np.array([100.0, 300.0, 250.0])
        found = paired_ratio_difference(2.5 * sizes, 2.0 * sizes, sizes)
        assert found.value == pytest.approx(-0.5)
        assert found.verdict(higher_is_better=False) == "gain"

    @pytest.mark.parametrize("groups", [None, GROUPS], ids=["documents alone", "documents in groups"])
    def test_its_interval_covers_the_change_95_times_in_100(
        self, rng: np.random.Generator, groups: np.ndarray | None
    ) -> None:
        sizes = rng.lognormal(6, 0.5, size=(NUM_TRIALS, 160))
        shift = 0.0 if groups is None else 0.03 * rng.standard_normal((NUM_TRIALS, 40))[:, GROUPS]
        before = sizes * rng.normal(2.2, 0.4, size=sizes.shape)
        after = before + sizes * (shift - 0.02 + 0.05 * rng.standard_normal(sizes.shape))
        found = [
            paired_ratio_difference(one, two, size, groups) for one, two, size in zip(before, after, sizes, strict=True)
        ]
        assert covered(found, [-0.02] * NUM_TRIALS) == pytest.approx(0.95, abs=TOLERANCE)

    def test_it_needs_a_size_for_each_item(self) -> None:
        with pytest.raises(ValueError, match="as many denominators"):
            paired_ratio_difference([1.0, 2.0], [1.0, 2.0], [1.0])


class TestVerdicts:
    def test_they_are_the_corrected_ones_of_benjamini_and_hochberg(self) -> None:
        # Their thresholds at 5% for four tasks are 0.0125, 0.025, 0.0375 and 0.05.
        changes = [Change(0.1, 0.02), Change(-0.1, 0.001), Change(0.1, 0.04), Change(0.1, 0.6)]
        assert verdicts(changes) == ["gain", "loss", "within noise", "within noise"]

    def test_one_task_alone_is_not_corrected(self) -> None:
        assert verdicts([Change(0.1, 0.04)]) == ["gain"]

    def test_fewer_bits_per_byte_are_a_gain(self) -> None:
        assert verdicts([Change(-0.1, 0.001, higher_is_better=False)]) == ["gain"]

    def test_tasks_that_cannot_be_tested_do_not_count(self) -> None:
        changes = [Change(0.1, 0.04), Change(0.2, None), Change(0.2, math.nan)]
        assert verdicts(changes) == ["gain", "within noise", "within noise"]

    def test_no_tasks_have_no_verdicts(self) -> None:
        assert verdicts([]) == []

    @pytest.mark.parametrize(("num_tasks", "num_pairs"), [(11, 400), (60, 80)])
    def test_a_pair_of_checkpoints_that_did_not_change_seldom_has_any_verdict(
        self, rng: np.random.Generator, num_tasks: int, num_pairs: int
    ) -> None:
        families = [family(rng, num_tasks) for _ in range(num_pairs)]
        found = [verdicts(changes) for changes in families]
        assert share_wrong([word for words in found for word in words]) <= 0.05
        any_claimed = np.mean([share_wrong(words) > 0 for words in found])
        assert any_claimed <= 0.05 + 2.5 * math.sqrt(0.05 * 0.95 / num_pairs)
        # Without the correction most pairs would show a change somewhere.
        uncorrected = np.mean([min(change.p_value or 1.0 for change in changes) < 0.05 for changes in families])
        assert uncorrected > 0.25

    def test_they_find_what_did_change(self, rng: np.random.Generator) -> None:
        found = [verdicts(family(rng, 11, improved=3)) for _ in range(100)]
        assert np.mean([words[0] == "gain" for words in found]) > 0.8
        claims = [(place, word) for words in found for place, word in enumerate(words) if word != "within noise"]
        assert np.mean([place >= 3 for place, _ in claims]) <= 0.05
        assert all(word == "gain" for place, word in claims if place < 3)


def family(rng: np.random.Generator, num_tasks: int, improved: int = 0) -> list[Change]:
    """One pair of checkpoints over tasks of 160 items, three tasks to the same items, as cloze and letter forms are.

    The last of three is bits per byte. Both checkpoints are equally able, but for the first `improved` tasks.
    """
    changes: list[Change] = []
    for place in range(num_tasks):
        if place % 3 == 0:
            hardness = rng.normal(size=160)
            luck = rng.normal(scale=0.5, size=(2, 160))
        lift = np.array([[0.0], [0.5 if place < improved else 0.0]])
        ability = lift - hardness + luck + rng.normal(scale=0.3, size=(2, 160))
        if place % 3 == 2:
            sizes = rng.integers(20, 200, size=160).astype(float)
            before, after = sizes * (1.5 - 0.3 * ability)
            found = paired_ratio_difference(before, after, sizes)
        else:
            found = paired_difference(*(ability > 0).astype(float))
        changes.append(found.change(higher_is_better=place % 3 != 2))
    return changes


class TestCorrectedPValues:
    def test_each_is_as_large_as_the_level_at_which_its_change_would_be_claimed(self) -> None:
        changes = [Change(0.1, p) for p in (0.001, 0.02, 0.04, 0.5)]
        assert corrected_p_values(changes) == pytest.approx([0.004, 0.04, 0.04 * 4 / 3, 0.5])
        words = verdicts(changes)
        assert [word == "gain" for word in words] == [p is not None and p <= 0.05 for p in corrected_p_values(changes)]

    def test_what_cannot_be_tested_has_none_and_does_not_count(self) -> None:
        assert corrected_p_values([Change(0.1, None), Change(0.1, 0.03)]) == [None, pytest.approx(0.03)]
        assert corrected_p_values([]) == []


class TestUnpairedInterval:
    def test_it_is_as_wide_as_both_errors_together(self) -> None:
        low, high = unpaired_interval(Estimate(0.3, 0.03, 0, 1, 9), Estimate(0.4, 0.04, 0, 1, 9)) or (0, 0)
        assert (low, high) == (pytest.approx(0.1 - 1.96 * 0.05, abs=1e-4), pytest.approx(0.1 + 1.96 * 0.05, abs=1e-4))

    def test_the_error_of_the_other_stands_in_where_every_answer_is_wrong(self) -> None:
        none, some = Estimate(0.0, 0.0, 0, 1, 9), Estimate(0.4, 0.04, 0, 1, 9)
        assert unpaired_interval(none, some) == unpaired_interval(Estimate(0.0, 0.04, 0, 1, 9), some)

    def test_without_an_error_nobody_knows(self) -> None:
        class Bare:
            value, stderr = 0.3, None

        assert unpaired_interval(Bare(), Estimate(0.4, 0.04, 0, 1, 9)) is None
