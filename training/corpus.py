"""The packed corpus: token shards of each language, built once and memory-mapped.

A corpus lives in `<home>/corpus/<fingerprint>/`. The fingerprint covers every text that goes in,
so a folder is never rebuilt in place and a changed text or setting is another folder.
"""

import hashlib
import json
import os
import shutil
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import structlog
from tokenizers import Tokenizer

from corpora import split
from corpora.sources import Document, Source
from training.config import Config, SourceShare
from training.tokenizer import BEGIN, END, save_tokenizer, train_tokenizer

FORMAT = 1
MEGABYTE = 1_000_000
DOCUMENTS_AT_ONCE = 256
"""Encoded together; bounds the memory."""
log = structlog.get_logger(__name__)

Tokens = npt.NDArray[np.unsignedinteger]


@dataclass(frozen=True, kw_only=True)
class Texts:
    """Documents of one language on both sides of the split."""

    training: list[Document]
    held_out: list[Document]


class PackedCorpus:
    """An opened corpus: fixed windows of tokens, by language."""

    def __init__(self, folder: Path, context_length: int) -> None:
        facts = json.loads((folder / "corpus.json").read_text(encoding="utf-8"))
        self.folder = folder
        self.fingerprint = folder.name
        self.facts = facts
        self.context_length = context_length
        self._training = {language: self._open(f"{language}.bin", facts["dtype"]) for language in facts["languages"]}
        self._held_out = {
            language: self._open(f"{language}-held-out.bin", facts["dtype"]) for language in facts["languages"]
        }

    def _open(self, name: str, dtype: str) -> Tokens:
        return np.memmap(self.folder / name, dtype=dtype, mode="r")

    @property
    def tokenizer_folder(self) -> Path:
        """Where the tokenizer's Hugging Face files are."""
        return self.folder / "tokenizer"

    def num_windows(self) -> dict[str, int]:
        """How many training windows each language has."""
        return {language: len(tokens) // self.context_length for language, tokens in self._training.items()}

    def window(self, language: str, number: int) -> npt.NDArray[np.int64]:
        """The tokens of one training window."""
        return self._cut(self._training[language], number)

    def held_out_windows(self, language: str, count: int) -> npt.NDArray[np.int64]:
        """Up to `count` windows, spread evenly over the held-out text; the same ones every time."""
        tokens = self._held_out[language]
        available = len(tokens) // self.context_length
        numbers = np.linspace(0, available - 1, num=min(count, available)).astype(np.int64)
        return np.stack([self._cut(tokens, int(number)) for number in numbers])

    def _cut(self, tokens: Tokens, number: int) -> npt.NDArray[np.int64]:
        start = number * self.context_length
        return tokens[start : start + self.context_length].astype(np.int64)


def read_texts(config: Config) -> dict[str, Texts]:
    """The documents of a run, by language.

    Raises:
        ValueError: a source is unknown or not installed, or a language of the mixture has no text.
    """
    texts: dict[str, Texts] = {}
    for share in config.corpus.sources:
        source = _find_source(share)
        if not source.available():
            if share.optional:
                log.info("A source is left out: its package is not installed.", source=share.name)
                continue
            raise ValueError(f"The source '{share.name}' is not installed. Run `make install`, or make it optional.")
        here = texts.setdefault(source.language, Texts(training=[], held_out=[]))
        limit = round(share.max_megabytes * MEGABYTE)
        here.training.extend(_first_bytes(split.training(share.name), limit))
        # Shares of both sides stay alike: the held-out loss then speaks of the text that is learnt.
        here.held_out.extend(_first_bytes(iter(split.held_out(share.name)), limit // split.HELD_OUT_ONE_IN))
    for language, weight in config.corpus.mixture.items():
        if weight > 0 and not texts.get(language, Texts(training=[], held_out=[])).training:
            raise ValueError(f"The mixture wants '{language}', but no source of that language is in the config.")
    return texts


def _find_source(share: SourceShare) -> Source:
    try:
        return split.find_source(share.name)
    except KeyError as error:
        raise ValueError(error.args[0]) from error


def _first_bytes(documents: Iterator[Document], limit: int) -> Iterator[Document]:
    """Documents until `limit` bytes are reached; all of them where it is 0."""
    taken = 0
    for document in documents:
        yield document
        taken += len(document.text.encode())
        if limit and taken >= limit:
            return


def fingerprint(config: Config, texts: dict[str, Texts]) -> str:
    """Identity of the shards: the texts in their order, and all that decides how they become tokens."""
    digest = hashlib.sha256()
    decisive = (FORMAT, config.model.vocab_size, config.model.context_length, config.corpus.tokenizer_megabytes)
    digest.update(repr(decisive).encode())
    for language, here in sorted(texts.items()):
        for side in (here.training, here.held_out):
            digest.update(f"\0{language}\0{len(side)}\0".encode())
            for document in side:
                digest.update(hashlib.sha256(document.text.encode()).digest())
    return digest.hexdigest()[:16]


def prepare_corpus(config: Config, home: Path, wanted: str = "") -> PackedCorpus:
    """Open the corpus of a config, building it first where it is not there yet.

    `wanted` is the fingerprint that a run began with: only that text will do to go on.

    Raises:
        ValueError: the config asks for text that is not there, or the text is not the wanted one.
    """
    started = time.monotonic()
    if wanted and (home / "corpus" / wanted / "corpus.json").exists():
        return PackedCorpus(home / "corpus" / wanted, config.model.context_length)
    texts = read_texts(config)
    destination = home / "corpus" / fingerprint(config, texts)
    if wanted and destination.name != wanted:
        raise ValueError(
            f"The run began with corpus {wanted}, which is gone, and the packages now give {destination.name}. "
            "Put the folder back, or start a run of another name."
        )
    if not (destination / "corpus.json").exists():
        _build(config, texts, destination)
    corpus = PackedCorpus(destination, config.model.context_length)
    log.info(
        "The corpus is ready.",
        fingerprint=corpus.fingerprint,
        tokens=corpus.facts["tokens"],
        seconds=round(time.monotonic() - started, 1),
    )
    return corpus


def _build(config: Config, texts: dict[str, Texts], destination: Path) -> None:
    """Build into a folder beside `destination` and move it there whole."""
    temporary = destination.with_name(f".{destination.name}-{os.getpid()}")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    log.info("Training the tokenizer.", vocabulary=config.model.vocab_size)
    tokenizer = train_tokenizer(_tokenizer_texts(config, texts), config.model.vocab_size)
    if tokenizer.get_vocab_size() > config.model.vocab_size:
        raise ValueError(f"The tokenizer has {tokenizer.get_vocab_size()} tokens, more than model.vocab_size.")
    save_tokenizer(tokenizer, temporary / "tokenizer", config.model.context_length)
    dtype = "uint16" if config.model.vocab_size <= 2**16 else "uint32"
    counts = {}
    for language, here in sorted(texts.items()):
        counts[language] = _pack(tokenizer, here.training, temporary / f"{language}.bin", dtype)
        held_out = _pack(tokenizer, here.held_out, temporary / f"{language}-held-out.bin", dtype)
        log.info("Packed a language.", language=language, tokens=counts[language], held_out_tokens=held_out)
        if min(counts[language], held_out) < config.model.context_length:
            raise ValueError(f"The text in '{language}' is too short for one window of model.context_length tokens.")
    facts = {"format": FORMAT, "dtype": dtype, "languages": sorted(texts), "tokens": counts}
    (temporary / "corpus.json").write_text(json.dumps(facts, indent=1), encoding="utf-8")
    try:
        os.rename(temporary, destination)
    except OSError:
        # Another trainer was faster; the same fingerprint is the same content.
        if not (destination / "corpus.json").exists():
            raise
        shutil.rmtree(temporary)


def _tokenizer_texts(config: Config, texts: dict[str, Texts]) -> Iterator[str]:
    """An even sample of the training documents of each language."""
    limit = round(config.corpus.tokenizer_megabytes * MEGABYTE)
    for _, here in sorted(texts.items()):
        # By hash, so that the sample is not just the first law in the book.
        sample = sorted(here.training, key=lambda document: split.text_hash(document.text))
        yield from (document.text for document in _first_bytes(iter(sample), limit))


def _pack(tokenizer: Tokenizer, documents: Sequence[Document], path: Path, dtype: str) -> int:
    """Write `<|begin|> tokens <|end|>` of every document in one row of tokens; returns how many."""
    begin, end = tokenizer.token_to_id(BEGIN), tokenizer.token_to_id(END)
    total = 0
    with path.open("wb") as file:
        for start in range(0, len(documents), DOCUMENTS_AT_ONCE):
            batch = [document.text for document in documents[start : start + DOCUMENTS_AT_ONCE]]
            for encoding in tokenizer.encode_batch_fast(batch, add_special_tokens=False):
                row = np.array([begin, *encoding.ids, end], dtype=dtype)
                file.write(row.tobytes())
                total += len(row)
        file.flush()
        os.fsync(file.fileno())
    return total
