"""What a checkpoint folder says of its own quantization, and which forms are taken in.

Two are: GPTQ in AutoGPTQ's format (4 bit, symmetric), and W8A8 in compressed-tensors form. A folder that AutoGPTQ
itself wrote says so in `quantize_config.json` alone, which transformers does not read; `normalize` mends that.
"""

import json
import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from registry.errors import Invalid

GPTQ, W8A8 = "gptq", "w8a8"
PLAIN_BITS = 16
GROUP_SIZES = (128, 64, 32)
"""The largest that divides a layer is taken: small groups cost memory, large ones quality."""
MULTIPLE = 32
"""vLLM's 4-bit kernel for processors wants both sides of every layer to be a multiple of this (0.32.0)."""
WHOLE_ROW = -1
"""GPTQ's name for one group a row."""
OLD_CONFIG = "quantize_config.json"
WEIGHTS = "model.safetensors"
FORMATS = ("gptq", "gptq_v2")
PROJECTION = re.compile(
    r"model\.layers\.\d+\.(?:self_attn\.[qkvo]_proj|mlp\.(?:gate|up|down)_proj)\.(?P<part>\w+)",
)
"""The parts of the linear layers; embeddings, norms and the head stay in 16 bits."""


class Quantization(NamedTuple):
    """How the linear layers of a checkpoint are stored."""

    method: str
    """`gptq` or `w8a8`."""
    bits: int
    group_size: int = WHOLE_ROW
    """Weights of a row that share a scale; -1: the whole row."""
    zero: int = 0
    """What stands in `qzeros` for a zero point of 8: AutoGPTQ's format holds one less."""

    @property
    def name(self) -> str:
        """In a few words, for people."""
        if self.method == W8A8:
            return "W8A8, compressed-tensors"
        return f"GPTQ, {self.bits} bit" + (f", groups of {self.group_size}" if self.group_size > 0 else "")


def read(folder: Path) -> Quantization | None:
    """How a folder is quantized, from config.json or, where that is silent, `quantize_config.json`; None: it is not.

    Raises:
        Invalid: in a form that is not served here.
    """
    config = _read_json(folder / "config.json")
    content = config.get("quantization_config")
    if content is None and (folder / OLD_CONFIG).is_file():
        content = {"quant_method": "gptq", **_read_json(folder / OLD_CONFIG)}
    return None if content is None else parse(content)


def parse(content: object) -> Quantization:
    """What a `quantization_config` means.

    Raises:
        Invalid: it is in a form that is not served here.
    """
    if not isinstance(content, dict):
        raise Invalid("quantization_config of config.json must hold an object.")
    method = str(content.get("quant_method", content.get("method", "")))[:40]
    if method == "gptq":
        return _parse_gptq(content)
    if method == "compressed-tensors":
        return _parse_compressed(content)
    raise Invalid(
        "The quantization '%(method)s' is not served here: bring GPTQ in AutoGPTQ's format (4 bit, symmetric), W8A8 in "
        "compressed-tensors form, or 16 bits.",
        method=method,
    )


def precision_of(folder: Path) -> int:
    """Bits of a weight in a folder: 16, 8 or 4.

    Raises:
        Invalid: as of `read`.
    """
    found = read(folder)
    return PLAIN_BITS if found is None else found.bits


def normalize(folder: Path, hashes: Mapping[str, str] | None = None) -> dict[str, str]:
    """Write what AutoGPTQ put beside config.json into it, and give its weights the usual name; twice is as once.

    Of `hashes` by file name those that still hold are returned, by the names that the files have now.

    Raises:
        Invalid: as of `read`.
    """
    if not (folder / OLD_CONFIG).is_file() or read(folder) is None:
        return dict(hashes or {})
    known = dict(hashes or {})
    config = _read_json(folder / "config.json")
    if "quantization_config" not in config:
        old = _read_json(folder / OLD_CONFIG)
        kept = {name: old[name] for name in ("bits", "group_size", "damp_percent", "true_sequential") if name in old}
        flags = {"desc_act": False, "sym": True, "lm_head": False}
        form = {"quant_method": "gptq", "checkpoint_format": _format(old)}
        config["quantization_config"] = {**kept, **flags, **form}
        _write_json(folder / "config.json", config)
        known.pop("config.json", None)
    weights = [path for path in folder.glob("*.safetensors") if path.is_file()]
    if len(weights) == 1 and weights[0].name.startswith("gptq_model-"):
        weights[0].rename(folder / WEIGHTS)
        if sha256 := known.pop(weights[0].name, ""):
            known[WEIGHTS] = sha256
    return known


def choose_group_size(config: Mapping[str, Any]) -> int:
    """The largest of `GROUP_SIZES` that divides the input of every linear layer.

    Raises:
        Invalid: a layer's side is no multiple of 32, so its 4-bit form could not be served.
    """
    inputs, outputs = layer_sides(config)
    for name, side in {**inputs, **outputs}.items():
        if side % MULTIPLE:
            raise Invalid(
                "4 bit is not possible: %(name)s is %(side)s, and vLLM's kernel wants a multiple of %(multiple)s.",
                name=name,
                side=side,
                multiple=MULTIPLE,
            )
    return next(size for size in GROUP_SIZES if all(side % size == 0 for side in inputs.values()))


def layer_sides(config: Mapping[str, Any]) -> tuple[dict[str, int], dict[str, int]]:
    """Widths of what goes into the linear layers, and of what only comes out of them, by a name for people.

    Raises:
        Invalid: config.json lacks one of them.
    """
    try:
        hidden, heads = int(config["hidden_size"]), int(config["num_attention_heads"])
        head = int(config.get("head_dim") or hidden // heads)
        groups = int(config.get("num_key_value_heads") or heads)
        inner = int(config["intermediate_size"])
    except (KeyError, TypeError, ValueError, ZeroDivisionError) as error:
        raise Invalid("config.json does not say how wide its layers are: %(error)s.", error=error) from error
    return {"hidden_size": hidden, "intermediate_size": inner, "the width of all heads": heads * head}, {
        "the width of all key heads": groups * head
    }


def expected_tensors(
    plain: Mapping[str, tuple[int, ...]], quantization: Quantization
) -> dict[str, tuple[tuple[int, ...], frozenset[str]]]:
    """Shapes and number formats of a quantized folder's tensors, given the shapes of the 16-bit one's.

    A format of None in the file may be any for tensors that are not quantized: their set is empty.
    """
    found: dict[str, tuple[tuple[int, ...], frozenset[str]]] = {}
    for name, shape in plain.items():
        if not PROJECTION.fullmatch(name) or not name.endswith(".weight"):
            found[name] = (shape, frozenset())
            continue
        rows, columns = shape
        base = name.removesuffix(".weight")
        if quantization.method == W8A8:
            found[name] = (shape, frozenset({"I8"}))
            found[f"{base}.weight_scale"] = ((rows, 1), frozenset({"F32", "BF16", "F16"}))
        else:
            groups = 1 if quantization.group_size == WHOLE_ROW else -(-columns // quantization.group_size)
            packed = 32 // quantization.bits
            found[f"{base}.qweight"] = ((columns // packed, rows), frozenset({"I32"}))
            found[f"{base}.qzeros"] = ((groups, rows // packed), frozenset({"I32"}))
            found[f"{base}.scales"] = ((groups, rows), frozenset({"F16", "BF16", "F32"}))
            found[f"{base}.g_idx"] = ((columns,), frozenset({"I32"}))
    return found


def optional_tensors(plain: Iterable[str], quantization: Quantization) -> frozenset[str]:
    """Tensors that a quantized folder may have and need not: AutoGPTQ wrote biases of zeros for layers without any."""
    if quantization.method != GPTQ:
        return frozenset()
    layers = [name.removesuffix(".weight") for name in plain if PROJECTION.fullmatch(name)]
    return frozenset(f"{layer}.bias" for layer in layers)


def _parse_gptq(content: Mapping[str, Any]) -> Quantization:
    bits, group_size = content.get("bits"), content.get("group_size", WHOLE_ROW)
    if isinstance(bits, bool) or not isinstance(bits, int) or bits != 4:
        raise Invalid(
            "GPTQ with %(bits)s bits is not served here, only 4: vLLM has no other kernel on processors.",
            bits=str(bits)[:20],
        )
    if content.get("sym", True) is not True:
        raise Invalid(
            "GPTQ with sym=false is not served: vLLM reads symmetric 4-bit weights only. Quantize with sym=true."
        )
    if isinstance(group_size, bool) or not isinstance(group_size, int) or group_size not in (WHOLE_ROW, *GROUP_SIZES):
        raise Invalid(
            "A GPTQ group of %(size)s is not served; possible are %(known)s.",
            size=str(group_size)[:20],
            known=", ".join(str(size) for size in (WHOLE_ROW, *GROUP_SIZES)),
        )
    if content.get("desc_act", False) and group_size != WHOLE_ROW:
        raise Invalid(
            "GPTQ with desc_act=true (act-order) and groups is no longer served by vLLM. Quantize with desc_act=false."
        )
    if content.get("dynamic"):
        raise Invalid("GPTQ with rules for single layers (dynamic) is not served here.")
    if content.get("lm_head", False):
        raise Invalid("GPTQ with a quantized lm_head is not served here: leave the head in 16 bits.")
    return Quantization(GPTQ, 4, group_size, zero=7 if _format(content) == "gptq" else 8)


def _format(content: Mapping[str, Any]) -> str:
    found = str(content.get("checkpoint_format") or content.get("format") or "gptq")
    if found not in FORMATS:
        raise Invalid(
            "The GPTQ format '%(format)s' is not served; possible are %(known)s.",
            format=found[:40],
            known=", ".join(FORMATS),
        )
    return found


def _parse_compressed(content: Mapping[str, Any]) -> Quantization:
    groups = content.get("config_groups")
    schemes = list(groups.values()) if isinstance(groups, dict) else []
    is_known = (
        len(schemes) == 1
        and isinstance(schemes[0], dict)
        and content.get("format") == "int-quantized"
        and not content.get("kv_cache_scheme")
        and schemes[0].get("targets") == ["Linear"]
        and _is_int8(schemes[0].get("weights"), "channel", is_dynamic=False)
        and _is_int8(schemes[0].get("input_activations"), "token", is_dynamic=True)
        and not schemes[0].get("output_activations")
        and content.get("ignore") == ["lm_head"]
    )
    if not is_known:
        raise Invalid(
            "This compressed-tensors form is not served here: the one that is has int8 weights with a scale a channel, "
            "int8 activations scaled by token as they come, and lm_head left alone (format int-quantized)."
        )
    return Quantization(W8A8, 8)


def _is_int8(arguments: object, strategy: str, *, is_dynamic: bool) -> bool:
    wanted = {"num_bits": 8, "type": "int", "symmetric": True, "strategy": strategy, "dynamic": is_dynamic}
    return isinstance(arguments, dict) and all(arguments.get(name) == value for name, value in wanted.items())


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text())
    except FileNotFoundError:
        raise Invalid("There is no %(file)s at the top of the folder.", file=path.name) from None
    except (json.JSONDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Invalid("%(file)s is not valid JSON: %(error)s.", file=path.name, error=error) from error
    if not isinstance(content, dict):
        raise Invalid("%(file)s must hold an object.", file=path.name)
    return content


def _write_json(path: Path, content: Mapping[str, Any]) -> None:
    # A new file: the old one may be a link to a blob that other folders share.
    temporary = path.with_name(f".{path.name}.new")
    temporary.write_text(json.dumps(content, indent=2, sort_keys=True) + "\n")
    os.replace(temporary, path)
