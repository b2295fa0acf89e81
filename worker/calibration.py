"""Text that quantization is measured on: documents of the training side, in a fixed shuffle.

Never held-out text: a quantizer fits its rounding to what it is shown, and benchmarks are made of the held-out side.
"""

import heapq
from collections.abc import Iterator, Mapping
from itertools import islice
from typing import Any, NamedTuple

from corpora import draw, split
from corpora.sources import SOURCES

NUM_SEQUENCES = 128
"""As many as AutoGPTQ's examples and the GPTQ paper (Frantar et al. 2022, arXiv:2210.17323) take."""
MAX_TOKENS = 2_048
"""Of a sequence; a model that reads less gets what it reads."""
MIN_TOKENS = 16
NUM_CHECKS = 24
"""Sequences that are kept from the quantizer and show afterwards what it cost."""
LOOKED_AT = 2_000
"""Documents of a source among which the fixed shuffle chooses: enough of them, and a bounded time."""


class Texts(NamedTuple):
    """Token ids of sequences that do not overlap, and of which source how many are."""

    calibration: list[list[int]]
    checks: list[list[int]]
    sources: dict[str, int]

    @property
    def num_tokens(self) -> int:
        """Tokens that the quantizer sees."""
        return sum(len(sequence) for sequence in self.calibration)


def shares(run_config: Mapping[str, Any]) -> tuple[dict[str, float], bool]:
    """Sources and how much each gives, and whether they are the run's own corpus.

    A run whose corpus is not here, an uploaded one for instance, is measured on all text that is installed.
    """
    corpus = run_config.get("corpus")
    named = corpus.get("sources") if isinstance(corpus, Mapping) else None
    own = [str(one.get("name")) for one in named or () if isinstance(one, Mapping)]
    known = [name for name in own if name in SOURCES and SOURCES[name].available()]
    chosen = known or [name for name, source in SOURCES.items() if source.available()]
    mixture = corpus.get("mixture") if known and isinstance(corpus, Mapping) else None
    weights = mixture if isinstance(mixture, Mapping) else {}
    languages = [SOURCES[name].language for name in chosen]
    given = {
        name: float(weights.get(language, 1.0)) / languages.count(language)
        for name, language in zip(chosen, languages, strict=True)
    }
    whole = sum(given.values())
    return {name: share / whole for name, share in given.items() if share > 0}, bool(known)


def texts(tokenizer: Any, context_length: int, of_sources: Mapping[str, float]) -> Texts:
    """Sequences of at most the context length, in the given shares.

    Raises:
        ValueError: no source has any text that is long enough.
    """
    length = min(context_length, MAX_TOKENS)
    calibration: list[list[int]] = []
    checks: list[list[int]] = []
    counts: dict[str, int] = {}
    for name, share in of_sources.items():
        wanted, to_check = round(NUM_SEQUENCES * share), max(1, round(NUM_CHECKS * share))
        found = list(islice(_sequences(name, tokenizer, length, wanted + to_check), wanted + to_check))
        checks += found[:to_check]
        calibration += found[to_check:]
        counts[name] = len(found[to_check:])
    if not calibration or not checks:
        raise ValueError("No text to quantize with is installed.")
    return Texts(calibration, checks, counts)


def _sequences(source: str, tokenizer: Any, length: int, wanted: int) -> Iterator[list[int]]:
    documents = islice(split.training(source), LOOKED_AT)
    # More than wanted: documents may be too short.
    for document in heapq.nsmallest(2 * wanted, documents, key=lambda one: draw.rank("calibration", one.key, one.text)):
        # No token takes fewer than one character, so the rest would be cut off anyway.
        token_ids = tokenizer.encode(document.text[: 16 * length], add_special_tokens=False)[:length]
        if len(token_ids) >= min(MIN_TOKENS, length):
            yield list(token_ids)
