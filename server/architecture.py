"""What a checkpoint's config.json says, for pages; the configuration of its run where the file is not here."""

import json
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from analysis import memory
from analysis.memory import Shape
from registry import checkpoints
from registry.errors import Invalid
from registry.models import Checkpoint
from registry.quantized import choose_group_size

MAX_BYTES = 1_000_000
NAMES = {
    "vocab_size": "vocab_size",
    "hidden_size": "hidden_size",
    "intermediate_size": "intermediate_size",
    "num_layers": "num_hidden_layers",
    "num_heads": "num_attention_heads",
    "context_length": "max_position_embeddings",
    "tie_embeddings": "tie_word_embeddings",
}
"""The fields of `training.config.Model`, as config.json calls them."""


def config_of(checkpoint: Checkpoint) -> Mapping[str, Any]:
    """Its config.json; empty where neither the file nor its run says anything."""
    found = _read(checkpoints.path(checkpoint) / "config.json", checkpoint.digest)
    if found:
        return found
    model = checkpoint.run.config.get("model")
    model = model if isinstance(model, dict) else {}
    return {name: model[own] for own, name in NAMES.items() if own in model}


def shape_of(checkpoint: Checkpoint) -> Shape | None:
    """What memory depends on; None where it is not known."""
    try:
        return memory.read_shape(config_of(checkpoint))
    except ValueError:
        return None


def group_size(config: Mapping[str, Any]) -> int:
    """Input channels that share a scale in the 4-bit form: its own, or the one that it would be given."""
    quantization = config.get("quantization_config")
    own = quantization.get("group_size") if isinstance(quantization, dict) else None
    if isinstance(own, int):
        return own
    try:
        return choose_group_size(config)
    except Invalid:
        return memory.GROUP_SIZE  # it cannot be made; the page shows no 4-bit form of it


@lru_cache(maxsize=512)
def _read(path: Path, _digest: str) -> Mapping[str, Any]:
    """A folder never changes, so what was read under its digest stays true."""
    try:
        if path.stat().st_size > MAX_BYTES:
            return {}
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}  # moved to another store, or never here: imported results alone
    return content if isinstance(content, dict) else {}
