"""Whether packed weights mean what their configuration says: kernels do not look, and would compute something else."""

from collections.abc import Callable, Mapping
from pathlib import Path

import torch

from registry.errors import Invalid
from registry.quantized import GPTQ, WHOLE_ROW, Quantization
from worker.engine.packed import tensors_of, unpack_rows


def check_packing(folder: Path, quantization: Quantization) -> None:
    """Look at the small tensors beside the packed weights; a kernel for symmetric GPTQ reads none of them.

    Raises:
        Invalid: a zero point is not the middle, groups are not in order, or a bias is not zero.
    """
    if quantization.method != GPTQ:
        return
    for name, read in tensors_of(folder).items():
        part = name.rsplit(".", 1)[-1]
        if part in _CHECKS and name.startswith("model.layers."):
            _CHECKS[part](name, read(), quantization)


def _check_zeros(name: str, tensor: torch.Tensor, quantization: Quantization) -> None:
    if not bool((unpack_rows(tensor) == quantization.zero).all()):
        raise Invalid(
            "%(name)s holds other zero points than the middle: the weights are not symmetric, although the "
            "configuration says so. vLLM serves symmetric ones only.",
            name=name,
        )


def _check_order(name: str, tensor: torch.Tensor, quantization: Quantization) -> None:
    size = tensor.numel() if quantization.group_size == WHOLE_ROW else quantization.group_size
    if not torch.equal(tensor.long(), torch.arange(tensor.numel()) // size):
        raise Invalid(
            "%(name)s is not in order: the weights were quantized by activation order (desc_act), which vLLM no longer "
            "serves.",
            name=name,
        )


def _check_bias(name: str, tensor: torch.Tensor, quantization: Quantization) -> None:
    if bool(tensor.count_nonzero()):
        raise Invalid("%(name)s is not zero, but config.json says that the layers have no bias.", name=name)


_CHECKS: Mapping[str, Callable[[str, torch.Tensor, Quantization], None]] = {
    "qzeros": _check_zeros,
    "g_idx": _check_order,
    "bias": _check_bias,
}
