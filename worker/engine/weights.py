"""Weights of a checkpoint folder, copied into a model that stands already."""

from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open


def copy_weights(model: Any, folder: Path) -> None:
    """Overwrite every parameter with the tensor of its name; a copy of a tied weight in the files is left out.

    Raises:
        ValueError: a parameter has no tensor in the files, or one of another shape.
    """
    parameters = dict(model.named_parameters())
    absent = set(parameters)
    with torch.no_grad():
        for file in sorted(folder.glob("*.safetensors")):
            with safe_open(str(file), framework="pt") as tensors:
                for name in absent.intersection(tensors.keys()):
                    tensor = tensors.get_tensor(name)
                    if tensor.shape != parameters[name].shape:
                        raise ValueError(f"the tensor {name} has the shape {tuple(tensor.shape)}")
                    parameters[name].copy_(tensor)
                    absent.discard(name)
    if absent:
        raise ValueError(f"the tensor {min(absent)} is missing")
