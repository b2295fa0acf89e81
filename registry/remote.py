"""The blob store besides this disk: S3, OSS, or whatever else fsspec opens (`Settings.blob_store`).

A blob lies there under `<first two letters>/<sha256>`, as it does here. Checkpoints are sent when they have been
verified; a machine that lacks one fetches it, goes on where it was interrupted, and believes no byte before the hash.
"""

import datetime as dt
import hashlib
import json
import os
from collections.abc import Callable, Collection
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeVar

import fsspec
import structlog
from tenacity import RetryError, Retrying, retry_if_exception, stop_after_attempt, wait_random_exponential

from registry import blobs, quota
from registry.errors import Invalid, NotFound, RegistryError
from registry.settings import get_settings

CHUNK_BYTES = 16 * 2**20
"""Fetched in one request, and what an interruption costs at most."""
PARTIAL = "partial"
"""Folder beside the blobs, of those that are being fetched."""
ATTEMPTS = 5

log = structlog.get_logger(__name__)
T = TypeVar("T")


class Away(RegistryError):
    """The store does not answer, or not as it should; trying later may help."""


def is_set() -> bool:
    """Whether there is a store besides this disk."""
    return bool(get_settings().blob_store)


def check() -> None:
    """Whether the store can be read and written.

    Raises:
        Invalid: the settings name none.
        Away: it cannot.
    """
    place = _place("probe")
    _try(lambda: _files().pipe_file(place, b"ok"), "written to")
    if _try(lambda: _files().cat_file(place), "read") != b"ok":
        raise Away("The blob store gives back other bytes than it was given.")
    _try(lambda: _files().rm_file(place), "written to")


def has(sha256: str, size: int) -> bool:
    """Whether the store holds a blob, in this size.

    Raises:
        Away: it does not say.
    """

    def look() -> bool:
        try:
            return bool(_files().info(_place(sha256))["size"] == size)
        except FileNotFoundError:
            return False

    return _try(look, "read")


def send(sha256: str, file: Path) -> bool:
    """Put a file, whose hash the caller has computed, into the store; False where its content was there.

    Raises:
        Away: the store did not take it.
    """
    size = file.stat().st_size
    if has(sha256, size):
        return False
    _try(lambda: _files().put_file(str(file), _place(sha256)), "written to")
    _files().invalidate_cache()
    if not has(sha256, size):
        raise Away("The blob store did not keep what it was sent.")
    return True


def fetch(sha256: str, size: int, holder: str = "") -> Path:
    """Bring a blob to this disk, going on where an earlier attempt stopped; returns where it is.

    Args:
        sha256: of its content.
        size: in bytes.
        holder: whoever may fetch at the same time has another one.

    Raises:
        NotFound: the store has no such blob.
        NoRoom: the disk has no room for it.
        Invalid: what the store gives has another hash.
        Away: the store does not answer.
    """
    if blobs.has(sha256):
        return blobs.path(sha256)
    partial = get_settings().blobs_dir / PARTIAL / f"{sha256}{holder and '.'}{holder}"
    partial.parent.mkdir(parents=True, exist_ok=True)
    with partial.open("a+b") as file:
        quota.check_disk(size - file.tell())
        digest = _digest_so_far(file, size)
        while (position := file.tell()) < size:
            piece = _read(sha256, position, min(position + CHUNK_BYTES, size))
            file.write(piece)
            digest.update(piece)
        file.flush()
        os.fsync(file.fileno())
    if digest.hexdigest() != sha256:
        partial.unlink()
        raise Invalid("The blob store gives other bytes for %(sha256)s than were put there.", sha256=sha256[:16])
    partial.chmod(blobs.READ_ONLY)
    target = blobs.path(sha256)
    target.parent.mkdir(parents=True, exist_ok=True)
    os.replace(partial, target)
    return target


def collect(kept: Collection[str], *, grace_seconds: float = blobs.GRACE_SECONDS) -> int:
    """Delete what no checkpoint needs any more and is older than the grace; returns the bytes that were freed.

    Raises:
        Away: the store does not answer.
    """
    before = dt.datetime.now(dt.UTC) - dt.timedelta(seconds=grace_seconds)
    _files().invalidate_cache()
    freed = 0
    for place, found in _try(lambda: _files().find(_root(), detail=True), "read").items():
        name = place.rsplit("/", 1)[-1]
        if name not in kept and len(name) == 64 and _changed_at(found) <= before:
            _try(lambda place=place: _files().rm_file(place), "written to")  # type: ignore[misc]
            freed += int(found["size"])
    return freed


def _digest_so_far(file: Any, size: int) -> Any:
    """Hash what an earlier attempt left, and stand behind it; more than there can be is thrown away."""
    if file.tell() > size:
        file.truncate(0)
    file.seek(0)
    digest = hashlib.sha256()
    while piece := file.read(CHUNK_BYTES):
        digest.update(piece)
    return digest


def _read(sha256: str, begin: int, end: int) -> bytes:
    def read() -> bytes:
        try:
            piece: bytes = _files().cat_file(_place(sha256), start=begin, end=end)
        except FileNotFoundError:
            raise NotFound("The content %(sha256)s is not in the blob store.", sha256=sha256[:16]) from None
        if len(piece) != end - begin:
            raise OSError(f"{len(piece)} bytes came of {end - begin}")
        return piece

    return _try(read, "read")


def _try(work: Callable[[], T], what: str) -> T:
    """Do it, several times where the store or the way to it fails."""
    waiting = Retrying(
        retry=retry_if_exception(lambda error: isinstance(error, Exception) and not isinstance(error, RegistryError)),
        stop=stop_after_attempt(ATTEMPTS),
        wait=wait_random_exponential(multiplier=0.2, max=10),
        before_sleep=lambda call: log.warning("The blob store failed; trying again.", error=_reason(call.outcome)),
    )
    try:
        return waiting(work)
    except RetryError as error:
        reason = _reason(error.last_attempt)
        raise Away("The blob store cannot be %(what)s: %(error)s.", what=what, error=reason) from error


def _reason(outcome: Any) -> str:
    error = outcome.exception()
    return f"{type(error).__name__}: {str(error).strip()[:200]}".rstrip(": .")


def _changed_at(found: dict[str, Any]) -> dt.datetime:
    known = found.get("LastModified") or found.get("mtime") or 0
    if isinstance(known, str):
        known = dt.datetime.fromisoformat(known)
    if isinstance(known, dt.datetime):
        return known if known.tzinfo else known.replace(tzinfo=dt.UTC)
    return dt.datetime.fromtimestamp(float(known), dt.UTC)


def _place(sha256: str) -> str:
    return f"{_root()}/{sha256[:2]}/{sha256}"


def _root() -> str:
    return _open(get_settings().blob_store, get_settings().blob_store_options)[1]


def _files() -> Any:
    return _open(get_settings().blob_store, get_settings().blob_store_options)[0]


@lru_cache(maxsize=4)
def _open(url: str, options: str) -> tuple[Any, str]:
    try:
        given = json.loads(options or "{}")
        if url.startswith("file:"):  # a mounted disk: the one kind of store that has folders to be made
            given = {"auto_mkdir": True, **given}
        files, root = fsspec.core.url_to_fs(url, **given)
    except ImportError as error:
        raise Invalid("GROW_BLOB_STORE needs a package that is not installed: %(error)s.", error=error) from error
    except (ValueError, TypeError) as error:  # the options are secrets: they are not repeated
        raise Invalid(
            "GROW_BLOB_STORE or GROW_BLOB_STORE_OPTIONS cannot be used: %(kind)s.", kind=type(error).__name__
        ) from None
    return files, root.rstrip("/")
