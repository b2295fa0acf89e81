"""Taking in a checkpoint that was made elsewhere: from a browser, or from a folder of this machine."""

import shutil
from pathlib import Path

from registry import checkpoints, db, evaluations, events, runs, store
from registry.models import Checkpoint
from registry.models.base import VERIFYING
from registry.settings import get_settings

KINDS = ("pretrained", "chat")


def admit(content: Path, *, run: str, step: int, tokens_seen: int | None, kind: str) -> Checkpoint:
    """Seal `content`, which moves away from where it is, and register it with its evaluations.

    Opens its own transaction: hashing many gigabytes inside the caller's would hold SQLite's write lock.
    What cannot be registered leaves no files behind.

    Raises:
        Invalid: it is no checkpoint that is safe to load.
        Conflict: the step holds other files.
    """
    store.check_folder(content)
    relative = f"{run}/step-{step}" + ("-chat" if kind == "chat" else "")
    destination = get_settings().checkpoints_dir / relative
    was_there = destination.exists()
    facts = {"run": run, "step": step, "tokens_seen": tokens_seen, "kind": kind, "precision": 16}
    manifest = store.seal(content, destination, facts)
    try:
        with db.transaction() as session:
            owner = runs.find_or_create(session, run)
            checkpoint = checkpoints.register(session, owner, step=step, folder=relative, manifest=manifest, kind=kind)
            evaluations.plan(session, checkpoint)
    except BaseException:
        if not was_there:
            shutil.rmtree(destination, ignore_errors=True)
        raise
    place = {"run": run, "step": step, "checkpoint_id": checkpoint.id}
    events.publish_board("checkpoint", {**place, "state": VERIFYING})
    return checkpoint
