"""Adds a checkpoint from a folder of this machine."""

import shutil
import uuid
from pathlib import Path

from registry import intake, runs, store
from registry.errors import Invalid
from registry.settings import get_settings


def push_folder(folder: Path, *, run: str, step: int, tokens_seen: int | None, kind: str) -> str:
    """Register a copy of a folder; returns the checkpoint's label. The folder itself is not changed.

    Raises:
        Invalid: it is no checkpoint that is safe to load.
        Conflict: the step holds other files.
    """
    if kind not in intake.KINDS:
        raise Invalid(f"There is no kind '{kind}'. Kinds: {', '.join(intake.KINDS)}.")
    if not runs.NAME.fullmatch(run):
        raise Invalid(f"'{run}' cannot be a run's name: use a-z, 0-9, dot, dash and underscore.")
    if not folder.is_dir():
        raise Invalid(f"{folder} is not a folder.")
    store.check_folder(folder)  # before gigabytes are copied
    uploads = get_settings().uploads_dir
    uploads.mkdir(parents=True, exist_ok=True)
    copy = uploads / uuid.uuid4().hex
    try:
        shutil.copytree(folder, copy, ignore=shutil.ignore_patterns(store.MANIFEST))
        return intake.admit(copy, run=run, step=step, tokens_seen=tokens_seen, kind=kind).label
    finally:
        shutil.rmtree(copy, ignore_errors=True)
