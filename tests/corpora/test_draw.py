"""Chance that depends on content alone."""

from collections import Counter

from corpora.draw import pick, rank


def test_a_rank_is_the_same_in_every_version() -> None:
    assert rank("a", "床前明月光")[:16] == "07ca9116ad54ad8c"


def test_parts_are_not_run_together() -> None:
    assert rank("ab", "c") != rank("a", "bc")


def test_text_that_is_not_valid_unicode_has_a_rank_too() -> None:
    assert len(rank("\udc80")) == 64


def test_every_number_is_drawn_about_as_often() -> None:
    drawn = Counter(pick(4, "item", str(number)) for number in range(4000))
    assert set(drawn) == {0, 1, 2, 3}
    assert max(drawn.values()) < 1150
