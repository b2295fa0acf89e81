"""This disk as a cache of the blob store: which checkpoints leave it when it is full."""

import time
from pathlib import Path

import structlog

from registry import blobs, locks, remote, store
from registry.settings import get_settings

IDLE_SECONDS = 600.0
"""A checkpoint that was used since is not taken from whoever uses it."""

log = structlog.get_logger(__name__)


def shrink() -> int:
    """Let the least recently used checkpoints leave, down to `Settings.cache_bytes`; returns the bytes freed.

    Only what the store holds whole leaves: it comes back when somebody needs it.

    Raises:
        Away: the store does not answer.
    """
    limit = get_settings().cache_bytes
    if not limit or not remote.is_set():
        return 0
    over, freed = blobs.usage().size_bytes - limit, 0
    for folder in _idle():
        if freed >= over:
            break
        freed += _let_go(folder)
    return freed


def _idle() -> list[Path]:
    """Sealed folders that nobody has used for a while, the least recently used first."""
    before = time.time() - IDLE_SECONDS
    found = get_settings().checkpoints_dir.glob(f"*/step-*/{store.MANIFEST}")
    used = sorted((path.stat().st_mtime, path.parent) for path in found if ".rejected-" not in path.parent.name)
    return [folder for at, folder in used if at < before]


def _let_go(folder: Path) -> int:
    with locks.hold(f"{folder.parent.name}/{folder.name}"):
        manifest = store.read_manifest(folder)
        if not all(remote.has(entry["sha256"], entry["size"]) for entry in manifest.files.values()):
            return 0
        store.remove(folder)
    freed = blobs.drop_unused(entry["sha256"] for entry in manifest.files.values())
    log.info("A checkpoint left this disk; the blob store has it.", checkpoint=f"{folder.parent.name}/{folder.name}")
    return freed
