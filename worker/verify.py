"""Verifying a checkpoint before anything uses it: its bytes, its configuration, its weights, its tokenizer."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import structlog
import torch
from huggingface_hub.errors import StrictDataclassError
from sqlalchemy.orm import Session
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerBase

from registry import (
    architecture,
    checkpoints,
    db,
    evaluations,
    events,
    fingerprints,
    quantizations,
    quantized,
    store,
    tensors,
)
from registry.errors import Invalid, NotFound
from registry.models import Checkpoint
from registry.models.base import VERIFYING
from worker import origins, packing
from worker.confined import largest_token, render_chat
from worker.engine.tokenizer import load_tokenizer, tokenizer_digest

CONVERSATIONS = (
    ("user",),
    ("user", "assistant", "user"),
    ("system", "user"),
)
"""Who speaks in what a chat template is tried with. Some refuse a system prompt, as they may."""
_UNBUILDABLE = (
    *(ValueError, TypeError, RuntimeError, ArithmeticError, LookupError, AttributeError),
    StrictDataclassError,
)
"""What transformers raises for configurations that make no sense."""

log = structlog.get_logger(__name__)


def verify_checkpoint(checkpoint_id: int) -> None:
    """Make a checkpoint ready, or rejected with a reason. One that was judged before stays as it is.

    Raises:
        NotFound: there is no such checkpoint.
        Away: the blob store does not answer.
        OSError: the disk failed. Neither says anything about the checkpoint; the sweep tries again.
    """
    with db.read_session() as session:
        checkpoint = checkpoints.get_by_id(session, checkpoint_id)
        if checkpoint.state != VERIFYING:
            return
        folder, manifest = checkpoints.path(checkpoint), store.parse_manifest(checkpoint.manifest)
    if not _is_here(folder):
        return
    reason, num_parameters, tokenizer = "", 0, ""
    try:
        num_parameters = inspect_folder(folder, manifest.digest)
        tokenizer = tokenizer_digest(folder)[:16]
        store.send(folder, manifest)  # whoever finds it ready may need to fetch it
    except Invalid as error:
        reason = str(error)
    with db.transaction() as session:
        checkpoint = checkpoints.get_by_id(session, checkpoint_id)
        if checkpoint.state != VERIFYING:
            return
        reason = reason or _why_unlike_its_run(session, checkpoint, tokenizer)
        if reason:
            checkpoints.mark_rejected(session, checkpoint, reason)
            evaluations.cancel_for(session, checkpoint)
        else:
            checkpoints.mark_ready(session, checkpoint, num_parameters, tokenizer)
            fingerprints.check_weights(session, checkpoint)
            quantizations.release_if_due(session, checkpoint)
            origins.follow_up(session, checkpoint, folder)
    log.info("Verified a checkpoint.", checkpoint=checkpoint.label, state=checkpoint.state, reason=reason)
    place = {"run": checkpoint.run.name, "step": checkpoint.step, "checkpoint_id": checkpoint.id}
    events.publish_board("checkpoint", {**place, "state": checkpoint.state})


def _is_here(folder: Path) -> bool:
    """With a blob store workers may have disks of their own: whoever has the files verifies and sends them."""
    try:
        checkpoints.ensure_local(folder)
    except NotFound:
        log.info("A checkpoint waits for the worker that has its files.", folder=folder.name)
        return False
    return True


def inspect_folder(folder: Path, digest: str) -> int:
    """Read every byte of a sealed folder once; returns its number of parameters. What costs least is looked at first.

    Raises:
        Invalid: the first thing that is wrong, in one sentence.
        OSError: the disk failed.
    """
    if not folder.is_dir():
        raise Invalid(f"The folder {folder.name} is gone.")
    manifest = store.read_manifest(folder)
    if manifest.digest != digest:
        raise Invalid("The manifest is not the one that was registered.")
    store.check_listing(folder, manifest)
    store.check_folder(folder)
    config = architecture.read_config(folder)
    check_tokenizer(folder, architecture.dimensions(config).vocabulary)
    form = quantized.read(folder)
    check_tensors(folder, config)
    if form is not None:
        packing.check_packing(folder, form)
    check_buildable(config)
    store.verify_files(folder, manifest)
    return architecture.num_parameters(config)


def check_tokenizer(folder: Path, vocab_size: int) -> None:
    """Whether the tokenizer loads, gives only ids that the model has, and writes conversations as its template says.

    Raises:
        Invalid: it does not.
    """
    _check_ids(largest_token(folder), vocab_size)  # in a process of its own, which may be taken down by it
    try:
        tokenizer = load_tokenizer(folder)
    except Exception as error:  # tokenizers raises bare Exception for a file that it cannot read
        raise Invalid(f"The tokenizer does not load: {_first_line(error)}") from error
    _check_ids(max(tokenizer.get_vocab().values(), default=-1), vocab_size)
    if tokenizer.chat_template:
        _check_template(tokenizer)


def _check_ids(largest: int, vocab_size: int) -> None:
    if largest >= vocab_size:
        raise Invalid(f"The tokenizer has the id {largest}, but config.json says vocab_size {vocab_size}.")
    if largest < 0:
        raise Invalid("The tokenizer is empty.")


def _check_template(tokenizer: PreTrainedTokenizerBase) -> None:
    for roles in CONVERSATIONS:
        try:
            render_chat(tokenizer, [{"role": role, "content": f"A message of the {role}."} for role in roles])
        except Invalid:
            if "system" not in roles:
                raise


def check_tensors(folder: Path, config: Mapping[str, Any]) -> None:
    """Whether every tensor of the architecture is there, in its shape and number format, and no other; reads headers.

    Raises:
        Invalid: naming the first that is not.
    """
    form = quantized.read(folder)
    files = tensors.weight_files(folder)
    if form is None and len(files) == 1 and files[0].name != store.SINGLE:
        raise Invalid(f"The weights are in {files[0].name}; whoever loads them looks for {store.SINGLE}.")
    found = {name: tensor for _, header in tensors.read_headers(folder) for name, tensor in header.items()}
    architecture.compare(found, architecture.expected_tensors(config, form))


def check_buildable(config: Mapping[str, Any]) -> None:
    """Whether transformers makes a model of config.json; it gets no memory.

    Raises:
        Invalid: it does not.
    """
    try:
        parsed = LlamaConfig.from_dict(dict(config))
        with torch.device("meta"):
            LlamaForCausalLM(parsed)
    except _UNBUILDABLE as error:
        raise Invalid(f"No model can be built from config.json: {_first_line(error)}") from error


def _why_unlike_its_run(session: Session, checkpoint: Checkpoint, tokenizer: str) -> str:
    checkpoint.tokenizer = tokenizer
    try:
        checkpoints.check_tokenizer(session, checkpoint)
    except Invalid as error:
        return str(error)
    return ""


def _first_line(error: Exception) -> str:
    line = (str(error).strip().splitlines() or [type(error).__name__])[0][:300]
    return line if line.endswith(".") else f"{line}."
