"""The text of a notebook: what the person wrote and what the model went on with, in the order of the text."""

from collections.abc import Sequence
from dataclasses import dataclass

from registry.models import Turn
from server import probabilities
from server.probabilities import Token


@dataclass(frozen=True)
class Piece:
    """A stretch of the text by one hand."""

    text: str
    tokens: Sequence[Token] = ()
    is_model: bool = False


def pieces(branch: Sequence[Turn]) -> list[Piece]:
    """The text after the last of these turns.

    Each turn's prompt is the whole text before it. Where a later one changed what stood before, the
    text up to the change is the person's from there on.
    """
    made: list[Piece] = []
    for turn in branch:
        so_far = "".join(piece.text for piece in made)
        if turn.prompt.startswith(so_far):
            made.append(Piece(turn.prompt[len(so_far) :]))
        else:
            made = [Piece(turn.prompt)]
        made.append(Piece(turn.answer, probabilities.read(turn.tokens, turn.answer), is_model=True))
    return [piece for piece in made if piece.text]


def text_of(branch: Sequence[Turn]) -> str:
    """The whole text after the last of these turns."""
    return branch[-1].prompt + branch[-1].answer if branch else ""
