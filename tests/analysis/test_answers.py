"""Broken answers are refused with a sentence that names the item; choices are read as numpy's argmax reads them."""

import numpy as np
import pytest

from analysis.answers import Answers, best_choices, check, probabilities, right_choices


def answers_of(items: list[list[float]], targets: list[int]) -> Answers:
    """Answers with these log-probabilities; every choice is one token of four bytes and two characters."""
    flat = np.array([value for item in items for value in item])
    offsets = np.cumsum([0, *(len(item) for item in items)])
    fours, twos, ones = (np.full(flat.size, number, dtype=np.int32) for number in (4, 2, 1))
    return Answers(offsets, flat, ones, fours, twos, np.zeros(flat.size, bool), np.array(targets, dtype=np.int32))


GOOD = answers_of([[-1.0, -2.0], [-3.0, -1.0, -2.0]], [0, 2])


class TestCheck:
    def test_good_answers_pass(self) -> None:
        check(GOOD)

    @pytest.mark.parametrize("broken", [np.nan, np.inf])
    def test_an_item_with_a_log_probability_that_is_no_number_is_named(self, broken: float) -> None:
        with pytest.raises(ValueError, match=r"^Item 1 has a log-probability that is not a number\.$"):
            check(answers_of([[-1.0, -2.0], [-3.0, broken], [broken, -1.0]], [0, 0, 0]))

    def test_an_item_without_choices_is_named(self) -> None:
        with pytest.raises(ValueError, match="Item 1 has no choices"):
            check(answers_of([[-1.0, -2.0], [], [-1.0, -1.0]], [0, -1, 0]))

    def test_a_right_choice_that_is_not_there_is_named(self) -> None:
        with pytest.raises(ValueError, match="Item 0 has a right choice that is not among its choices"):
            check(answers_of([[-1.0, -2.0]], [2]))

    def test_no_items_are_refused(self) -> None:
        with pytest.raises(ValueError, match="no items"):
            check(answers_of([], []))

    def test_columns_of_other_lengths_are_refused(self) -> None:
        with pytest.raises(ValueError, match="differ in length"):
            check(GOOD._replace(num_bytes=GOOD.num_bytes[1:]))


def test_of_equal_scores_the_first_is_best_as_in_argmax() -> None:
    answers = answers_of([[-2.0, -1.0, -1.0], [-1.0], [-3.0, -3.0]], [0, 0, 0])
    assert best_choices(answers, answers.sum_logprob).tolist() == [1, 3, 4]


def test_the_best_choices_are_argmaxes(rng: np.random.Generator) -> None:
    items = [rng.integers(-5, 0, size=size).astype(float).tolist() for size in rng.integers(1, 6, size=500)]
    answers = answers_of(items, [0] * 500)
    found = best_choices(answers, answers.sum_logprob) - answers.offsets[:-1]
    assert found.tolist() == [int(np.argmax(item)) for item in items]


def test_probabilities_of_an_item_add_up_to_one_however_unlikely_it_is() -> None:
    given = probabilities(answers_of([[-1000.0, -1000.0], [-1.0, -np.inf]], [0, 0]))
    assert given.tolist() == [0.5, 0.5, 1.0, 0.0]


def test_an_item_of_impossible_choices_has_no_probabilities() -> None:
    with pytest.raises(ValueError, match="Item 1 has no choice with a finite log-probability"):
        probabilities(answers_of([[-1.0], [-np.inf, -np.inf]], [0, 0]))


class TestRightChoices:
    def test_they_are_places_in_the_flat_columns(self) -> None:
        assert right_choices(GOOD).tolist() == [0, 4]

    def test_of_a_text_it_is_its_only_entry(self) -> None:
        assert right_choices(answers_of([[-9.0], [-8.0]], [-1, -1])).tolist() == [0, 1]

    def test_several_choices_need_a_right_one(self) -> None:
        with pytest.raises(ValueError, match="Item 0 has several choices"):
            right_choices(answers_of([[-9.0, -8.0]], [-1]))
