"""What a text is made of: its words, how repetitive they are, and what differs between two texts.

A word is a run of letters and digits, one Chinese or Japanese character, or one other sign: Chinese is
written without spaces, and the noise of a young model is largely punctuation.
"""

import re
from collections.abc import Sequence
from difflib import SequenceMatcher
from itertools import pairwise
from typing import Literal, NamedTuple

_SINGLE = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
_UNIT = re.compile(rf"[{_SINGLE}]|[^\W{_SINGLE}]+|\s+|.", re.DOTALL)

Kind = Literal["same", "new", "gone"]


class Marks(NamedTuple):
    """How varied a text is."""

    num_words: int
    num_distinct: int
    repetition: float | None
    """Share of the pairs of neighbouring words that came before in the text; None where there is no pair."""


class Piece(NamedTuple):
    """A stretch that two texts share, or that only one of them has."""

    kind: Kind
    text: str


def units(text: str) -> list[str]:
    """The words of a text and the spaces between them; joined they are the text."""
    return _UNIT.findall(text)


def marks(text: str) -> Marks:
    """Words, distinct words and repetition of a text; capital letters count as small ones.

    Repetition is seq-rep-n of Welleck et al., *Neural Text Generation with Unlikelihood Training* (ICLR 2020),
    1 - distinct n-grams / n-grams, with n = 2 because these answers are short. That young models write short
    repetitive phrases first is what Chang, Tu and Bergen (TACL 2024) observed.
    """
    words = [unit.lower() for unit in units(text) if not unit.isspace()]
    pairs = list(pairwise(words))
    return Marks(len(words), len(set(words)), 1 - len(set(pairs)) / len(pairs) if pairs else None)


def changes(before: str, after: str) -> list[Piece]:
    """What became of a text: `same` and `new` pieces in order are the later text, `same` and `gone` the earlier."""
    one, two = units(before), units(after)
    pieces: list[Piece] = []
    for tag, i1, i2, j1, j2 in SequenceMatcher(None, one, two, autojunk=False).get_opcodes():
        if tag == "equal":
            pieces.append(_piece("same", two[j1:j2]))
            continue
        pieces += [_piece("gone", one[i1:i2])] if i2 > i1 else []
        pieces += [_piece("new", two[j1:j2])] if j2 > j1 else []
    return pieces


def readable(pieces: Sequence[Piece]) -> list[Piece]:
    """The same changes with fewer pieces: a shared stretch no longer than the changes on both sides is chance.

    Between two sentences that have nothing in common a single shared sign would else cut the marks to shreds.
    The rule is the semantic cleanup of Fraser, *Diff Strategies* (2006).
    """
    changed: list[list[str]] = [["", ""]]  # what is gone and what is new before each shared stretch, and after the last
    shared: list[str] = []
    for piece in pieces:
        if piece.kind == "same":
            shared.append(piece.text)
            changed.append(["", ""])
        else:
            changed[-1][piece.kind == "new"] += piece.text
    place = 0
    while place < len(shared):
        sizes = [max(map(len, change)) for change in (changed[place], changed[place + 1])]
        if len(shared[place]) > min(sizes):
            place += 1
            continue
        text, after = shared.pop(place), changed.pop(place + 1)
        changed[place] = [one + text + other for one, other in zip(changed[place], after, strict=True)]
        place = max(0, place - 1)  # the change before is larger now
    found: list[Piece] = []
    for number, (gone, new) in enumerate(changed):
        found += [Piece("gone", gone)] if gone else []
        found += [Piece("new", new)] if new else []
        found += [Piece("same", shared[number])] if number < len(shared) else []
    return found


def _piece(kind: Kind, words: Sequence[str]) -> Piece:
    return Piece(kind, "".join(words))
