"""Folders that trainers write: which of their files are a checkpoint, at which step, and whether they are all there."""

import fnmatch
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from registry import jsonfiles, revisions, store
from registry.errors import Invalid

STATE = "trainer_state.json"
LEFT_OUT = (
    "training_args.bin",
    "optimizer.pt",
    "optimizer.bin",
    "scheduler.pt",
    "scaler.pt",
    "rng_state*.pth",
    "events.out.tfevents.*",
    ".git*",
    store.MANIFEST,
)
"""What trainers write beside the model: no part of it, and some can run code when they are loaded."""
MAX_STATE_BYTES = 256 * 2**20


class Place(NamedTuple):
    """Where in its training a folder stands."""

    step: int
    tokens_seen: int | None


def files(folder: Path, tokenizer: Path | None = None) -> dict[str, Path]:
    """The files of a checkpoint by their names: those at the folder's top and its chat templates.

    Where the folder has no tokenizer, that of another one is taken, if given.

    Raises:
        Invalid: it is no folder.
    """
    if not folder.is_dir():
        raise Invalid(f"{folder} is not a folder.")
    found = _top(folder)
    if tokenizer is not None and not any(name in found for name in store.TOKENIZER_FILES):
        found = {name: path for name, path in _top(tokenizer).items() if "token" in name or "template" in name} | found
    return found


def _top(folder: Path) -> dict[str, Path]:
    paths = [*folder.iterdir(), *folder.glob("additional_chat_templates/*.jinja")]
    names = {path.relative_to(folder).as_posix(): path for path in sorted(paths) if path.is_file()}
    return {name: path for name, path in names.items() if not any(fnmatch.fnmatch(name, one) for one in LEFT_OUT)}


def place_of(folder: Path) -> Place | None:
    """The step that a folder's name or its trainer's state names, and the tokens until then; None: neither says."""
    named, state = revisions.parse(folder.name), _state(folder)
    step = named.step if named is not None else revisions.whole(state.get("global_step"))
    tokens = named.tokens_seen if named is not None else None
    if tokens is None:
        tokens = revisions.whole(state.get("num_input_tokens_seen")) or None
    return Place(step, tokens) if step is not None else None


def _state(folder: Path) -> Mapping[str, Any]:
    try:
        found = jsonfiles.read(folder / STATE, max_bytes=MAX_STATE_BYTES)
    except (Invalid, FileNotFoundError):  # half-written, or none
        return {}
    return found if isinstance(found, dict) else {}


def looks_like_one(folder: Path) -> bool:
    """Whether a folder holds a model, perhaps half-written."""
    return (folder / "config.json").is_file() and any(folder.glob("*.safetensors"))


def is_readable(folder: Path) -> bool:
    """Whether the weights are there to their end: all shards of the index, with headers that tell the truth."""
    try:
        index = folder / "model.safetensors.index.json"
        wanted = set(jsonfiles.read_object(index).get("weight_map", {}).values()) if index.exists() else set()
        for path in folder.glob("*.safetensors"):
            store.check_safetensors(path)
        return all((folder / str(name)).is_file() for name in wanted)
    except (Invalid, OSError, AttributeError):  # it is being written
        return False


def signature(folder: Path) -> str:
    """Changes whenever a file of the checkpoint does."""
    found = []
    for name, path in files(folder).items():
        told = path.stat()
        found.append(f"{name}:{told.st_size}:{told.st_mtime_ns}")
    return "|".join(found)
