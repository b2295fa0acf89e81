"""Words, repetition and differences of texts in several scripts."""

import pytest

from analysis import wording
from analysis.wording import Piece

TEXTS = (
    "",
    "To be, or not\n  to be",
    "第一条　为了ABC保护",
    "def f(a):\n\treturn a_1 + 2",
    "的的的的，，的的",
    "e\u0301\ufffd🙂",
)


@pytest.mark.parametrize("text", TEXTS)
def test_nothing_is_lost_between_the_words(text: str) -> None:
    assert "".join(wording.units(text)) == text


def test_a_chinese_character_is_a_word_and_so_is_a_run_of_letters() -> None:
    assert wording.units("保护ABC, x_1") == ["保", "护", "ABC", ",", " ", "x_1"]


@pytest.mark.parametrize(
    ("text", "num_words", "num_distinct", "repetition"),
    [
        ("", 0, 0, None),
        ("word", 1, 1, None),
        ("a b c d", 4, 4, 0.0),
        ("The the THE the the", 5, 1, 0.75),
        ("的的的的的", 5, 1, 0.75),
        ("a b a b a b", 6, 2, 1 - 2 / 5),
    ],
)
def test_marks(text: str, num_words: int, num_distinct: int, repetition: float | None) -> None:
    found = wording.marks(text)
    assert (found.num_words, found.num_distinct) == (num_words, num_distinct)
    assert found.repetition == (None if repetition is None else pytest.approx(repetition))


def test_what_became_of_a_text() -> None:
    assert wording.changes("the the king", "the old king sat") == [
        Piece("same", "the "),
        Piece("gone", "the"),
        Piece("new", "old"),
        Piece("same", " king"),
        Piece("new", " sat"),
    ]


@pytest.mark.parametrize("before", TEXTS)
@pytest.mark.parametrize("after", TEXTS)
def test_both_texts_can_be_read_from_the_pieces(before: str, after: str) -> None:
    pieces = wording.changes(before, after)
    assert "".join(piece.text for piece in pieces if piece.kind != "gone") == after
    assert "".join(piece.text for piece in pieces if piece.kind != "new") == before


def test_a_sign_that_two_sentences_share_by_chance_is_no_common_ground() -> None:
    found = wording.readable(wording.changes("规定的，应当依照本法", "保护公民，制定本法律。"))
    assert found == [Piece("gone", "规定的，应当依照本法"), Piece("new", "保护公民，制定本法律。")]


def test_what_is_really_shared_stays() -> None:
    pieces = wording.changes("the old king sat down", "the young king sat up")
    assert wording.readable(pieces) == pieces


@pytest.mark.parametrize(
    ("before", "after"), [("", ""), ("a", ""), ("", "b c"), ("a b c d", "x b y d z"), ("一二三", "二三四")]
)
def test_nothing_is_lost_by_it(before: str, after: str) -> None:
    pieces = wording.readable(wording.changes(before, after))
    assert "".join(piece.text for piece in pieces if piece.kind != "new") == before
    assert "".join(piece.text for piece in pieces if piece.kind != "gone") == after
