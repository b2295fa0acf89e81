"""Items made of held-out text: passages, "which really follows", and minimal pairs.

Nothing is copied into the repository: items are computed from `corpora.split.held_out`, the same
on every machine that has the same packages. Chance is drawn from hashes of the content, so adding
a document moves no other item. lm-eval calls these through `custom_dataset`, once a process.
"""

import hashlib
import itertools
import random
import re
from collections import Counter
from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import Any, NamedTuple

from datasets import Dataset

from corpora.split import held_out, training

SENTENCE = re.compile(r"[^\n。；！？]+[。；！？]?")
LINE = re.compile(r"[^\n]+")
UNITS = {"statutes": SENTENCE, "shakespeare": LINE, "stdlib": LINE}
"""What text of a source is cut into."""

TELLING_BYTES = 20
"""A shorter line (`else:`, `Enter a Messenger.`) says nothing about whether a text was seen before."""

NEIGHBOURHOOD = 600
"""Bytes around an item's place from which no wrong choice is taken: it might be right after all."""


class Place(NamedTuple):
    """A stretch of a held-out document that really follows what stands before it."""

    document: str
    start: int
    context: str
    gold: str

    @property
    def size(self) -> int:
        """Bytes of the continuation."""
        return len(self.gold.encode())


def passages(source: str, num_items: int, max_bytes: int, **_metadata: Any) -> dict[str, Dataset]:
    """Whole lines or sentences of held-out documents, up to `max_bytes` each, spread over all documents."""
    rounds: list[tuple[int, str, dict[str, str]]] = []
    for document in held_out(source):
        pieces = sorted(_pieces(source, document.text, max_bytes), key=lambda piece: _rank("passage", piece))
        rounds += [
            (number, _rank("document", piece), {"text": piece, "document": document.key})
            for number, piece in enumerate(pieces)
        ]
    # one passage from each document before any gives a second one
    chosen = sorted(rounds, key=lambda entry: entry[:2])[:num_items]
    return {"test": Dataset.from_list([item for _, _, item in chosen])}


def follows(source: str, num_items: int, context_bytes: int, min_bytes: int, max_bytes: int, **_metadata: Any) -> Any:
    """Four continuations, one of which really follows; the others are of the same source and about as long.

    The rank of the right one by length is drawn evenly, so neither the longest nor the shortest wins.
    """
    limits = (context_bytes, min_bytes, max_bytes)
    places = {place.gold: place for document in held_out(source) for place in _places(source, document, limits)}
    pool = sorted(places.values(), key=lambda place: (place.size, _rank("pool", place.gold)))
    items: list[dict[str, Any]] = []
    for position in sorted(range(len(pool)), key=lambda index: _rank("item", pool[index].context + pool[index].gold)):
        wrong = _wrong_choices(pool, position)
        place = pool[position]
        if wrong is not None and place.gold not in _training_text(source):
            choices = sorted([place.gold, *wrong], key=lambda choice: _rank("order", place.context, choice))
            items.append({"context": place.context, "choices": choices, "target": choices.index(place.gold)})
        if len(items) == num_items:
            break
    return {"test": Dataset.from_list(items)}


def pairs(source: str, num_items: int, **_metadata: Any) -> dict[str, Dataset]:
    """A held-out sentence and the same sentence with two of its words swapped; equally long by construction."""
    find, swap = PAIR_MAKERS[source]
    sentences = {sentence for document in held_out(source) for sentence in find(document.text)}
    items: list[dict[str, Any]] = []
    for sentence in sorted(sentences, key=lambda text: _rank("pair", text)):
        swapped = swap(sentence, random.Random(_rank("swap", sentence)))
        if swapped is None or sentence in _training_text(source):
            continue
        choices = sorted([sentence, swapped], key=lambda choice: _rank("order", choice))
        items.append({"context": "", "choices": choices, "target": choices.index(sentence)})
        if len(items) == num_items:
            break
    return {"test": Dataset.from_list(items)}


def _rank(*parts: str) -> str:
    """A fixed shuffle: depends on the content alone."""
    return hashlib.sha256("\0".join(parts).encode(errors="surrogatepass")).hexdigest()


@lru_cache
def _training_units(source: str) -> frozenset[str]:
    """Every telling line or sentence of the training text: statutes and code repeat each other's."""
    found = (unit for document in training(source) for unit in UNITS[source].findall(document.text))
    return frozenset(unit.strip() for unit in found if len(unit.strip().encode()) >= TELLING_BYTES)


@lru_cache
def _training_text(source: str) -> str:
    return "\0".join(document.text for document in training(source))


def _pieces(source: str, text: str, max_bytes: int) -> Iterator[str]:
    """Consecutive units joined up to `max_bytes`; pieces under half of that or mostly seen in training are left out."""
    starts = [match.start() for match in UNITS[source].finditer(text)] + [len(text)]
    begin = 0
    for here, after in itertools.pairwise(starts):
        if len(text[starts[begin] : after].encode()) <= max_bytes:
            continue
        piece = text[starts[begin] : here].strip("\n")
        begin = starts.index(here)
        fits = max_bytes / 2 <= len(piece.encode()) <= max_bytes
        if fits and _is_prose(piece) and _share_seen(source, piece) <= 0.25:
            yield piece


def _is_prose(text: str) -> bool:
    """Mostly letters, Chinese ones included: no table of numbers."""
    dense = [character for character in text if not character.isspace()]
    return sum(character.isalpha() for character in dense) >= 0.6 * len(dense)


def _share_seen(source: str, text: str) -> float:
    """How much of the telling part of a text stands in the training text too, word for word."""
    units = [unit.strip() for unit in UNITS[source].findall(text)]
    telling = [unit for unit in units if len(unit.encode()) >= TELLING_BYTES]
    if not telling:
        return 1.0
    return sum(unit in _training_units(source) for unit in telling) / len(telling)


def _places(source: str, document: Any, limits: tuple[int, int, int]) -> Iterator[Place]:
    context_bytes, min_bytes, max_bytes = limits
    text: str = document.text
    spans = [match.span() for match in UNITS[source].finditer(text)]
    last_end = 0
    for number, (start, _) in enumerate(spans):
        if start < last_end:
            continue  # items share no continuation
        # A sentence that opens a line starts with the article's number: that would give it away.
        if source == "statutes" and (start == 0 or text[start - 1] == "\n"):
            continue
        end = _long_enough(text, spans[number:], min_bytes)
        if end is None or len(text[start:end].encode()) > max_bytes or _share_seen(source, text[start:end]) > 0:
            continue
        context = _context(text, [begin for begin, _ in spans[:number]], start, context_bytes)
        if len(context.encode()) >= context_bytes / 2:
            last_end = end
            yield Place(document.key, start, context, text[start:end])


def _long_enough(text: str, spans: list[tuple[int, int]], min_bytes: int) -> int | None:
    start = spans[0][0]
    return next((end for _, end in spans if len(text[start:end].encode()) >= min_bytes), None)


def _context(text: str, starts: list[int], end: int, max_bytes: int) -> str:
    """The units before `end`, as many whole ones as fit."""
    chosen = end
    for start in reversed(starts):
        if len(text[start:end].encode()) > max_bytes:
            break
        chosen = start
    return text[chosen:end]


def _wrong_choices(pool: list[Place], position: int) -> list[str] | None:
    """Three neighbours by length: as many of them shorter as the item's hash says."""
    right = pool[position]
    num_shorter = int(_rank("length", right.context, right.gold)[:8], 16) % 4
    shorter = [place.gold for place in reversed(pool[max(0, position - 40) : position]) if _apart(place, right)]
    longer = [place.gold for place in pool[position + 1 : position + 41] if _apart(place, right)]
    wrong = shorter[:num_shorter] + longer[: 3 - num_shorter]
    return wrong if len(wrong) == 3 else None


def _apart(one: Place, two: Place) -> bool:
    return one.document != two.document or abs(one.start - two.start) > NEIGHBOURHOOD


EDGE = 40
"""How many times rarer the pairs across a word's edges must be."""

HAN = re.compile(r"[一-鿿]")
NUMBERING = re.compile(
    r"^(?:第[一二三四五六七八九十百千零]+条(?:之[一二三四五六七八九十]+)?\s|（[一二三四五六七八九十]+）)"
)
ENGLISH_SENTENCE = re.compile(r"(?<=[.?!]\s)[A-Z][a-z']*(?:[ \n][A-Za-z',;-]+){5,17}[.?!]")


def _chinese_sentences(text: str) -> Iterator[str]:
    for match in SENTENCE.finditer(text):
        sentence = NUMBERING.sub("", match[0].strip())
        if 10 <= len(HAN.findall(sentence)) <= 60:
            yield sentence


@lru_cache
def _bigrams(source: str) -> Counter[str]:
    """How often each two characters stand beside each other in the training text."""
    return Counter(
        text[at : at + 2] for document in training(source) for text in [document.text] for at in range(len(text) - 1)
    )


def _words(sentence: str) -> dict[int, str]:
    """Two-character words by where they begin: pairs far more frequent than the pairs across their edges.

    Without this a swap would cut words apart, and an untrained model would see it by the number of
    tokens alone: with random cuts it was right 90% of the time.
    """
    count = _bigrams("statutes")
    found: dict[int, str] = {}
    for at in range(1, len(sentence) - 2):
        word = sentence[at : at + 2]
        across = max(count[sentence[at - 1 : at + 1]], count[sentence[at + 1 : at + 3]])
        if HAN.match(word[0]) and HAN.match(word[1]) and count[word] >= 30 and count[word] > EDGE * across:
            found[at] = word
    return found


def _swap_chinese(sentence: str, chance: random.Random) -> str | None:
    """Two different two-character words change places."""
    words = _words(sentence)
    choices = [(one, two) for one in words for two in words if two - one >= 3 and words[one] != words[two]]
    if not choices:
        return None
    one, two = chance.choice(choices)
    return sentence[:one] + words[two] + sentence[one + 2 : two] + words[one] + sentence[two + 2 :]


def _english_sentences(text: str) -> Iterator[str]:
    return (match[0] for match in ENGLISH_SENTENCE.finditer(text))


def _swap_english(sentence: str, chance: random.Random) -> str | None:
    """Two different plain words, not neighbours and not the first one, change places; line breaks stay."""
    parts = re.split(r"([a-z]{2,}(?![A-Za-z']))", sentence)
    words = [at for at in range(1, len(parts), 2) if re.search(r"[A-Za-z']$", parts[at - 1]) is None]
    choices = [(one, two) for one in words for two in words if two - one >= 4 and parts[one] != parts[two]]
    if not choices:
        return None
    one, two = chance.choice(choices)
    parts[one], parts[two] = parts[two], parts[one]
    return "".join(parts)


PAIR_MAKERS: dict[str, tuple[Callable[[str], Iterator[str]], Callable[[str, random.Random], str | None]]] = {
    "statutes": (_chinese_sentences, _swap_chinese),
    "shakespeare": (_english_sentences, _swap_english),
}
