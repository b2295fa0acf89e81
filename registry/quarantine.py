"""Checkpoints that were rejected: their files stay aside for a while, with the reason on their row."""

import time
from pathlib import Path

from sqlalchemy import select
from sqlalchemy.orm import Session

from registry import audit, store
from registry.models import Checkpoint
from registry.models.base import REJECTED
from registry.settings import get_settings

DAY_SECONDS = 86_400.0


def expire(session: Session) -> int:
    """Delete the files that were set aside longer ago than `Settings.quarantine_days`; returns how many folders went.

    The rows stay with their reasons, and count for no quota any more.
    """
    before = time.time() - get_settings().quarantine_days * DAY_SECONDS
    old = [folder for folder in set_aside() if folder.stat().st_ctime < before]  # renaming changed it
    for folder in old:
        store.remove(folder)
        relative = folder.relative_to(get_settings().checkpoints_dir).as_posix()
        query = select(Checkpoint).where(Checkpoint.folder == relative, Checkpoint.state == REJECTED)
        for checkpoint in session.scalars(query):
            detail = {"label": checkpoint.label, "bytes": checkpoint.size_bytes}
            audit.note(session, None, "quarantine_end", f"checkpoint:{checkpoint.id}", detail)
            checkpoint.size_bytes = 0
    return len(old)


def set_aside() -> list[Path]:
    """The folders of rejected checkpoints, those included whose place a mended one has taken."""
    return sorted(path for path in get_settings().checkpoints_dir.glob("*/*.rejected-*") if path.is_dir())
