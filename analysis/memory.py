"""How much memory a LLaMA needs while it answers, from its config.json.

Four parts are added up:

- **Weights**, tensor by tensor. The linear layers of the blocks have the checkpoint's precision; embeddings, head and
  norms stay in 16 bit, as GPTQ and compressed-tensors keep them. GPTQ's groups carry a 16-bit scale and a 4-bit zero
  for each output channel, and a 32-bit index for each input channel; W8A8 carries one 16-bit scale an output channel.
- **KV cache**: 2 (key and value) x layers x key-value heads x head width x bytes of the number format, for each token
  that is read or written, of each answer under way (Pope et al. 2022, "Efficiently Scaling Transformer Inference").
- **Activations** of the tokens that are computed in one step, and the **logits** of the rows that are drawn from.
- **The engine itself**: libraries, kernels, graphs. A constant, measured by `benchmarks/memory.py`.

Sizes are in bytes. Everything is checked against the measured peak of engines; see that benchmark.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

GIB = 2**30
STEP_TOKENS = 2_048
"""Tokens that an engine computes at a time while it reads prompts: vLLM's `max_num_batched_tokens`."""
FP32, HALF = 4.0, 2.0
GROUP_SIZE = 128
"""Input channels that share a scale, where the config does not say."""
MAX_NUMBER = 2**40
"""Beyond this a config.json is lying; the verification refuses far smaller ones."""


@dataclass(frozen=True)
class Shape:
    """What memory depends on in a config.json."""

    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_layers: int
    num_heads: int
    num_kv_heads: int
    head_width: int
    context_length: int
    is_tied: bool
    """One table is both embedding and head."""
    has_attention_bias: bool = False
    has_mlp_bias: bool = False

    @property
    def linear_sizes(self) -> tuple[tuple[int, int], ...]:
        """Inputs and outputs of the linear layers of one block."""
        queries, keys = self.num_heads * self.head_width, self.num_kv_heads * self.head_width
        wide, deep = self.hidden_size, self.intermediate_size
        return ((wide, queries), (wide, keys), (wide, keys), (queries, wide), (wide, deep), (wide, deep), (deep, wide))

    @property
    def num_linear(self) -> int:
        """Weights of all linear layers, without the head."""
        return self.num_layers * sum(inputs * outputs for inputs, outputs in self.linear_sizes)

    @property
    def num_other(self) -> int:
        """Weights that quantization leaves as they are: embedding, head, norms, biases."""
        tables = self.vocab_size * self.hidden_size * (1 if self.is_tied else 2)
        sizes = [outputs for _, outputs in self.linear_sizes]
        biases = (sum(sizes[:4]) if self.has_attention_bias else 0) + (sum(sizes[4:]) if self.has_mlp_bias else 0)
        return tables + self.hidden_size + self.num_layers * (2 * self.hidden_size + biases)

    @property
    def num_parameters(self) -> int:
        """All weights."""
        return self.num_linear + self.num_other


@dataclass(frozen=True)
class Load:
    """What is asked of the model."""

    context: int
    """Tokens of one answer: read and written."""
    batch: int = 1
    """Answers at a time."""
    number_bytes: float = HALF
    """Of activations, KV cache and 16-bit weights: 2, or 4 where a processor computes in fp32."""
    step_tokens: int = STEP_TOKENS
    """Tokens that are computed at a time."""
    kv_copies: float = 1.0
    """1 for a cache in pages, as vLLM's; 2 for transformers', which is copied into a longer one at each token."""

    @property
    def kv_tokens(self) -> int:
        """Tokens whose keys and values are kept."""
        return self.context * self.batch


@dataclass(frozen=True)
class Need:
    """Bytes, by what they are for."""

    weights: float
    kv_cache: float
    activations: float
    engine: float

    @property
    def total(self) -> float:
        """All of it."""
        return self.weights + self.kv_cache + self.activations + self.engine


def read_shape(config: Mapping[str, Any]) -> Shape:
    """The shape that a config.json describes.

    Raises:
        ValueError: a number is missing or no number.
    """
    hidden, heads = _whole(config, "hidden_size"), _whole(config, "num_attention_heads")
    return Shape(
        vocab_size=_whole(config, "vocab_size"),
        hidden_size=hidden,
        intermediate_size=_whole(config, "intermediate_size"),
        num_layers=_whole(config, "num_hidden_layers"),
        num_heads=heads,
        num_kv_heads=_whole(config, "num_key_value_heads", heads),
        head_width=_whole(config, "head_dim", max(1, hidden // heads)),
        context_length=_whole(config, "max_position_embeddings"),
        is_tied=bool(config.get("tie_word_embeddings", False)),
        has_attention_bias=bool(config.get("attention_bias", False)),
        has_mlp_bias=bool(config.get("mlp_bias", False)),
    )


def architecture_key(shape: Shape, bits: int) -> str:
    """16 hex digits that two checkpoints share where they need the same memory."""
    text = json.dumps([asdict(shape), bits], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def weight_bytes(shape: Shape, bits: int, number_bytes: float = HALF, group_size: int = GROUP_SIZE) -> float:
    """Of a checkpoint in 16, 8 (W8A8) or 4 bit (GPTQ); `group_size` -1 is one group an output channel.

    Raises:
        ValueError: another precision.
    """
    rest = shape.num_other * number_bytes
    if bits == 16:
        return shape.num_linear * number_bytes + rest
    if bits == 8:
        scales = sum(outputs for _, outputs in shape.linear_sizes)
        return shape.num_linear + rest + shape.num_layers * scales * HALF
    if bits == 4:
        return shape.num_linear / 2 + rest + shape.num_layers * _group_bytes(shape, group_size)
    raise ValueError(f"There is no precision of {bits} bit.")


def kv_bytes_per_token(shape: Shape, number_bytes: float = HALF) -> float:
    """Keys and values of one token."""
    return 2 * shape.num_layers * shape.num_kv_heads * shape.head_width * number_bytes


def activation_bytes(shape: Shape, load: Load) -> float:
    """What one step holds at its widest: the feed-forward part of a block, and the logits of each answer.

    Of a token: the residual before and after, gate, up and their product. Of an answer: its logits as they come and
    in fp32, once more as probabilities.
    """
    tokens = min(load.step_tokens, load.kv_tokens)
    block = tokens * (3 * shape.hidden_size + 3 * shape.intermediate_size) * load.number_bytes
    return block + load.batch * shape.vocab_size * (load.number_bytes + 2 * FP32)


def estimate(shape: Shape, bits: int, load: Load, *, engine: float, group_size: int = GROUP_SIZE) -> Need:
    """What a checkpoint needs under a load; `engine` is what the engine takes without a model.

    Raises:
        ValueError: another precision than 16, 8 or 4.
    """
    return Need(
        weights=weight_bytes(shape, bits, load.number_bytes, group_size),
        kv_cache=kv_bytes_per_token(shape, load.number_bytes) * load.kv_tokens * load.kv_copies,
        activations=activation_bytes(shape, load),
        engine=engine,
    )


def _group_bytes(shape: Shape, group_size: int) -> float:
    """Scales, zeros and indices of one block's layers."""
    found = 0.0
    for inputs, outputs in shape.linear_sizes:
        groups = 1 if group_size <= 0 else -(-inputs // group_size)
        found += groups * outputs * (HALF + 0.5) + inputs * 4
    return found


def _whole(config: Mapping[str, Any], name: str, default: int | None = None) -> int:
    value = config.get(name)
    value = default if value is None else value
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= MAX_NUMBER:
        raise ValueError(f"config.json: {name} is {str(value)[:40]!r}, which is no number of this kind.")
    return value
