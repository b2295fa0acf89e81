"""8 bit: int8 weights rounded to the nearest with a scale a channel, activations scaled by token as they come.

In compressed-tensors form, whose library decides scales and rounding; one file of the source at a time, so that the
memory it takes does not grow with the model.
"""

import json
from pathlib import Path
from typing import Any

import torch
from compressed_tensors.quantization import QuantizationConfig, QuantizationStatus, preset_name_to_scheme
from compressed_tensors.quantization.lifecycle.forward import quantize
from compressed_tensors.quantization.utils import calculate_qparams
from safetensors import safe_open
from safetensors.torch import save_file

from registry.quantized import PROJECTION
from worker.copying import copy_rest, write_config

FORMAT = "int-quantized"
INDEX = "model.safetensors.index.json"


def write_w8a8(source: Path, target: Path) -> None:
    """Quantize the linear layers of the LLaMA in `source` into a new folder; the rest of it is copied.

    The embeddings stay as they are, and with them a head that is tied to them.
    """
    target.mkdir()
    scheme = preset_name_to_scheme("W8A8", ["Linear"])
    places: dict[str, str] = {}
    num_bytes = 0
    for file in sorted(source.glob("*.safetensors")):
        tensors = _quantized(file, scheme.weights)
        save_file(tensors, str(target / file.name), metadata={"format": "pt"})
        (target / file.name).chmod(0o644)  # safetensors keeps new files to their owner
        places |= dict.fromkeys(tensors, file.name)
        num_bytes += sum(tensor.nbytes for tensor in tensors.values())
    if (source / INDEX).is_file():
        index = {"metadata": {"total_size": num_bytes}, "weight_map": places}
        (target / INDEX).write_text(json.dumps(index, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    copy_rest(source, target)
    settings = QuantizationConfig(
        config_groups={"group_0": scheme},
        quant_method="compressed-tensors",
        format=FORMAT,
        quantization_status=QuantizationStatus.COMPRESSED,
        ignore=["lm_head"],
    )
    write_config(source, target, settings.model_dump(mode="json"))


def _quantized(file: Path, arguments: Any) -> dict[str, torch.Tensor]:
    found: dict[str, torch.Tensor] = {}
    with safe_open(str(file), framework="pt") as tensors:
        for name in tensors.keys():  # noqa: SIM118 - a safetensors handle is no dict
            tensor = tensors.get_tensor(name)
            if not PROJECTION.fullmatch(name) or not name.endswith(".weight"):
                found[name] = tensor
                continue
            weight = tensor.float()
            low, high = weight.amin(dim=1, keepdim=True), weight.amax(dim=1, keepdim=True)
            scale, zero = calculate_qparams(low, high, arguments)
            found[name] = quantize(weight, scale, zero, arguments, dtype=torch.int8)
            found[f"{name}_scale"] = scale
    return found
