"""What became of an item is told from its row of right and wrong answers, luck and slips allowed for."""

import time

import numpy as np
import pytest

from analysis.ledger import (
    BLOCK,
    MANY,
    NEVER,
    STATES,
    Histories,
    Numbers,
    Patience,
    by_age,
    halfway,
    histories,
    patience,
)

ANSWERS = {"✓": 1.0, "✗": 0.0, " ": np.nan}


def rows(*written: str) -> Numbers:
    """Rows of right (✓), wrong (✗) and missing ( ) answers."""
    return np.array([[ANSWERS[mark] for mark in row] for row in written])


def of(row: str, chance: float | None = 0.25) -> Histories:
    return histories(rows(row), chance)


def state(row: str, chance: float | None = 0.25) -> str:
    return STATES[of(row, chance).state[0]]


class TestPatience:
    def test_it_takes_longer_where_guessing_is_easy(self) -> None:
        assert [patience(12, chance).right for chance in (None, 0.0, 0.25, 0.5)] == [1, 1, 4, 7]

    def test_and_longer_where_there_are_more_occasions_to_be_lucky(self) -> None:
        assert [patience(number, 0.25).right for number in (1, 12, 100, 1000)] == [3, 4, 6, 7]

    def test_slips_are_the_same_whatever_the_choices(self) -> None:
        assert patience(12, None).wrong == patience(12, 0.5).wrong == 3

    def test_a_chance_that_makes_no_sense_ends_too(self) -> None:
        assert patience(10, 1.0).right > 10
        assert patience(0, -1.0) == Patience(1, 2)

    def test_guessing_passes_for_knowledge_in_no_more_than_one_item_of_twenty(self, rng: np.random.Generator) -> None:
        guesses = (rng.random((4000, 60)) < 0.25).astype(float)
        assert np.mean(histories(guesses, 0.25).state != NEVER) < 0.05


class TestStates:
    @pytest.mark.parametrize(
        ("row", "expected"),
        [
            ("✗✗✗✗✗✗✗✗✗✗✗✗", "never"),
            ("✗✓✗✗✗✗✗✗✓✗✗✗", "never"),
            ("✗✗✗✗✓✓✓✓✓✓✓✓", "learned"),
            ("✓✓✓✓✓✓✓✓✓✓✓✓", "learned"),
            ("✗✗✗✗✓✓✓✓✓✗✓✓", "learned"),
            ("✗✗✓✓✓✓✓✗✗✗✗✗", "forgotten"),
            ("✓✓✓✓✓✗✗✗✓✓✓✓", "relearned"),
            ("✓✓✓✓✗✗✗✓✓✓✓✗✗✗", "flickering"),
            ("✓✓✓✓✗✗✓✗✗✓✗✓", "flickering"),
        ],
    )
    def test_a_row_has_one(self, row: str, expected: str) -> None:
        assert state(row) == expected

    def test_luck_at_one_early_checkpoint_is_no_knowledge(self) -> None:
        found = of("✓✗✗✗✗✗✗✗✓✓✓✓✓✓")
        assert STATES[found.state[0]] == "learned"
        assert found.acquired[0] == 8

    def test_a_free_answer_is_no_luck(self) -> None:
        found = of("✗✓✗✓✓✓✓✓✓✓✓✓", None)
        assert (STATES[found.state[0]], found.acquired[0]) == ("learned", 1)

    def test_what_is_missing_is_passed_over(self) -> None:
        found = of("✗✗ ✓ ✓✓ ✓✓✓ ✓")
        assert (STATES[found.state[0]], found.acquired[0]) == ("learned", 3)

    def test_one_checkpoint_says_nothing_where_there_is_something_to_guess(self) -> None:
        assert state("✓") == "never"
        assert state("✓", None) == "learned"

    def test_no_answers_no_items_no_checkpoints(self) -> None:
        assert STATES[histories(rows("     "), 0.25).state[0]] == "never"
        assert len(histories(np.zeros((0, 5)), 0.25).state) == 0
        empty = histories(np.zeros((3, 0)), 0.25)
        assert empty.state.tolist() == [NEVER] * 3
        assert empty.acquired.tolist() == [-1] * 3
        assert np.isnan(empty.share_right).all()

    def test_right_is_what_reaches_the_threshold(self) -> None:
        assert STATES[histories(np.full((1, 6), 0.6), None).state[0]] == "learned"
        assert STATES[histories(np.full((1, 6), 0.6), None, threshold=0.999).state[0]] == "never"


class TestNumbers:
    def test_the_age_is_where_the_run_of_right_answers_began(self) -> None:
        assert of("✗✗✓✓✓✓✓✓✓✓✓✓").acquired[0] == 2

    def test_what_was_always_right_is_marked(self) -> None:
        found = histories(rows("✓✓✓✓✓✓✓✓", " ✓✓✓✓✓✓✓", "✗✓✓✓✓✓✓✓"), 0.25)
        assert found.from_start.tolist() == [True, True, False]
        assert found.acquired.tolist() == [0, 1, 1]

    def test_forgettability_is_the_share_of_wrong_answers_since(self) -> None:
        found = histories(rows("✗✗✓✓✓✓✓✓✓✓✓✓", "✗✗✓✓✓✓✓✗✗✗✗✗", "✗✗✗✗✗✗✗✗✗✗✗✗"), 0.25)
        assert found.forgettability[:2] == pytest.approx([0, 5 / 9])
        assert np.isnan(found.forgettability[2])

    def test_what_was_learned_last_has_not_been_forgotten(self) -> None:
        assert of("✗✗✓", None).forgettability[0] == 0

    def test_forgetting_events_are_right_answers_followed_by_wrong_ones(self) -> None:
        found = histories(rows("✓✗✓✗✓✗", "✓ ✗✗ ✓", "✗✗✗✓✓✓", "      "), 0.25)
        assert found.forgetting_events.tolist() == [3, 1, 0, 0]

    def test_the_share_of_right_answers_leaves_out_what_is_missing(self) -> None:
        assert of("✓✗ ✓  ✓").share_right[0] == pytest.approx(0.75)

    @pytest.mark.parametrize("num_items", [1, BLOCK - 1, BLOCK, BLOCK + 1, 2 * BLOCK + 3])
    def test_an_item_does_not_depend_on_its_neighbours(self, rng: np.random.Generator, num_items: int) -> None:
        values = np.where(rng.random((num_items, 40)) < 0.1, np.nan, (rng.random((num_items, 40)) < 0.7).astype(float))
        together = histories(values, 0.25)
        for item in {0, num_items // 2, num_items - 1}:
            alone = histories(values[item : item + 1], 0.25)
            for one, many in zip(alone, together, strict=True):
                assert np.array_equal(one[0], many[item], equal_nan=one.dtype.kind == "f")

    def test_it_agrees_with_counting_by_hand(self, rng: np.random.Generator) -> None:
        for _ in range(300):
            length = int(rng.integers(1, 30))
            row = rng.choice([0.0, 1.0, np.nan], size=length, p=[0.35, 0.5, 0.15])
            chance = [None, 0.25, 0.5][int(rng.integers(3))]
            found = histories(row[None], chance)
            expected = _by_hand(row, patience(length, chance))
            assert (int(found.acquired[0]), int(found.forgetting_events[0])) == expected[1:]
            if STATES[found.state[0]] != "flickering":
                assert STATES[found.state[0]] == expected[0]

    def test_more_checkpoints_than_sixteen_bits_count(self) -> None:
        values = np.zeros((2, MANY + 2000), dtype=np.float32)
        values[0, MANY + 1000 :] = 1
        found = histories(values, 0.25)
        assert found.acquired.tolist() == [MANY + 1000, -1]

    def test_a_million_answers_take_a_moment(self, rng: np.random.Generator) -> None:
        values = (rng.random((1000, 1000)) < np.linspace(0.2, 0.95, 1000)).astype(np.float32)
        took = []
        for _ in range(3):
            began = time.process_time()
            histories(values, 0.25)
            took.append(time.process_time() - began)
        assert min(took) < 0.15


def _by_hand(row: Numbers, needed: Patience) -> tuple[str, int, int]:
    is_known, turns, acquired, events = False, 0, -1, 0
    streak: list[int] = []
    last: float | None = None
    for place, value in enumerate(row.tolist()):
        if np.isnan(value):
            continue
        events += last == 1 and value == 0
        streak = [*streak, place] if value == last else [place]
        last = value
        if value == 1 and not is_known and len(streak) >= needed.right:
            is_known, turns = True, turns + 1
            acquired = streak[0] if acquired < 0 else acquired
        if value == 0 and is_known and len(streak) >= needed.wrong:
            is_known, turns = False, turns + 1
    return {0: "never", 1: "learned", 2: "forgotten", 3: "relearned"}.get(turns, "flickering"), acquired, events


class TestOrder:
    def test_the_earliest_stand_first_and_the_never_learned_last(self) -> None:
        assert by_age(np.array([-1, 5, 0, -1]), np.array([0.4, 0.5, 0.9, 0.6])).tolist() == [2, 1, 3, 0]

    def test_of_the_same_age_the_one_that_is_right_more_often_then_as_they_come(self) -> None:
        assert by_age(np.array([3, 3, 3]), np.array([0.5, 0.9, 0.5])).tolist() == [1, 0, 2]

    def test_shares_that_nobody_knows_come_last(self) -> None:
        assert by_age(np.array([-1, -1]), np.array([np.nan, 0.1])).tolist() == [1, 0]


class TestHalfway:
    def test_it_is_where_half_of_the_way_to_the_best_is_made(self) -> None:
        curves = np.array([[0.1, 0.2, 0.6, 0.9, 0.9], [0.5, 0.5, 0.5, 0.5, 0.5], [0.9, 0.7, 0.5, 0.3, 0.1]])
        assert halfway(curves).tolist() == [2, -1, -1]

    def test_missing_values_are_passed_over(self) -> None:
        assert halfway(np.array([[np.nan, 0.1, np.nan, 0.9], [np.nan] * 4])).tolist() == [3, -1]

    def test_a_single_high_value_among_many_is_smoothed(self) -> None:
        curve = np.linspace(0.1, 0.9, 100)
        curve[3] = 0.8
        assert 40 < halfway(curve[None])[0] < 60

    def test_nothing(self) -> None:
        assert halfway(np.zeros((0, 4))).tolist() == []
        assert halfway(np.zeros((2, 0))).tolist() == [-1, -1]
