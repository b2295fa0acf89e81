"""Content-addressed files: each distinct content is stored once, whatever checkpoints and uploads hold it.

A blob lies at `Settings.blobs_dir/<first two letters>/<sha256>`, read-only. Folders of checkpoints hold hard links to
blobs, so what vLLM and transformers load are ordinary files, and deleting a folder never takes a file from another.
"""

import errno
import os
import time
import uuid
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import structlog

from registry.errors import NotFound
from registry.settings import get_settings

GRACE_SECONDS = 86_400.0
"""So long a blob that nothing links to stays: somebody may have been told that its content need not be sent."""
READ_ONLY = 0o444
_UNSHARED = (errno.EXDEV, errno.EPERM, errno.ENOTSUP, errno.EMLINK)
"""The file system has no hard links, the blobs are on another one, or a file has as many links as it can."""

log = structlog.get_logger(__name__)


class Usage(NamedTuple):
    """What the blobs of this disk are."""

    num: int
    size_bytes: int
    """What they take."""
    saved_bytes: int
    """What they would take more if each folder had files of its own."""


def path(sha256: str) -> Path:
    """Where a blob lies, or would lie."""
    return get_settings().blobs_dir / sha256[:2] / sha256


def has(sha256: str) -> bool:
    """Whether the content is here. If it is, it stays for `GRACE_SECONDS` at least."""
    try:
        os.utime(path(sha256))
    except FileNotFoundError:
        return False
    return True


def adopt(file: Path, sha256: str) -> bool:
    """Make `file`, whose hash the caller has computed, a read-only link to the blob.

    Where links cannot be made the file stays what it is. Returns True where the content was known before.
    """
    blob = path(sha256)
    blob.parent.mkdir(parents=True, exist_ok=True)
    file.chmod(READ_ONLY)
    try:
        os.link(file, blob)
    except FileExistsError:
        return _share(file, blob, sha256)
    except OSError as error:
        _check_unshared(error)
    return False


def link(sha256: str, file: Path) -> None:
    """Put a link to a blob at `file`, in place of what is there.

    Raises:
        NotFound: there is no such blob.
        OSError: links cannot be made here.
    """
    temporary = file.with_name(f".{uuid.uuid4().hex}.link")
    try:
        os.link(path(sha256), temporary)
    except FileNotFoundError:
        raise NotFound("The content %(sha256)s is not stored here.", sha256=sha256[:16]) from None
    os.replace(temporary, file)
    # rename does nothing where both are links to one file already
    temporary.unlink(missing_ok=True)


def discard(sha256: str) -> None:
    """Forget a blob whose bytes are not what its name says; folders that hold it keep what they have."""
    path(sha256).unlink(missing_ok=True)


def collect(*, grace_seconds: float = GRACE_SECONDS) -> int:
    """Delete the blobs that no folder has linked to for so long; returns the bytes that were freed.

    Blobs that are used are never touched, also while somebody takes them up at this moment: whoever has linked to
    a blob keeps the file, and only a later checkpoint stores it again.
    """
    freed = 0
    before = time.time() - grace_seconds
    for blob, found in _scan():
        # The change time moves with each link that is made or removed, and with `has`.
        if found.st_nlink == 1 and found.st_ctime <= before:
            blob.unlink(missing_ok=True)
            freed += found.st_size
    return freed


def drop_unused(hashes: Iterable[str]) -> int:
    """Delete those of these blobs that no folder links to, at once; returns the bytes that were freed."""
    freed = 0
    for blob in map(path, set(hashes)):
        with suppress(FileNotFoundError):
            found = blob.stat()
            if found.st_nlink == 1:
                blob.unlink()
                freed += found.st_size
    return freed


def usage() -> Usage:
    """How much this disk keeps, and how much it saves by keeping each content once."""
    num, size_bytes, saved_bytes = 0, 0, 0
    for _, found in _scan():
        num, size_bytes = num + 1, size_bytes + found.st_size
        saved_bytes += found.st_size * max(0, found.st_nlink - 2)
    return Usage(num, size_bytes, saved_bytes)


def _share(file: Path, blob: Path, sha256: str) -> bool:
    try:
        if blob.stat().st_size != file.stat().st_size:  # something outside of this program has cut it off
            discard(sha256)
            os.link(file, blob)
            return False
        link(sha256, file)
    except (NotFound, FileNotFoundError):  # collected since
        return adopt(file, sha256)
    except OSError as error:
        _check_unshared(error)
        return False
    return True


def _check_unshared(error: OSError) -> None:
    if error.errno not in _UNSHARED:
        raise error
    log.warning("A file cannot be shared with other checkpoints: links cannot be made.", error=error.strerror)


def _scan() -> Iterator[tuple[Path, os.stat_result]]:
    root = get_settings().blobs_dir
    for folder in sorted(root.iterdir()) if root.is_dir() else ():
        for entry in os.scandir(folder):
            if entry.name.startswith(folder.name):  # what is being fetched lies beside them
                try:
                    yield Path(entry.path), entry.stat()
                except FileNotFoundError:
                    continue
