"""Which of four clauses stands in the gap of an article: the text before it and the text after it must both fit.

The clauses are as long as each other to the character and none stands in the training text, right or
wrong; the wrong ones come from other chapters. The starter's "which sentence follows" asks for what comes
next; here the rest of the sentence is given.
"""

import math
import re
from collections import Counter, defaultdict
from collections.abc import Iterator
from functools import lru_cache
from itertools import chain, pairwise
from typing import Any, NamedTuple

from datasets import Dataset

from corpora.draw import pick, rank
from corpora.sources import Document
from corpora.split import held_out, seen_in_training, training

SENTENCE = re.compile(r"[^\n。；]+[。；]")
CLAUSE = re.compile(r"[^\s，。；：！？]+")
PLAIN = re.compile(r"[一-鿿]{8,20}")
"""A clause that can be asked for: no list, no quotation, no number of an article."""

MIN_BEFORE, MAX_SENTENCE = 10, 120
"""Characters before a gap, and of the whole sentence."""

ARTICLE = re.compile(r"第[一二三四五六七八九十百千零]+条|本法|本条例")
"""Clauses that point elsewhere are the same in every law."""


class Gap(NamedTuple):
    """A clause inside a sentence of a held-out statute."""

    document: str
    before: str
    clause: str
    after: str


def gap(num_items: int, each: int, **_metadata: Any) -> dict[str, Dataset]:
    """Gaps in held-out articles, at most `each` of a document."""
    by_document = [list(_gaps(document)) for document in held_out("statutes")]
    by_length: dict[int, list[Gap]] = defaultdict(list)
    for one in chain.from_iterable(by_document):
        by_length[len(one.clause)].append(one)
    asked = chain.from_iterable(_of_different_sentences(gaps)[:each] for gaps in by_document)
    items = []
    for one in sorted(asked, key=lambda gap: rank("item", gap.before, gap.clause)):
        wrong = _wrong_clauses(one, by_length[len(one.clause)])
        if len(wrong) == 3:
            items.append(_item(one, wrong))
    return {"test": Dataset.from_list(items[:num_items])}


def _of_different_sentences(gaps: list[Gap]) -> list[Gap]:
    """One gap of each sentence, in a fixed shuffle."""
    by_sentence: dict[str, Gap] = {}
    for gap in sorted(gaps, key=lambda gap: rank("gap", gap.before, gap.clause)):
        by_sentence.setdefault(gap.before.split("，")[0], gap)
    return list(by_sentence.values())


def _gaps(document: Document) -> Iterator[Gap]:
    _, _, articles = document.text.partition("\n")
    for match in SENTENCE.finditer(articles):
        sentence = match[0]
        starts = [comma.end() for comma in re.finditer("，", sentence)]
        for start, end in pairwise(starts):
            clause = sentence[start : end - 1]
            if start >= MIN_BEFORE and len(sentence) <= MAX_SENTENCE and _can_be_asked(clause):
                yield Gap(document.key, sentence[:start], clause, sentence[end - 1 :])


def _can_be_asked(clause: str) -> bool:
    return bool(PLAIN.fullmatch(clause)) and not ARTICLE.search(clause) and clause not in _seen()


def _wrong_clauses(right: Gap, pool: list[Gap]) -> list[str]:
    """Clauses that say something else, those first that share most characters with the sentence.

    As many of the three are made of more frequent characters as the hash says. Without the one rule the clause
    that repeats most of its sentence was right 66% of the time, without the other that of the rarest characters
    was: a model that has learned no more than frequencies then falls below chance.
    """
    sentence = set(right.before + right.after)
    own = _triples(right.clause)
    others = {gap.clause for gap in pool if gap.document != right.document and own.isdisjoint(_triples(gap.clause))}
    near = sorted(others, key=lambda clause: (-len(sentence.intersection(clause)), rank("near", right.before, clause)))
    common = [clause for clause in near if _frequency(clause) > _frequency(right.clause)]
    rare = [clause for clause in near if _frequency(clause) <= _frequency(right.clause)]
    num_common = pick(4, "common", right.before, right.clause)
    return common[:num_common] + rare[: 3 - num_common]


def _frequency(clause: str) -> float:
    """Sum of the logarithms of how often each character stands in the training text."""
    return sum(math.log(1 + _characters()[character]) for character in clause)


def _triples(clause: str) -> set[str]:
    return {clause[at : at + 3] for at in range(len(clause) - 2)}


def _item(gap: Gap, wrong: list[str]) -> dict[str, Any]:
    clauses = sorted([gap.clause, *wrong], key=lambda clause: rank("order", gap.before, clause))
    return {
        "prompt": gap.before,
        "choices": [clause + gap.after for clause in clauses],
        "target": clauses.index(gap.clause),
        "document": gap.document,
    }


@lru_cache
def _seen() -> frozenset[str]:
    pieces = {clause for document in held_out("statutes") for clause in CLAUSE.findall(document.text)}
    return seen_in_training("statutes", pieces, CLAUSE.findall)


@lru_cache
def _characters() -> Counter[str]:
    return Counter(character for document in training("statutes") for character in document.text)
