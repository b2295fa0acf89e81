"""The one split into training and held-out documents, decided by each text alone.

A text lands on the same side on every machine, in every order, in every version of a corpus.
"""

import hashlib
from collections.abc import Callable, Iterable, Iterator, Set

from corpora.sources import SOURCES, Document, Source

HELD_OUT_ONE_IN = 20
"""About 5% of the documents are held out."""


def text_hash(text: str) -> str:
    """Identity of a text: sha256 of its UTF-8 bytes, white space at the ends of lines aside."""
    normal = "\n".join(line.rstrip() for line in text.strip().split("\n"))
    return hashlib.sha256(normal.encode("utf-8", errors="surrogatepass")).hexdigest()


def is_held_out(document: Document) -> bool:
    """Whether this document is for testing only."""
    return _is_held_out(text_hash(document.text))


def _is_held_out(identity: str) -> bool:
    return int(identity[:16], 16) % HELD_OUT_ONE_IN == 0


def training(source_name: str) -> Iterator[Document]:
    """The documents of a source to train on; a text that comes twice is given once.

    Raises:
        KeyError: no source has that name.
    """
    return (document for identity, document in _unique(find_source(source_name)) if not _is_held_out(identity))


def held_out(source_name: str) -> list[Document]:
    """The documents of a source to test on; a text that comes twice is given once.

    Raises:
        KeyError: no source has that name.
    """
    return [document for identity, document in _unique(find_source(source_name)) if _is_held_out(identity)]


def seen_in_training(source_name: str, pieces: Set[str], cut: Callable[[str], Iterable[str]]) -> frozenset[str]:
    """Those of `pieces` that are a piece of a training text too, where `cut` gives the pieces of a text.

    Reads the training text once and keeps none of it.
    """
    return frozenset(piece for document in training(source_name) for piece in cut(document.text) if piece in pieces)


def find_source(name: str) -> Source:
    """The source of that name.

    Raises:
        KeyError: with the names that exist.
    """
    if name not in SOURCES:
        raise KeyError(f"There is no source '{name}'. Sources: {', '.join(sorted(SOURCES))}.")
    return SOURCES[name]


def _unique(source: Source) -> Iterator[tuple[str, Document]]:
    """Each text once, with its identity."""
    seen: set[str] = set()
    for document in source.documents():
        identity = text_hash(document.text)
        if identity not in seen:
            seen.add(identity)
            yield identity, document
