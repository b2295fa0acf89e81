"""The split into training and held-out text."""

import pytest

from corpora import split
from corpora.sources import Document

INSTALLED = ["statutes", "shakespeare", "stdlib"]


def document(text: str, source: str = "statutes", key: str = "1") -> Document:
    return Document(source=source, key=key, text=text)


@pytest.mark.parametrize("name", INSTALLED)
def test_no_text_is_on_both_sides(name: str) -> None:
    held_out = {split.text_hash(document.text) for document in split.held_out(name)}
    training = {split.text_hash(document.text) for document in split.training(name)}
    assert held_out
    assert not held_out & training


@pytest.mark.parametrize("name", INSTALLED)
def test_about_one_document_in_twenty_is_held_out(name: str) -> None:
    held_out, training = len(split.held_out(name)), len(list(split.training(name)))
    assert 0.02 < held_out / (held_out + training) < 0.08


@pytest.mark.parametrize("name", INSTALLED)
def test_a_text_is_given_once(name: str) -> None:
    hashes = [split.text_hash(document.text) for document in split.training(name)]
    assert len(set(hashes)) == len(hashes)


def test_only_the_text_decides() -> None:
    for number in range(200):
        text = f"第{number}条 本法自公布之日起施行。"
        one, other = document(text), document(text + "  \n", source="shakespeare", key="elsewhere")
        assert split.is_held_out(one) == split.is_held_out(other)


def test_the_split_is_the_same_in_every_version() -> None:
    held_out = [number for number in range(60) if split.is_held_out(document(f"document {number}"))]
    assert held_out == EXPECTED


def test_pieces_that_training_holds_too_are_found() -> None:
    first = next(split.training("statutes")).text.split("\n")[1]
    pieces = {first, "此句不在任何法律之中。"}
    assert split.seen_in_training("statutes", pieces, str.splitlines) == {first}


def test_an_unknown_source_is_answered_with_the_known_ones() -> None:
    with pytest.raises(KeyError, match="statutes"):
        split.held_out("wikipedia")


EXPECTED = [4, 11, 12, 25, 44]
"""Changing these numbers means that models trained before have seen what is now held out."""
