"""The tensors that a LLaMA checkpoint must have, computed from its config.json alone."""

import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from registry import jsonfiles, quantized
from registry.errors import Invalid
from registry.quantized import Quantization
from registry.tensors import Tensor

LIMITS = {
    "vocab_size": 2_000_000,
    "hidden_size": 65_536,
    "intermediate_size": 524_288,
    "num_hidden_layers": 1_024,
    "num_attention_heads": 1_024,
    "max_position_embeddings": 16_777_216,
}
"""Beyond these a config.json is lying, and building its model would exhaust this machine."""
OPTIONAL_LIMITS = {"num_key_value_heads": 1_024, "head_dim": 65_536}
DTYPES = {"bfloat16": "BF16", "float16": "F16", "float32": "F32"}
"""config.json's words for number formats, and those of safetensors."""
FLOATS = tuple(DTYPES.values())
COMPUTED = "rotary_emb.inv_freq"
"""Old exports carry rotary buffers, which are computed and not learned."""


class Expected(NamedTuple):
    """A tensor that weights must have, or may have."""

    shape: tuple[int, ...]
    dtypes: tuple[str, ...]
    """The number formats that it may be stored in."""
    is_optional: bool = False


class Dimensions(NamedTuple):
    """The sizes of a LLaMA model."""

    vocabulary: int
    hidden: int
    intermediate: int
    layers: int
    heads: int
    key_value_heads: int
    head: int
    attention_bias: bool
    mlp_bias: bool
    is_tied: bool


def dimensions(config: Mapping[str, Any]) -> Dimensions:
    """The sizes that a config.json names, if they are credible.

    Raises:
        Invalid: one is missing, no number, or beyond what this site takes.
    """
    for name, limit in LIMITS.items():
        _check_number(name, config.get(name), limit)
    for name, limit in OPTIONAL_LIMITS.items():
        if config.get(name) is not None:
            _check_number(name, config[name], limit)
    for name in ("attention_bias", "mlp_bias", "tie_word_embeddings"):
        if not isinstance(config.get(name) or False, bool):
            raise Invalid("config.json: %(name)s must be true or false.", name=name)
    heads = config["num_attention_heads"]
    return Dimensions(
        vocabulary=config["vocab_size"],
        hidden=config["hidden_size"],
        intermediate=config["intermediate_size"],
        layers=config["num_hidden_layers"],
        heads=heads,
        key_value_heads=config.get("num_key_value_heads") or heads,
        head=config.get("head_dim") or max(1, config["hidden_size"] // heads),
        attention_bias=bool(config.get("attention_bias")),
        mlp_bias=bool(config.get("mlp_bias")),
        is_tied=bool(config.get("tie_word_embeddings")),
    )


def expected_tensors(config: Mapping[str, Any], quantization: Quantization | None = None) -> dict[str, Expected]:
    """Name, shape and number format of each tensor that the weights must have, or may have.

    A quantized checkpoint has other tensors in place of its linear layers' weights, as `registry.quantized` says.

    Raises:
        Invalid: config.json is not credible.
    """
    sizes = dimensions(config)
    stored = FLOATS if quantization else _stored_as(config)
    plain = {name: Expected(shape, stored) for name, shape in _shapes(sizes)}
    plain["lm_head.weight"] = plain["lm_head.weight"]._replace(is_optional=sizes.is_tied)
    return _quantize(plain, quantization) if quantization else plain


def _quantize(plain: Mapping[str, Expected], quantization: Quantization) -> dict[str, Expected]:
    found = {}
    shapes = {name: tensor.shape for name, tensor in plain.items()}
    for name, (shape, dtypes) in quantized.expected_tensors(shapes, quantization).items():
        known = plain.get(name, Expected(shape, FLOATS))
        found[name] = known._replace(shape=shape, dtypes=tuple(sorted(dtypes)) or known.dtypes)
    for name in quantized.optional_tensors(plain, quantization):
        rows = shapes[name.removesuffix(".bias") + ".weight"][0]
        found.setdefault(name, Expected((rows,), FLOATS, is_optional=True))
    return found


def num_parameters(config: Mapping[str, Any]) -> int:
    """How many numbers a model has that is built from config.json, whatever form they are stored in.

    Raises:
        Invalid: as `dimensions`.
    """
    sizes = dimensions(config)
    return sum(math.prod(shape) for name, shape in _shapes(sizes) if not (sizes.is_tied and name == "lm_head.weight"))


def read_config(folder: Path) -> dict[str, Any]:
    """A folder's config.json.

    Raises:
        Invalid: it is no such file.
    """
    try:
        return jsonfiles.read_object(folder / "config.json")
    except FileNotFoundError:
        raise Invalid("There is no config.json at the top of the folder.") from None


def compare(found: Mapping[str, Tensor], expected: Mapping[str, Expected]) -> None:
    """Whether the weights have the tensors that they must have, in shape and number format, and no other.

    Raises:
        Invalid: naming the first that is not so.
    """
    missing = sorted(name for name, tensor in expected.items() if not tensor.is_optional and name not in found)
    if missing:
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise Invalid("The weights lack the tensor %(name)s%(more)s.", name=missing[0], more=more)
    surplus = sorted(name for name in found.keys() - expected.keys() if not name.endswith(COMPUTED))
    if surplus:
        raise Invalid(
            "The weights hold the tensor %(name)s, which the architecture does not have.", name=surplus[0][:80]
        )
    for name, wanted in expected.items():
        if name in found:
            _compare_one(name, found[name], wanted)


def _compare_one(name: str, found: Tensor, wanted: Expected) -> None:
    if found.shape != wanted.shape:
        raise Invalid(
            "The tensor %(name)s has the shape %(found)s; config.json asks for %(wanted)s.",
            name=name,
            found=found.shape,
            wanted=wanted.shape,
        )
    if found.dtype not in wanted.dtypes:
        raise Invalid(
            "The tensor %(name)s is stored as %(found)s; config.json asks for %(wanted)s.",
            name=name,
            found=found.dtype,
            wanted=" or ".join(wanted.dtypes),
        )


def _check_number(name: str, value: Any, limit: int) -> None:
    if type(value) is not int or not 1 <= value <= limit:
        raise Invalid(
            "config.json: %(name)s is %(value)s; it must be a number from 1 to %(limit)s.",
            name=name,
            value=repr(str(value)[:40]),
            limit=f"{limit:,}",
        )


def _stored_as(config: Mapping[str, Any]) -> tuple[str, ...]:
    named = config.get("dtype") or config.get("torch_dtype")
    if named is None:
        return FLOATS
    if not isinstance(named, str) or named not in DTYPES:
        raise Invalid(
            "config.json: dtype is %(value)s; known are %(known)s.",
            value=repr(str(named)[:40]),
            known=", ".join(DTYPES),
        )
    return (DTYPES[named],)


def _shapes(sizes: Dimensions) -> Iterator[tuple[str, tuple[int, ...]]]:
    yield "model.embed_tokens.weight", (sizes.vocabulary, sizes.hidden)
    for layer in range(sizes.layers):
        yield f"model.layers.{layer}.input_layernorm.weight", (sizes.hidden,)
        yield f"model.layers.{layer}.post_attention_layernorm.weight", (sizes.hidden,)
        for name, rows, columns, has_bias in _linear_layers(sizes):
            yield f"model.layers.{layer}.{name}.weight", (rows, columns)
            if has_bias:
                yield f"model.layers.{layer}.{name}.bias", (rows,)
    yield "model.norm.weight", (sizes.hidden,)
    yield "lm_head.weight", (sizes.vocabulary, sizes.hidden)


def _linear_layers(sizes: Dimensions) -> Iterator[tuple[str, int, int, bool]]:
    """Of each of a block its name, rows (outputs), columns (inputs), and whether it has a bias."""
    queries, keys = sizes.heads * sizes.head, sizes.key_value_heads * sizes.head
    yield "self_attn.q_proj", queries, sizes.hidden, sizes.attention_bias
    yield "self_attn.k_proj", keys, sizes.hidden, sizes.attention_bias
    yield "self_attn.v_proj", keys, sizes.hidden, sizes.attention_bias
    yield "self_attn.o_proj", sizes.hidden, queries, sizes.attention_bias
    yield "mlp.gate_proj", sizes.intermediate, sizes.hidden, sizes.mlp_bias
    yield "mlp.up_proj", sizes.intermediate, sizes.hidden, sizes.mlp_bias
    yield "mlp.down_proj", sizes.hidden, sizes.intermediate, sizes.mlp_bias
