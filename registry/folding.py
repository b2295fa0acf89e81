"""Text as blocked patterns see it: without case, width and invisible characters, and the way back to what is shown."""

import unicodedata
from bisect import bisect_left
from typing import NamedTuple

import regex

_SPECIAL = regex.compile(r"[\p{M}\p{Cf}\u1160-\u11ff]")
"""Characters that join with those before them, or that nobody sees."""


class Folded(NamedTuple):
    """A text and where each of its characters came from."""

    text: str
    origins: range | list[int]
    """Place in the original of each character; one more entry for its end."""

    def origin(self, place: int) -> int:
        """Where in the original the character at `place` began."""
        return self.origins[place]

    def place(self, origin: int) -> int:
        """The first character that came from `origin` or from after it."""
        return bisect_left(self.origins, origin)


class _Table(dict[int, str]):
    """Characters that are folded by themselves, learnt as they are met."""

    def __missing__(self, code: int) -> str:
        folded = _fold_cluster(chr(code))
        if len(self) < 100_000:
            self[code] = folded
        return folded


_table = _Table()


def fold(text: str) -> Folded:
    """A text in NFKC without case, and without characters that only direct or join what is around them."""
    if not _SPECIAL.search(text):
        folded = text.translate(_table)
        if len(folded) == len(text):
            return Folded(folded, range(len(text) + 1))
    parts: list[str] = []
    origins: list[int] = []
    for start, cluster in _clusters(text):
        part = _fold_cluster(cluster)
        parts.append(part)
        origins += [start] * len(part)
    return Folded("".join(parts), [*origins, len(text)])


def decompose(folded: str) -> str:
    """A folded text of which a beginning stays a beginning whatever joins its last character."""
    return unicodedata.normalize("NFKD", folded)


def openings(character: str) -> set[str]:
    """What a folded character may look like before everything that joins it has come."""
    whole = decompose(character)
    return {unicodedata.normalize("NFKC", whole[:length])[0] for length in range(1, len(whole) + 1)}


def _clusters(text: str) -> list[tuple[int, str]]:
    """Characters with what joins them, and where each begins."""
    starts = [at for at, one in enumerate(text) if at == 0 or not _SPECIAL.match(one)]
    return [(start, text[start:end]) for start, end in zip(starts, [*starts[1:], len(text)], strict=True)]


def _fold_cluster(cluster: str) -> str:
    seen = "".join(one for one in cluster if unicodedata.category(one) != "Cf")
    return unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", seen).casefold())
