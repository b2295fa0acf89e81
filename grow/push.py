"""Adds a checkpoint from a folder of this machine."""

import shutil
import uuid
from pathlib import Path

from registry import checkpoints, evaluations, runs, store
from registry.db import transaction
from registry.errors import Invalid
from registry.settings import get_settings

KINDS = ("pretrained", "chat")


def push_folder(folder: Path, *, run: str, step: int, tokens_seen: int | None, kind: str) -> str:
    """Copy, seal and register a folder; returns the checkpoint's label. The folder itself is not changed.

    Raises:
        Invalid: it is no checkpoint that is safe to load.
        Conflict: the step holds other files.
    """
    if kind not in KINDS:
        raise Invalid(f"There is no kind '{kind}'. Kinds: {', '.join(KINDS)}.")
    if not runs.NAME.fullmatch(run):
        raise Invalid(f"'{run}' cannot be a run's name: use a-z, 0-9, dot, dash and underscore.")
    if not folder.is_dir():
        raise Invalid(f"{folder} is not a folder.")
    store.check_folder(folder)
    settings = get_settings()
    settings.uploads_dir.mkdir(parents=True, exist_ok=True)
    copy = settings.uploads_dir / uuid.uuid4().hex
    try:
        shutil.copytree(folder, copy, ignore=shutil.ignore_patterns(store.MANIFEST))
        relative = f"{run}/step-{step}" + ("-chat" if kind == "chat" else "")
        facts = {"run": run, "step": step, "tokens_seen": tokens_seen, "kind": kind, "precision": 16}
        manifest = store.seal(copy, settings.checkpoints_dir / relative, facts)
    finally:
        shutil.rmtree(copy, ignore_errors=True)
    with transaction() as session:
        owner = runs.find_or_create(session, run)
        checkpoint = checkpoints.register(session, owner, step=step, folder=relative, manifest=manifest, kind=kind)
        evaluations.plan(session, checkpoint)
        return checkpoint.label
