"""Tokenizers of checkpoint folders, loaded once each."""

import contextlib
import hashlib
import os
import threading
from collections import OrderedDict
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

from transformers import AutoTokenizer, PreTrainedTokenizerBase

_VOCABULARY_FILES = ("tokenizer.json", "tokenizer.model", "special_tokens_map.json", "added_tokens.json")
_TEMPLATE_FILES = ("tokenizer_config.json", "chat_template.jinja")
_MAX_CACHED = 16

_cache: OrderedDict[str, PreTrainedTokenizerBase] = OrderedDict()
_lock = threading.Lock()


def load_tokenizer(folder: Path) -> PreTrainedTokenizerBase:
    """The tokenizer of a checkpoint folder; folders whose tokenizer files are equal share one instance."""
    digest = _digest(folder, _VOCABULARY_FILES + _TEMPLATE_FILES)
    with _lock:
        if digest not in _cache:
            _cache[digest] = AutoTokenizer.from_pretrained(str(folder), local_files_only=True, trust_remote_code=False)
            if len(_cache) > _MAX_CACHED:
                _cache.popitem(last=False)
        _cache.move_to_end(digest)
        return _cache[digest]


def tokenizer_digest(folder: Path) -> str:
    """Sha256 of the files that say which text a token id stands for; the chat template is not among them."""
    return _digest(folder, _VOCABULARY_FILES)


def _digest(folder: Path, names: tuple[str, ...]) -> str:
    return _digest_of(folder, tuple((name, stat.st_mtime_ns, stat.st_size) for name, stat in _present(folder, names)))


def _present(folder: Path, names: tuple[str, ...]) -> Iterator[tuple[str, os.stat_result]]:
    for name in names:
        with contextlib.suppress(FileNotFoundError):
            yield name, (folder / name).stat()


@lru_cache(maxsize=256)  # asked with each question, and a large vocabulary is ten megabytes
def _digest_of(folder: Path, files: tuple[tuple[str, int, int], ...]) -> str:
    digest = hashlib.sha256()
    for name, _changed_at, _size in files:
        content = (folder / name).read_bytes()
        digest.update(f"{name}:{len(content)}:".encode())
        digest.update(content)
    return digest.hexdigest()
