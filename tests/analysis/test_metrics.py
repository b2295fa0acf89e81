"""Metrics worked out from stored answers are lm-eval's, item by item, with the interval that fits each."""

import math

import numpy as np
import pytest
from lm_eval.api.metrics import brier_score
from lm_eval.utils import softmax

from analysis.intervals import mean_interval, proportion_interval, ratio_interval, wilson
from analysis.metrics import METRICS, Answers, bits, difference, estimate, item_values

NUM_ITEMS = 300


@pytest.fixture
def answers(rng: np.random.Generator) -> Answers:
    """Items of four choices, with ties among their log-probabilities."""
    size = 4 * NUM_ITEMS
    columns = [rng.integers(low, high, size=size).astype(np.int32) for low, high in ((1, 9), (3, 60), (3, 40))]
    logprobs = rng.integers(-40, -1, size=size) / 2
    targets = rng.integers(0, 4, size=NUM_ITEMS).astype(np.int32)
    return Answers(np.arange(0, size + 1, 4), logprobs, *columns, rng.random(size) < 0.1, targets)


@pytest.fixture
def texts(rng: np.random.Generator) -> Answers:
    """One entry an item and no right choice."""
    sizes = rng.integers(100, 400, size=64).astype(np.int32)
    logprobs = -1.5 * math.log(2) * sizes * rng.uniform(0.8, 1.2, size=64)
    return Answers(np.arange(65), logprobs, sizes // 4, sizes, sizes, rng.random(64) < 0.3, np.full(64, -1, np.int32))


def rows(column: np.ndarray) -> np.ndarray:
    return column.reshape(NUM_ITEMS, 4)


class TestItemValues:
    @pytest.mark.parametrize(
        ("metric", "length"),
        [("acc", None), ("acc_norm", "num_chars"), ("acc_bytes", "num_bytes"), ("acc_per_token", "num_tokens")],
    )
    def test_accuracies_take_the_argmax_of_what_lm_eval_takes(
        self, answers: Answers, metric: str, length: str | None
    ) -> None:
        over = rows(getattr(answers, length)).astype(float) if length else 1.0
        best = np.argmax(rows(answers.sum_logprob) / over, axis=1)
        assert item_values(metric, answers).tolist() == (best == answers.target).astype(float).tolist()

    def test_the_brier_score_is_lm_evals(self, answers: Answers) -> None:
        given = [softmax(item) for item in rows(answers.sum_logprob)]
        expected = brier_score(list(zip(answers.target, given, strict=True)))
        assert item_values("brier_score", answers).mean() == pytest.approx(float(expected), rel=1e-12)

    def test_prob_is_the_softmax_of_the_right_choice(self, answers: Answers) -> None:
        expected = [
            softmax(item)[target] for item, target in zip(rows(answers.sum_logprob), answers.target, strict=True)
        ]
        assert item_values("prob", answers) == pytest.approx(expected, rel=1e-12)

    def test_a_lone_continuation_is_right_where_it_is_the_greedy_one(self, texts: Answers) -> None:
        assert item_values("acc", texts).tolist() == texts.is_greedy.astype(float).tolist()

    def test_items_of_unequal_many_choices_are_one_by_one_the_same(self, answers: Answers) -> None:
        # The second item loses its last choice, which is not the right one.
        target = answers.target.copy()
        target[1] = 0
        keep = np.arange(answers.sum_logprob.size) != 7
        offsets = np.where(answers.offsets > 4, answers.offsets - 1, answers.offsets)
        shorter = Answers(offsets, *(column[keep] for column in answers[1:6]), target)
        whole = answers._replace(target=target)
        for metric in ("acc", "acc_norm", "prob", "brier_score"):
            found, expected = item_values(metric, shorter), item_values(metric, whole)
            assert np.delete(found, 1).tolist() == np.delete(expected, 1).tolist()

    def test_an_unknown_metric_is_refused(self, answers: Answers) -> None:
        with pytest.raises(ValueError, match="no metric 'bleu'"):
            item_values("bleu", answers)

    def test_an_item_without_a_right_choice_is_named(self, answers: Answers) -> None:
        target = answers.target.copy()
        target[5] = -1
        with pytest.raises(ValueError, match="Item 5 has no right choice"):
            item_values("acc", answers._replace(target=target))

    def test_an_empty_choice_has_no_length_to_divide_by(self, answers: Answers) -> None:
        chars = answers.num_chars.copy()
        chars[9] = 0
        with pytest.raises(ValueError, match="Item 2 has a choice without characters"):
            item_values("acc_norm", answers._replace(num_chars=chars))


class TestBits:
    def test_they_are_of_the_right_choice(self, answers: Answers) -> None:
        places = np.arange(NUM_ITEMS) * 4 + answers.target
        assert bits(answers).bits == pytest.approx(-answers.sum_logprob[places] / math.log(2))
        assert bits(answers).num_bytes.tolist() == answers.num_bytes[places].tolist()

    def test_they_are_of_the_whole_text(self, texts: Answers) -> None:
        assert bits(texts).bits == pytest.approx(-texts.sum_logprob / math.log(2))

    def test_an_impossible_answer_is_named(self, texts: Answers) -> None:
        logprobs = texts.sum_logprob.copy()
        logprobs[3] = -math.inf
        with pytest.raises(ValueError, match="Item 3 has an answer that the model takes to be impossible"):
            bits(texts._replace(sum_logprob=logprobs))


class TestEstimate:
    def test_shares_have_wilsons_interval(self, answers: Answers) -> None:
        right = int(item_values("acc_norm", answers).sum())
        assert estimate("acc_norm", answers) == wilson(right, NUM_ITEMS)

    def test_other_means_have_students(self, answers: Answers) -> None:
        assert estimate("brier_score", answers) == mean_interval(item_values("brier_score", answers))

    def test_bits_per_byte_is_a_ratio_of_sums(self, texts: Answers) -> None:
        found = estimate("bits_per_byte", texts)
        assert found == ratio_interval(*bits(texts))
        assert found.value == pytest.approx(1.5, abs=0.05)

    def test_groups_make_it_clustered(self, answers: Answers, texts: Answers) -> None:
        subjects = np.repeat(["law", "art", "sport"], NUM_ITEMS // 3)
        assert estimate("acc", answers, subjects) == proportion_interval(item_values("acc", answers), subjects)
        assert estimate("prob", answers, subjects) == mean_interval(item_values("prob", answers), subjects)
        books = np.repeat(np.arange(8), 8)
        assert estimate("bits_per_byte", texts, books) == ratio_interval(*bits(texts), books)

    def test_every_metric_that_is_named_can_be_worked_out(self, answers: Answers, texts: Answers) -> None:
        assert all(estimate(metric, answers).n == NUM_ITEMS for metric in METRICS["choice"])
        assert all(estimate(metric, texts).n == 64 for kind in ("continuation", "text") for metric in METRICS[kind])

    def test_a_log_probability_that_is_no_number_spoils_the_metric_and_says_where(self, texts: Answers) -> None:
        logprobs = texts.sum_logprob.copy()
        logprobs[40] = math.nan
        with pytest.raises(ValueError, match="Item 40 has a log-probability that is not a number"):
            estimate("bits_per_byte", texts._replace(sum_logprob=logprobs))


class TestDifference:
    def test_it_is_the_difference_of_the_estimates(self, rng: np.random.Generator, answers: Answers) -> None:
        later = answers._replace(sum_logprob=answers.sum_logprob + rng.normal(size=answers.sum_logprob.size))
        for metric in METRICS["choice"]:
            expected = estimate(metric, later).value - estimate(metric, answers).value
            assert difference(metric, answers, later).value == pytest.approx(expected, abs=1e-12)

    def test_a_model_that_learnt_the_right_answers_has_gained(self, answers: Answers) -> None:
        lift = np.zeros(answers.sum_logprob.size)
        lift[np.arange(NUM_ITEMS) * 4 + answers.target] = 6.0
        later = answers._replace(sum_logprob=np.minimum(answers.sum_logprob + lift, -0.5))
        assert difference("acc", answers, later).verdict() == "gain"
        assert difference("bits_per_byte", answers, later).verdict(higher_is_better=False) == "gain"

    def test_texts_of_other_lengths_are_not_the_same_items(self, texts: Answers) -> None:
        with pytest.raises(ValueError, match="same items"):
            difference("bits_per_byte", texts, texts._replace(num_bytes=texts.num_bytes + 1))
