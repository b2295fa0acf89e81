"""Methods added to vLLM's worker process (`--worker-extension-cls`): swapping weights, and proof that it worked.

Runs inside the engine's process, next to the model; everything it is given and gives back is JSON.
"""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from vllm.v1.outputs import LogprobsTensors

from registry import quantized
from worker.engine.packed import dequantize

_NUM_ROWS = 64
"""Rows of the embedding and the head that are compared; enough to tell two checkpoints apart."""
_MAX_DIFFERENCE = 0.03
"""Relative to the largest value: bf16 products differ in the last bits from kernel to kernel."""


class Extension:
    """Mixed into vLLM's `Worker`; vLLM refuses names that the worker has already."""

    model_runner: Any
    cache_config: Any
    scheduler_config: Any

    def blank_unread_rows(self) -> bool:
        """Make scoring from the prefix cache safe; False where this vLLM has nothing of that name to mend.

        Rows of prompt log-probabilities that the cache left out are never written (vLLM 0.32.0, issue 42019): what
        the memory held goes out as token ids, which the server cannot decode, and dies.
        """
        made = getattr(LogprobsTensors, "empty_cpu", None)
        if made is None:
            return False
        if made is not _blank_rows:
            _make_rows.append(made)
            LogprobsTensors.empty_cpu = staticmethod(_blank_rows)
        return True

    def swap_checkpoint(self, folder: str) -> dict[str, Any]:
        """Load the weights of `folder` into the running model; see `check_checkpoint` for the answer."""
        self.model_runner.reload_weights(weights_path=folder)
        _mend_tied_head(self.model_runner.get_model())
        return self.check_checkpoint(folder)

    def memory_peak(self) -> dict[str, Any]:
        """What this process has allocated on its GPU at most, and the load that it is made for."""
        on_gpu = torch.cuda.is_available()
        cache = self.cache_config
        return {
            "device": "cuda" if on_gpu else "cpu",
            "num_bytes": torch.cuda.max_memory_allocated() if on_gpu else 0,
            "kv_tokens": int(cache.num_gpu_blocks or 0) * int(cache.block_size),
            "step_tokens": int(self.scheduler_config.max_num_batched_tokens),
        }

    def check_checkpoint(self, folder: str) -> dict[str, Any]:
        """Compare what the model computes with the files: what was compared, what differs, what is not a number."""
        model = self.model_runner.get_model()
        with torch.inference_mode():
            differences = _differences(model, Path(folder))
        finite = {name: difference for name, difference in differences.items() if not math.isnan(difference)}
        return {
            "checked": sorted(differences),
            "broken": sorted(set(differences) - set(finite)),
            "differs": sorted(name for name, difference in finite.items() if difference > _MAX_DIFFERENCE),
        }


_make_rows: list[Callable[[int, int], LogprobsTensors]] = []
"""vLLM's own function, once it has been replaced."""


def _blank_rows(num_positions: int, num_tokens_per_position: int) -> LogprobsTensors:
    rows = _make_rows[0](num_positions, num_tokens_per_position)
    for tensor in (rows.logprob_token_ids, rows.logprobs, rows.selected_token_ranks):
        tensor.zero_()
    return rows


def _mend_tied_head(model: Any) -> None:
    # vLLM's CPU build packs a copy of each linear layer's weight for its kernels. A tied head gets no
    # load event of its own, so after a reload it would go on computing with the old copy (0.32.0).
    head = getattr(model, "lm_head", None)
    if head is not None and hasattr(head, "quant_method"):
        head.quant_method.process_weights_after_loading(head)


def _differences(model: Any, folder: Path) -> dict[str, float]:
    """Largest relative difference for each part that this process holds in a comparable form."""
    parts = {}
    rows = _read(folder, "model.embed_tokens.weight", _NUM_ROWS)
    embedding = getattr(model.model.embed_tokens, "weight", None)
    first_rank = not torch.distributed.is_initialized() or torch.distributed.get_rank() == 0
    if embedding is not None and rows is not None and first_rank:
        parts["embed_tokens"] = _relative(embedding[:_NUM_ROWS], rows)
    norm = _read(folder, "model.norm.weight")
    if norm is not None and getattr(model.model.norm, "weight", None) is not None:
        parts["norm"] = _relative(model.model.norm.weight, norm)
    head_rows = _read(folder, "lm_head.weight", _NUM_ROWS)
    head_rows = rows if head_rows is None else head_rows
    head = getattr(model, "lm_head", None)
    if head is not None and hasattr(head, "quant_method") and head_rows is not None and first_rank:
        parts["lm_head"] = _compare_product(head, head_rows)
    down = f"model.layers.{len(model.model.layers) - 1}.mlp.down_proj"
    weight = _read_weight(folder, down)
    single = not torch.distributed.is_initialized() or torch.distributed.get_world_size() == 1
    if single and weight is not None:
        parts["down_proj"] = _compare_product(model.get_submodule(down), weight)
    return parts


def _read_weight(folder: Path, layer: str) -> torch.Tensor | None:
    """What the files say that a linear layer computes with; of a quantized one what its numbers stand for."""
    quantization = quantized.read(folder)
    if quantization is None:
        return _read(folder, f"{layer}.weight")
    names = ("weight", "weight_scale") if quantization.method == quantized.W8A8 else ("qweight", "scales")
    parts = {name: _read(folder, f"{layer}.{name}") for name in names}
    found = {name: part for name, part in parts.items() if part is not None}
    return dequantize(found, quantization) if len(found) == len(names) else None


def _compare_product(layer: Any, weight: torch.Tensor) -> float:
    """Run the layer's own kernel on fixed inputs: its weight may live only in packed form."""
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(4, weight.shape[1], generator=generator)
    device = next(iter(layer.parameters())).device
    computed = layer.quant_method.apply(layer, inputs.to(torch.bfloat16).to(device))
    expected = inputs.to(torch.bfloat16).float() @ weight.to(torch.bfloat16).float().T
    return _relative(computed[:, : weight.shape[0]], expected)


def _relative(actual: torch.Tensor, expected: torch.Tensor) -> float:
    actual, expected = actual.float().cpu(), expected.float().cpu()
    if actual.shape != expected.shape:
        return math.inf
    if expected.isfinite().all() and not actual.isfinite().all():
        return math.inf  # what is no number comes from the engine, not from the files
    return float((actual - expected).abs().max() / expected.abs().max().clamp(min=1e-6))


def _read(folder: Path, name: str, num_rows: int | None = None) -> torch.Tensor | None:
    for file in sorted(folder.glob("*.safetensors")):
        with safe_open(str(file), framework="pt") as tensors:
            if name in tensors.keys():  # noqa: SIM118 - a safetensors handle is no dict
                view = tensors.get_slice(name)
                return view[:num_rows] if num_rows else view[:]
    return None
