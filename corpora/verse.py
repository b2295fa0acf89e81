"""Held-out poems by their form, and which of their clauses a model may have read in training after all.

Poets quote each other and editions repeat poems under other titles, so that a poem is held out
does not yet mean that each of its lines is.
"""

import re
from collections.abc import Iterator
from functools import lru_cache
from typing import NamedTuple

from corpora.sources import Document
from corpora.split import held_out, seen_in_training

FORMS = {"ci": "songci/", "shi": "quantangshi/poet.tang."}
"""How the keys of a form's documents begin: `ci` of the Song in simplified script, `shi` of the Tang in traditional."""

CLAUSE = re.compile(r"[一-鿿]{4,}")
"""A run of Chinese characters between two signs, long enough to say where it comes from."""


class Poem(NamedTuple):
    """A poem as training reads its like: heading, then lines."""

    key: str
    title: str
    author: str
    lines: tuple[str, ...]

    @property
    def heading(self) -> str:
        """Title and author, as the first line of the document has them."""
        return f"{self.title} {self.author}".strip()


@lru_cache
def held_out_poems(form: str) -> tuple[Poem, ...]:
    """The held-out poems of a form.

    Raises:
        FileNotFoundError: the package chinese-poetry is not installed.
    """
    return tuple(_poem(document) for document in _documents() if document.key.startswith(FORMS[form]))


def is_unseen(text: str) -> bool:
    """Whether no clause of this held-out text stands in a poem of the training text."""
    return _seen().isdisjoint(clauses(text))


def clauses(text: str) -> Iterator[str]:
    """The runs of at least four Chinese characters."""
    return (match[0] for match in CLAUSE.finditer(text))


def _poem(document: Document) -> Poem:
    heading, *lines = document.text.split("\n")
    title, _, author = heading.rpartition(" ")
    return Poem(document.key, title, author, tuple(lines))


@lru_cache
def _documents() -> tuple[Document, ...]:
    return tuple(document for document in held_out("poetry") if document.key.startswith(tuple(FORMS.values())))


@lru_cache
def _seen() -> frozenset[str]:
    pieces = {clause for document in _documents() for clause in clauses(document.text)}
    return seen_in_training("poetry", pieces, clauses)
