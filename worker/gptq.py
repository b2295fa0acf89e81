"""4 bit by GPTQ, in AutoGPTQ's format, through GPTQModel; only `worker.quantizing` imports this, in its own process."""

import json
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from gptqmodel import GPTQModel, QuantizeConfig

from worker.copying import copy_rest, write_config

BATCH = 8


def write_gptq(
    source: Path, target: Path, calibration: Sequence[Sequence[int]], group_size: int, device: str = "cpu"
) -> None:
    """Quantize the linear layers of the LLaMA in `source` into a new folder; the rest of it is copied.

    Args:
        source: a folder that transformers can load.
        target: made here.
        calibration: token ids of sequences that the rounding is fitted to.
        group_size: weights of a row that share a scale; a divisor of every layer's input width.
        device: where it is worked out.
    """
    settings = QuantizeConfig(
        bits=4,
        group_size=group_size,
        sym=True,
        desc_act=False,  # vLLM no longer serves activation order
        offload_to_disk=False,
        device=device,
    )
    model = GPTQModel.load(str(source), settings, trust_remote_code=False)
    model.quantize([_as_batch(sequence) for sequence in calibration], batch_size=BATCH)
    with tempfile.TemporaryDirectory(prefix=".gptq-", dir=target.parent) as name:
        made = Path(name)
        model.save(str(made))
        target.mkdir()
        for file in sorted(made.glob("*.safetensors*")):
            shutil.move(file, target / file.name)
        shutil.move(made / "quantize_config.json", target / "quantize_config.json")
        content: dict[str, Any] = json.loads((made / "config.json").read_text(encoding="utf-8"))
    # Everything else as it was: GPTQModel writes tokenizer and configuration in words of its own.
    copy_rest(source, target)
    write_config(source, target, content["quantization_config"])


def _as_batch(sequence: Sequence[int]) -> dict[str, torch.Tensor]:
    token_ids = torch.tensor([list(sequence)])
    return {"input_ids": token_ids, "attention_mask": torch.ones_like(token_ids)}
