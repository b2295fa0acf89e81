"""How likely a model held each token that it wrote, for pages that colour a text by it."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import orjson

LEVELS = (0.9, 0.5, 0.2, 0.05)
"""From these probabilities on a token is of level 0, 1, 2 or 3; else of 4. js/chat/tokens.js agrees."""


@dataclass(frozen=True)
class Token:
    """One token with what else might have stood there."""

    text: str
    probability: float | None
    """None where the text has no token of its own any more, for example after a stop."""
    alternatives: str = "[]"
    """JSON: [[text, probability], …], the likeliest first."""

    @property
    def level(self) -> int:
        """0 for what was nearly certain, 4 for what was a surprise."""
        if self.probability is None:
            return 0
        return next((at for at, least in enumerate(LEVELS) if self.probability >= least), len(LEVELS))


def read(stored: Sequence[Any] | None, answer: str) -> list[Token]:
    """The tokens of an answer from `Turn.tokens`; none where they do not spell its beginning."""
    rows = stored or []
    spelled = "".join(row[0] for row in rows)
    if not rows or not answer.startswith(spelled):
        return []
    made = [Token(row[0], _probability(row[1]), _alternatives(row[2])) for row in rows]
    rest = answer[len(spelled) :]
    return [*made, Token(rest, None)] if rest else made


def _probability(logprob: float | None) -> float | None:
    return None if logprob is None else round(math.exp(min(0.0, logprob)), 6)


def _alternatives(rows: Sequence[Any]) -> str:
    return orjson.dumps([[text, _probability(logprob)] for text, logprob in rows]).decode()
