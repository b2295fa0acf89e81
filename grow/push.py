"""Adds a checkpoint from a folder of this machine."""

import shutil
import uuid
from pathlib import Path

from grow import folders
from registry import intake, quota, runs, store
from registry.errors import Invalid
from registry.models.checkpoints import PUSH
from registry.settings import get_settings


def check_names(run: str, kind: str) -> None:
    """Whether a run and a kind can be called so.

    Raises:
        Invalid: one cannot.
    """
    if kind not in intake.KINDS:
        raise Invalid(f"There is no kind '{kind}'. Kinds: {', '.join(intake.KINDS)}.")
    if not runs.NAME.fullmatch(run):
        raise Invalid(f"'{run}' cannot be a run's name: use a-z, 0-9, dot, dash and underscore.")


def push_folder(
    folder: Path, *, run: str, step: int, tokens_seen: int | None, kind: str, tokenizer: Path | None = None
) -> str:
    """Register a copy of a folder; returns the checkpoint's label. The folder itself is not changed.

    Raises:
        Invalid: it is no checkpoint that is safe to load.
        NoRoom: a quota is used up, or the disk is full.
        Conflict: the step holds other files.
    """
    check_names(run, kind)
    found = folders.files(folder, tokenizer)
    for name in found:
        store.check_file_name(name)  # before gigabytes are copied
    quota.check_disk(sum(path.stat().st_size for path in found.values()))
    uploads = get_settings().uploads_dir
    uploads.mkdir(parents=True, exist_ok=True)
    copy = uploads / uuid.uuid4().hex
    try:
        for name, path in found.items():
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, copy / name)
        label = intake.admit(copy, run=run, step=step, tokens_seen=tokens_seen, kind=kind, origin=PUSH).label
    except OSError as error:
        if quota.is_full(error):
            raise quota.disk_full() from error
        raise
    finally:
        shutil.rmtree(copy, ignore_errors=True)
    return label
