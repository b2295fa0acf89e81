"""Verifying a checkpoint before anything uses it: its bytes, its configuration, its weights, its tokenizer."""

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import structlog
import torch
from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError, safe_open
from transformers import LlamaConfig, LlamaForCausalLM

from registry import checkpoints, db, evaluations, events, store
from registry.errors import Invalid
from registry.models.base import VERIFYING
from worker.engine.tokenizer import load_tokenizer

LIMITS = {
    "vocab_size": 2_000_000,
    "hidden_size": 65_536,
    "intermediate_size": 524_288,
    "num_hidden_layers": 1_024,
    "num_attention_heads": 1_024,
    "max_position_embeddings": 16_777_216,
}
"""Beyond these a config.json is lying, and building its model would exhaust this machine."""

log = structlog.get_logger(__name__)


def verify_checkpoint(checkpoint_id: int) -> None:
    """Make a checkpoint ready, or rejected with a reason. One that was judged before stays as it is.

    Raises:
        NotFound: there is no such checkpoint.
        OSError: the disk failed, which says nothing about the checkpoint; the sweep tries again.
    """
    with db.read_session() as session:
        checkpoint = checkpoints.get_by_id(session, checkpoint_id)
        if checkpoint.state != VERIFYING:
            return
        folder, digest = checkpoints.path(checkpoint), checkpoint.digest
    reason, num_parameters = "", 0
    try:
        num_parameters = inspect_folder(folder, digest)
    except Invalid as error:
        reason = str(error)
    with db.transaction() as session:
        checkpoint = checkpoints.get_by_id(session, checkpoint_id)
        if checkpoint.state != VERIFYING:
            return
        if reason:
            checkpoints.mark_rejected(session, checkpoint, reason)
            evaluations.cancel_for(session, checkpoint)
        else:
            checkpoints.mark_ready(session, checkpoint, num_parameters)
    log.info("Verified a checkpoint.", checkpoint=checkpoint.label, state=checkpoint.state, reason=reason)
    place = {"run": checkpoint.run.name, "step": checkpoint.step, "checkpoint_id": checkpoint.id}
    events.publish_board("checkpoint", {**place, "state": checkpoint.state})


def inspect_folder(folder: Path, digest: str) -> int:
    """Read every byte of a sealed folder; returns its number of parameters.

    Raises:
        Invalid: the first thing that is wrong, in one sentence.
    """
    if not folder.is_dir():
        raise Invalid(f"The folder {folder.name} is gone.")
    manifest = store.read_manifest(folder)
    if manifest.digest != digest:
        raise Invalid("The manifest is not the one that was registered.")
    store.verify_files(folder, manifest)
    store.check_folder(folder)
    config = read_config(folder)
    check_tokenizer(folder, config.vocab_size)
    return check_weights(folder, config)


def read_config(folder: Path) -> Any:
    """The LLaMA configuration, if its numbers are credible.

    Raises:
        Invalid: they are not.
    """
    content = json.loads((folder / "config.json").read_text())
    for name, limit in LIMITS.items():
        value = content.get(name)
        if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= limit:
            raise Invalid(f"config.json: {name} is {str(value)[:40]!r}; it must be a number from 1 to {limit:,}.")
    try:
        return LlamaConfig.from_dict(content)
    except (ValueError, TypeError, KeyError, AttributeError, StrictDataclassError) as error:
        raise Invalid(f"config.json is not a LLaMA configuration: {_first_line(error)}") from error


def check_tokenizer(folder: Path, vocab_size: int) -> None:
    """Whether the tokenizer loads and gives only ids that the model has.

    Raises:
        Invalid: it does not.
    """
    try:
        tokenizer = load_tokenizer(folder)
    except Exception as error:  # tokenizers raises bare Exception for a file that it cannot read
        raise Invalid(f"The tokenizer does not load: {_first_line(error)}") from error
    largest = max(tokenizer.get_vocab().values(), default=-1)
    if largest >= vocab_size:
        raise Invalid(f"The tokenizer has the id {largest}, but config.json says vocab_size {vocab_size}.")
    if largest < 0:
        raise Invalid("The tokenizer is empty.")


def check_weights(folder: Path, config: Any) -> int:
    """Whether every tensor of the architecture is there, in its shape, with finite numbers only.

    Raises:
        Invalid: naming the first tensor that is not.
    """
    found = dict(_shapes(folder))
    if not getattr(config, "quantization_config", None):
        # Quantized layers have other tensors (qweight, scales); their loader checks those.
        _compare_shapes(found, _expected_shapes(config), tied=bool(config.tie_word_embeddings))
    for name, tensor in _tensors(folder):
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor.float()).all()):
            raise Invalid(f"The tensor {name} holds NaN or infinite numbers.")
    counted = (shape for name, shape in found.items() if not (config.tie_word_embeddings and name == "lm_head.weight"))
    return sum(math.prod(shape) for shape in counted)


def _expected_shapes(config: Any) -> dict[str, tuple[int, ...]]:
    try:
        with torch.device("meta"):
            model = LlamaForCausalLM(config)
    except (ValueError, TypeError, RuntimeError, ZeroDivisionError, KeyError) as error:
        raise Invalid(f"No model can be built from config.json: {_first_line(error)}") from error
    return {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}


def _compare_shapes(found: dict[str, tuple[int, ...]], expected: dict[str, tuple[int, ...]], *, tied: bool) -> None:
    optional = {"lm_head.weight"} if tied else set()
    if missing := sorted(expected.keys() - found.keys() - optional):
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise Invalid(f"The weights lack the tensor {missing[0]}{more}.")
    # Old exports carry rotary buffers that are computed, not learned.
    surplus = sorted(name for name in found.keys() - expected.keys() if not name.endswith("rotary_emb.inv_freq"))
    if surplus:
        raise Invalid(f"The weights hold the tensor {surplus[0][:80]}, which the architecture does not have.")
    for name, shape in expected.items():
        if name in found and found[name] != shape:
            raise Invalid(f"The tensor {name} has the shape {found[name]}; config.json asks for {shape}.")


def _shapes(folder: Path) -> Iterator[tuple[str, tuple[int, ...]]]:
    for file in sorted(folder.glob("*.safetensors")):
        try:
            with safe_open(str(file), framework="pt") as tensors:
                for name in tensors.keys():  # noqa: SIM118 - a safetensors handle is no dict
                    yield name, tuple(tensors.get_slice(name).get_shape())
        except SafetensorError as error:
            raise Invalid(f"{file.name} cannot be read: {_first_line(error)}") from error


def _tensors(folder: Path) -> Iterator[tuple[str, torch.Tensor]]:
    for file in sorted(folder.glob("*.safetensors")):
        with safe_open(str(file), framework="pt") as tensors:
            for name in tensors.keys():  # noqa: SIM118 - a safetensors handle is no dict
                yield name, tensors.get_tensor(name)


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:300]
