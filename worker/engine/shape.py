"""Whether an engine can take a checkpoint in place, and what fits into its context."""

import json
import struct
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from worker.engine.protocol import EngineError, Sampling, ScoreRequest
from worker.engine.tokenizer import tokenizer_digest

_IRRELEVANT_CONFIG = frozenset(
    {
        "_name_or_path",
        "attention_dropout",
        "dtype",
        "initializer_range",
        "pretraining_tp",
        "torch_dtype",
        "transformers_version",
        "use_cache",
    }
)
"""Fields of config.json that change nothing in a running engine."""


@dataclass(frozen=True)
class ModelShape:
    """Architecture, tensor table and vocabulary of a folder: all of it but the values of the weights."""

    config: dict[str, Any]
    tensors: dict[str, tuple[int, ...]]
    vocabulary: str

    @property
    def context_length(self) -> int:
        """Tokens the model can read at once."""
        return int(self.config["max_position_embeddings"])

    @property
    def is_quantized(self) -> bool:
        """Whether the weights are packed for a quantization kernel."""
        return bool(self.config.get("quantization_config"))

    @property
    def has_plain_rope(self) -> bool:
        """Whether positions past the context length merely continue the same rotation."""
        rope = self.config.get("rope_parameters") or self.config.get("rope_scaling") or {}
        return str(rope.get("rope_type", rope.get("type", "default"))) == "default"

    def can_swap_to(self, other: "ModelShape") -> bool:
        """Whether the weights of `other` fit into a running engine of this shape."""
        # Quantized layers are repacked when they load; reloading them in place is not proven on CPU.
        return self == other and not self.is_quantized


def read_shape(folder: Path) -> ModelShape:
    """The shape of a checkpoint folder, from its JSON files and the headers of its weights.

    Raises:
        EngineError: the folder cannot be served.
    """
    try:
        config = json.loads((folder / "config.json").read_text())
        tensors = {name: shape for file in sorted(folder.glob("*.safetensors")) for name, shape in _header(file)}
    except (OSError, ValueError, KeyError, struct.error) as error:
        raise EngineError(f"The checkpoint {folder.name} cannot be read: {error}.") from error
    if not tensors or "max_position_embeddings" not in config:
        raise EngineError(f"The checkpoint {folder.name} has no weights or no max_position_embeddings.")
    relevant = {key: value for key, value in config.items() if key not in _IRRELEVANT_CONFIG}
    return ModelShape(config=relevant, tensors=tensors, vocabulary=tokenizer_digest(folder))


def fit_score_request(request: ScoreRequest, max_tokens: int) -> ScoreRequest:
    """The request with the left of its context cut off, so that both parts together have at most `max_tokens`.

    Raises:
        EngineError: a part is empty, or the continuation alone does not fit.
    """
    if not request.context or not request.continuation:
        raise EngineError("A score request needs at least one token of context and one of continuation.")
    room = max_tokens - len(request.continuation)
    if room < 1:
        raise EngineError(
            f"A continuation of {len(request.continuation)} tokens does not fit: "
            f"the model reads {max_tokens} tokens at once, one of context included."
        )
    return request if len(request.context) <= room else replace(request, context=request.context[-room:])


@dataclass(frozen=True)
class FittedPrompt:
    """A prompt and a sampling that together fit the context."""

    token_ids: list[int]
    sampling: Sampling


def fit_prompt(prompt: list[int], sampling: Sampling, context_length: int) -> FittedPrompt:
    """Cut the left of the prompt, but never below half of the context; then shorten the answer to what is left.

    Raises:
        EngineError: the prompt is empty.
    """
    if not prompt:
        raise EngineError("The prompt has no tokens.")
    keep = max(context_length - sampling.max_tokens, context_length // 2, 1)
    kept = prompt[-keep:]
    room = max(1, context_length - len(kept))
    return FittedPrompt(kept, replace(sampling, max_tokens=min(sampling.max_tokens, room)))


def _header(file: Path) -> list[tuple[str, tuple[int, ...]]]:
    with file.open("rb") as stream:
        (length,) = struct.unpack("<Q", stream.read(8))
        header = json.loads(stream.read(length))
    return [(name, tuple(entry["shape"])) for name, entry in header.items() if name != "__metadata__"]
