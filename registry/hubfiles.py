"""Content that arrives by the Hub protocol: written beside the blobs, checked against its hash, then kept as a blob."""

import hashlib
import os
import shutil
import time
import uuid
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO, Self

from registry import blobs, quota
from registry.errors import Invalid
from registry.models import Run
from registry.settings import get_settings

STALE_SECONDS = 86_400.0
"""What was begun and not ended for so long is dropped."""
CHUNK_BYTES = 2**20


def folder(name: str) -> Path:
    """A folder of this protocol's own: `incoming`, `kept`, `xet`."""
    found = get_settings().home / "hub" / name
    found.mkdir(parents=True, exist_ok=True)
    return found


class Receiver:
    """Takes one content piece by piece, and keeps it as a blob if it is what it was said to be."""

    def __init__(self, size: int, sha256: str = "") -> None:
        self.size, self._sha256 = size, sha256
        self._place = folder("incoming") / uuid.uuid4().hex
        self._hash = hashlib.sha256()
        self._num = 0
        self._file: BinaryIO = self._place.open("wb")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()
        self._place.unlink(missing_ok=True)

    def feed(self, piece: bytes) -> None:
        """Take the next bytes.

        Raises:
            Invalid: there are more than were announced.
            NoRoom: the disk is full.
        """
        self._num += len(piece)
        if self._num > self.size:
            raise Invalid("More bytes came than the %(size)s that were announced.", size=f"{self.size:,}")
        try:
            self._file.write(piece)
        except OSError as error:
            raise quota.disk_full() if quota.is_full(error) else error from error
        self._hash.update(piece)

    def finish(self) -> str:
        """Keep it; returns its sha256.

        Raises:
            Invalid: it is shorter than announced, or has another hash.
        """
        self._file.close()
        if self._num != self.size:
            raise Invalid(
                "%(found)s bytes came; %(size)s were announced.", found=f"{self._num:,}", size=f"{self.size:,}"
            )
        found = self._hash.hexdigest()
        if self._sha256 and found != self._sha256:
            raise Invalid(
                "What came does not have the sha256 %(sha256)s… that was announced.", sha256=self._sha256[:16]
            )
        self._keep(found)
        return found

    def _keep(self, found: str) -> None:
        blobs.adopt(self._place, found)


class PartReceiver(Receiver):
    """Takes one part of a large content, which then waits for the others."""

    def __init__(self, size: int, destination: Path) -> None:
        super().__init__(size)
        self._destination = destination

    def _keep(self, found: str) -> None:
        os.replace(self._place, self._destination)


def receive(pieces: Iterable[bytes], size: int, sha256: str = "") -> str:
    """Keep a content as a blob; returns its sha256.

    Raises:
        Invalid: it is not what was announced.
        NoRoom: the disk is full.
    """
    with Receiver(size, sha256) as receiver:
        for piece in pieces:
            receiver.feed(piece)
        return receiver.finish()


def part_path(sha256: str, user_id: int, number: int) -> Path:
    """Where a part of a large content waits for the others."""
    parts = folder("incoming") / f"{user_id}-{sha256}"
    parts.mkdir(exist_ok=True)
    return parts / f"{number}.part"


def join(sha256: str, size: int, user_id: int, num_parts: int) -> None:
    """Keep as one blob what came in parts; the parts are gone afterwards.

    Raises:
        Invalid: one is missing, or they do not make what was announced.
    """
    parts = [part_path(sha256, user_id, number) for number in range(1, num_parts + 1)]
    try:
        receive(_pieces(parts), size, sha256)
    except FileNotFoundError as error:
        raise Invalid("Not all parts of %(sha256)s… came.", sha256=sha256[:16]) from error
    shutil.rmtree(parts[0].parent, ignore_errors=True)


def keep(run: Run, hashes: Iterable[str]) -> None:
    """Hold the small files of a run's commits, which no checkpoint's folder may hold."""
    kept = folder("kept") / str(run.id)
    kept.mkdir(exist_ok=True)
    for sha256 in hashes:
        if not (kept / sha256).exists():
            blobs.link(sha256, kept / sha256)


def drop_stale() -> None:
    """Forget what somebody began to send a day ago and never ended, and imports that nobody has taken up for a week."""
    now = time.time()
    _drop((*folder("incoming").iterdir(), *folder("xet").glob("*/*.xorb")), now - STALE_SECONDS)
    _drop(folder("import").iterdir(), now - 7 * STALE_SECONDS)


def _drop(paths: Iterable[Path], before: float) -> None:
    for path in paths:
        try:
            if path.stat().st_mtime > before:
                continue
        except FileNotFoundError:
            continue  # whoever sent it has just ended
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


def _pieces(parts: Iterable[Path]) -> Iterator[bytes]:
    for part in parts:
        with part.open("rb") as file:
            while piece := file.read(CHUNK_BYTES):
                yield piece
