"""Quantized linear layers in plain torch: what a 4-bit or W8A8 checkpoint computes, without a kernel of its own.

The transformers engine scores with these, and vLLM's kernels are held against them at every load. `registry.quantized`
says which forms there are.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from transformers import LlamaConfig, LlamaForCausalLM

from registry.quantized import GPTQ, PROJECTION, WHOLE_ROW, Quantization

_ZERO = 8
"""What a 4-bit number stands for 0, in symmetric GPTQ."""
_INT8 = 127


class Int8Linear(torch.nn.Module):  # type: ignore[misc]
    """y = x W^T with int8 weights, a scale a channel, and activations rounded to int8 with a scale a token."""

    def __init__(self, weight: torch.Tensor, scale: torch.Tensor, dtype: torch.dtype) -> None:
        """`weight` is [out, in] in int8, `scale` [out, 1]."""
        super().__init__()
        # Integers up to 256 are exact in bf16, so that an ordinary product can take them.
        self.register_buffer("weight", weight.to(dtype), persistent=False)
        self.register_buffer("scale", scale.reshape(-1).float(), persistent=False)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """[..., in] to [..., out]."""
        weight, scale = self.get_buffer("weight"), self.get_buffer("scale")
        reach = inputs.float().abs().amax(dim=-1, keepdim=True).clamp(min=1e-7) / _INT8
        rounded = (inputs.float() / reach).round().clamp(-_INT8 - 1, _INT8)
        product = torch.nn.functional.linear(rounded.to(weight.dtype), weight)
        return (product.float() * reach * scale).to(inputs.dtype)


def load_quantized(folder: Path, quantization: Quantization, dtype: torch.dtype) -> Any:
    """A LLaMA that computes with the quantized weights of a folder.

    Raises:
        ValueError, OSError, KeyError, SafetensorError: tensors are missing, or cannot be read.
    """
    config = LlamaConfig.from_pretrained(str(folder), local_files_only=True)
    if hasattr(config, "quantization_config"):
        del config.quantization_config
    layers: dict[str, dict[str, torch.Tensor]] = {}
    state: dict[str, torch.Tensor] = {}
    for name, read in tensors_of(folder).items():
        if PROJECTION.fullmatch(name):
            layer, part = name.rsplit(".", 1)
            layers.setdefault(layer, {})[part] = read()
        elif not name.endswith("rotary_emb.inv_freq"):
            state[name] = read()
    for layer, parts in layers.items():
        state[f"{layer}.weight"] = (
            dequantize(parts, quantization) if quantization.method == GPTQ else parts["weight"].to(dtype)
        )
    model = LlamaForCausalLM.from_pretrained(None, config=config, state_dict=state, dtype=dtype)
    if quantization.method != GPTQ:
        for layer, parts in layers.items():
            parent, _, own = layer.rpartition(".")
            setattr(model.get_submodule(parent), own, Int8Linear(parts["weight"], parts["weight_scale"], dtype))
    return model


def dequantize(parts: Mapping[str, torch.Tensor], quantization: Quantization) -> torch.Tensor:
    """The float32 weight [out, in] that the parts of one layer stand for."""
    if quantization.method != GPTQ:
        return parts["weight"].float() * parts["weight_scale"].float()
    numbers = unpack_rows(parts["qweight"])
    scales = parts["scales"].float()
    columns = numbers.shape[0]
    size = columns if quantization.group_size == WHOLE_ROW else quantization.group_size
    groups = torch.arange(columns) // size
    return ((numbers - _ZERO).float() * scales[groups]).T.contiguous()


def unpack_rows(packed: torch.Tensor) -> torch.Tensor:
    """4-bit numbers from 0 to 15: [N / 8, M] of int32 becomes [N, M], eight from each, the lowest bits first."""
    shifts = torch.arange(0, 32, 4, dtype=torch.int32)
    return ((packed[:, None, :] >> shifts[None, :, None]) & 15).reshape(-1, packed.shape[1])


def unpack_columns(packed: torch.Tensor) -> torch.Tensor:
    """4-bit numbers from 0 to 15: [N, M / 8] of int32 becomes [N, M]."""
    return unpack_rows(packed.T).T


def tensors_of(folder: Path) -> dict[str, Callable[[], torch.Tensor]]:
    """What reads each tensor of a folder, by name; an open file a tensor, so that none stays mapped."""
    found: dict[str, Callable[[], torch.Tensor]] = {}
    for file in sorted(folder.glob("*.safetensors")):
        with safe_open(str(file), framework="pt") as tensors:
            for name in tensors.keys():  # noqa: SIM118 - a safetensors handle is no dict
                found[name] = _reader(file, name)
    return found


def _reader(file: Path, name: str) -> Callable[[], torch.Tensor]:
    def read() -> torch.Tensor:
        with safe_open(str(file), framework="pt") as tensors:
            found: torch.Tensor = tensors.get_tensor(name)
        return found

    return read
