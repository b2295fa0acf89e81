"""Tokenizers of checkpoint folders, loaded once each."""

import hashlib
import threading
from collections import OrderedDict
from pathlib import Path

from transformers import AutoTokenizer, PreTrainedTokenizerBase

TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer.model",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.jinja",
)
_MAX_CACHED = 16

_cache: OrderedDict[str, PreTrainedTokenizerBase] = OrderedDict()
_lock = threading.Lock()


def load_tokenizer(folder: Path) -> PreTrainedTokenizerBase:
    """The tokenizer of a checkpoint folder; folders whose tokenizer files are equal share one instance."""
    digest = tokenizer_digest(folder)
    with _lock:
        if digest not in _cache:
            _cache[digest] = AutoTokenizer.from_pretrained(str(folder), local_files_only=True, trust_remote_code=False)
            if len(_cache) > _MAX_CACHED:
                _cache.popitem(last=False)
        _cache.move_to_end(digest)
        return _cache[digest]


def tokenizer_digest(folder: Path) -> str:
    """Sha256 over the tokenizer's files: equal for all checkpoints of a run."""
    digest = hashlib.sha256()
    for name in TOKENIZER_FILES:
        path = folder / name
        if path.is_file():
            content = path.read_bytes()
            digest.update(f"{name}:{len(content)}:".encode())
            digest.update(content)
    return digest.hexdigest()
