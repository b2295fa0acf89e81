"""What is done now and then: files that nobody needs any more leave this disk and the blob store."""

import threading

import structlog
from sqlalchemy import select

from registry import blobs, cache, db, hubfiles, quarantine, remote, xet
from registry.errors import RegistryError
from registry.models import Checkpoint
from registry.models.base import READY, VERIFYING

FIRST_SECONDS = 60.0
EVERY_SECONDS = 3_600.0

log = structlog.get_logger(__name__)


def tidy() -> None:
    """Delete what was set aside long ago, contents without a checkpoint, and what a full disk keeps elsewhere too."""
    with db.transaction() as session:
        folders = quarantine.expire(session)
    hubfiles.drop_stale()
    freed = blobs.collect()
    lists = xet.drop_dead_lists()
    if remote.is_set():
        freed_there, left = remote.collect(_needed()), cache.shrink()
        log.info("Tidied the blob store.", bytes_freed_there=freed_there, bytes_that_left_here=left)
    if folders or freed or lists:
        log.info("Tidied the disk.", rejected_folders=folders, bytes_freed=freed, lists_of_xorbs=lists)


def tidy_for_ever(stopping: threading.Event) -> None:
    """Every hour, in a thread of its own: the store may be slow."""
    wait = FIRST_SECONDS
    while not stopping.wait(wait):
        wait = EVERY_SECONDS
        try:
            tidy()
        except (RegistryError, OSError) as error:
            log.warning("Tidying was not finished; it goes on in an hour.", error=str(error))


def _needed() -> set[str]:
    """Contents of all checkpoints whose files are kept."""
    query = select(Checkpoint.manifest).where(Checkpoint.state.in_((READY, VERIFYING)))
    with db.read_session() as session:
        manifests = session.scalars(query.execution_options(yield_per=100))
        return {entry["sha256"] for manifest in manifests for entry in manifest.get("files", {}).values()}
