"""Taking in a checkpoint that was made elsewhere: from a browser, or from a folder of this machine."""

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from registry import audit, checkpoints, db, evaluations, events, locks, quantized, quota, runs, store
from registry.errors import Invalid
from registry.models import Checkpoint, User
from registry.models.base import VERIFYING
from registry.models.checkpoints import UPLOAD
from registry.settings import get_settings

KINDS = ("pretrained", "chat")


def admit(
    content: Path,
    *,
    run: str,
    step: int,
    tokens_seen: int | None,
    kind: str,
    origin: str = UPLOAD,
    user: User | None = None,
    hashes: Mapping[str, str] | None = None,
) -> Checkpoint:
    """Seal `content`, which moves away from where it is, and register it with its evaluations.

    Opens its own transaction: hashing many gigabytes inside the caller's would hold SQLite's write lock.
    What cannot be registered leaves no files behind; of two that come for one step at once the second is told so.

    Args:
        content: a folder below `Settings.home`; on a refusal it stays for the caller to remove.
        run: made if there is none of that name.
        step: of the run.
        tokens_seen: by the model until then, if known.
        kind: one of `KINDS`.
        origin: how it came.
        user: who brought it, and whose quota it counts against.
        hashes: as of `store.seal`.

    Raises:
        Invalid: it is no checkpoint that is safe to load.
        NoRoom: a quota is used up, or the disk is full.
        Conflict: the step holds other files.
    """
    if not runs.NAME.fullmatch(run) or kind not in KINDS or step < 0:
        raise Invalid("'%(place)s' cannot be a run, a step and a kind.", place=f"{run}@{step}-{kind}"[:120])
    try:
        store.check_folder(content)
        hashes = quantized.normalize(content, hashes)
        precision = quantized.precision_of(content)
        relative = f"{run}/step-{step}" + ("-chat" if kind == "chat" else "")
        relative += f"-{precision}bit" if precision != quantized.PLAIN_BITS else ""
        facts = {"run": run, "step": step, "tokens_seen": tokens_seen, "kind": kind, "precision": precision}
        with db.read_session() as session:
            quota.check(session, user, store.size_of(content))
        with locks.hold(relative):
            checkpoint = _seal_and_register(content, relative, facts, origin, user, hashes)
    except OSError as error:
        if quota.is_full(error):
            raise quota.disk_full() from error
        raise
    place = {"run": run, "step": step, "checkpoint_id": checkpoint.id}
    events.publish_board("checkpoint", {**place, "state": VERIFYING})
    return checkpoint


def _seal_and_register(
    content: Path,
    relative: str,
    facts: Mapping[str, Any],
    origin: str,
    user: User | None,
    hashes: Mapping[str, str] | None,
) -> Checkpoint:
    destination = get_settings().checkpoints_dir / relative
    was_there = destination.exists()
    manifest = store.seal(content, destination, facts, hashes=hashes)
    try:
        with locks.hold_registering(), db.transaction() as session:
            # Again: another checkpoint may have come while this one was read.
            quota.check_quotas(session, user, manifest.size_bytes)
            owner = runs.find_or_create(session, facts["run"])
            checkpoint = checkpoints.register(
                session,
                owner,
                step=facts["step"],
                folder=relative,
                manifest=manifest,
                kind=facts["kind"],
                precision=facts["precision"],
            )
            checkpoint.origin, checkpoint.user_id = origin, user.id if user is not None else None
            evaluations.plan(session, checkpoint)
            detail = {"origin": origin, "bytes": checkpoint.size_bytes, "bytes_saved": manifest.saved_bytes}
            audit.note(session, user, "checkpoint", f"checkpoint:{checkpoint.id}", detail)
    except BaseException:
        if not was_there:
            shutil.rmtree(destination, ignore_errors=True)
        raise
    return checkpoint
