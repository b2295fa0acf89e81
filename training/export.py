"""A running DeepSpeed engine as a Hugging Face folder: config, bf16 safetensors, tokenizer."""

import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import deepspeed
import torch
from huggingface_hub import save_torch_state_dict
from transformers import GenerationConfig

from training import distributed

MAX_SHARD_SIZE = "5GB"


def write_checkpoint(model: Any, tokenizer_folder: Path, folder: Path) -> None:
    """Write the folder from process 0; under ZeRO 3 every process takes part in gathering the weights.

    The same weights give the same bytes, so writing a checkpoint again after a crash changes nothing.
    """
    weights = dict(_whole_weights(model))
    if distributed.rank() == 0:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        save_torch_state_dict(weights, folder, max_shard_size=MAX_SHARD_SIZE, safe_serialization=True)
        _write_configs(model, folder)
        for path in sorted(tokenizer_folder.iterdir()):
            shutil.copyfile(path, folder / path.name)
    distributed.barrier()


def _whole_weights(model: Any) -> Iterator[tuple[str, torch.Tensor]]:
    """Every weight once, whole, in bf16, on process 0; tied ones under their first name."""
    for name, parameter in model.named_parameters():
        with _gathered(parameter):
            if distributed.rank() == 0:
                yield name, parameter.detach().to("cpu", torch.bfloat16, copy=True).contiguous()


def _gathered(parameter: Any) -> contextlib.AbstractContextManager[Any]:
    if hasattr(parameter, "ds_id"):
        return deepspeed.zero.GatheredParameters([parameter])  # type: ignore[no-any-return]
    return contextlib.nullcontext()


def _write_configs(model: Any, folder: Path) -> None:
    config = type(model.config).from_dict(model.config.to_dict())
    config.architectures = [type(model).__name__]
    config.dtype = torch.bfloat16
    config.use_cache = True  # off in training only
    config.save_pretrained(folder)
    GenerationConfig(
        bos_token_id=config.bos_token_id, eos_token_id=config.eos_token_id, pad_token_id=config.pad_token_id
    ).save_pretrained(folder)
