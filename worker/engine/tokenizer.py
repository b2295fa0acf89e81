"""Tokenizers of checkpoint folders, loaded once each."""

import hashlib
import threading
from collections import OrderedDict
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
    digest = hashlib.sha256()
    for name in names:
        path = folder / name
        if path.is_file():
            content = path.read_bytes()
            digest.update(f"{name}:{len(content)}:".encode())
            digest.update(content)
    return digest.hexdigest()
