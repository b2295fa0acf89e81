"""The tus protocol, version 1.0.0 (tus.io): its headers, and one chunk on its way to disk.

A chunk goes from the connection to its file in pieces of `BATCH_BYTES`, written and hashed in threads while the next
piece comes, so that memory stays flat and pages are answered meanwhile. It counts only once it is whole and, where it
came with a checksum, right; what is no good leaves the file as it was.
"""

import asyncio
import base64
import binascii
import contextlib
import fcntl
import hashlib
import os
from collections import OrderedDict, deque
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import NamedTuple, Protocol

from fastapi import HTTPException, Request
from starlette.requests import ClientDisconnect

from registry import quota
from server.i18n import error_text, gettext

VERSION = "1.0.0"
EXTENSIONS = "creation,termination,checksum,expiration"
ALGORITHMS = ("sha256", "sha1")
CHUNK_TYPE = "application/offset+octet-stream"
BATCH_BYTES = 2**20
MAX_PIECES = 512
"""That the system takes in one write."""
MAX_WAITING = 8
"""Batches that wait to be written, and as many to be hashed: what a chunk may take of the memory."""
IDLE_SECONDS = 60.0
"""A connection that sends nothing for so long is given up; its client comes back and asks for the offset."""
TAKE_OVER_SECONDS = 5.0
MAX_METADATA_BYTES = 8_192
MAX_METADATA_KEYS = 20
MAX_HASHERS = 1_000
CHECKSUM_MISMATCH = 460
"""The protocol's own status."""
HEADERS = {"Tus-Resumable": VERSION, "Cache-Control": "no-store"}


class Hash(Protocol):
    """What this module uses of an object of `hashlib`."""

    def update(self, data: bytes, /) -> None:
        """Take more bytes."""

    def digest(self) -> bytes:
        """The hash so far."""

    def hexdigest(self) -> str:
        """The hash so far, in letters."""

    def copy(self) -> "Hash":
        """One that goes its own way from here."""


class Checksum(NamedTuple):
    """What the client says a chunk hashes to."""

    algorithm: str
    digest: bytes


class Chunk(NamedTuple):
    """Bytes that are on disk and may be counted."""

    before: int
    after: int
    sha256: str
    """Of the whole file where this was its end and all of it was hashed on its way; else empty."""


def refuse(status: int, message: str, **headers: str) -> HTTPException:
    """An error as the protocol wants it; names of headers are written with underscores."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return HTTPException(status, message, headers={**HEADERS, **named})


def read_number(request: Request, header: str) -> int:
    """A header that must be a whole number.

    Raises:
        HTTPException: 400.
    """
    text = request.headers.get(header, "")
    if not (text.isascii() and text.isdigit() and len(text) <= 18):
        raise refuse(400, gettext("The header %(name)s must be a whole number, 0 or more.", name=header))
    return int(text)


def read_metadata(request: Request) -> dict[str, str]:
    """The pairs of the header `Upload-Metadata`.

    Raises:
        HTTPException: 400.
    """
    header = request.headers.get("upload-metadata", "")
    pairs = [part.strip().split(" ") for part in header.split(",") if part.strip()]
    try:
        if len(header) > MAX_METADATA_BYTES or len(pairs) > MAX_METADATA_KEYS or any(len(pair) > 2 for pair in pairs):
            raise ValueError
        found = {pair[0]: base64.b64decode("".join(pair[1:]), validate=True).decode() for pair in pairs}
    except (binascii.Error, ValueError) as error:
        raise refuse(400, gettext("The header %(name)s cannot be read.", name="Upload-Metadata")) from error
    if len(found) < len(pairs):
        raise refuse(400, gettext("The header %(name)s cannot be read.", name="Upload-Metadata"))
    return found


def read_checksum(request: Request) -> Checksum | None:
    """The header `Upload-Checksum`, if it was sent.

    Raises:
        HTTPException: 400.
    """
    header = request.headers.get("upload-checksum")
    if header is None:
        return None
    algorithm, _, encoded = header.partition(" ")
    if algorithm not in ALGORITHMS:
        known = ", ".join(ALGORITHMS)
        raise refuse(400, gettext("The checksum algorithm must be one of: %(known)s.", known=known))
    try:
        digest = base64.b64decode(encoded.strip(), validate=True)
    except (binascii.Error, ValueError) as error:
        raise refuse(400, gettext("The header %(name)s cannot be read.", name="Upload-Checksum")) from error
    if len(digest) != hashlib.new(algorithm).digest_size:
        raise refuse(400, gettext("The header %(name)s cannot be read.", name="Upload-Checksum"))
    return Checksum(algorithm, digest)


def check_version(request: Request) -> None:
    """Whether the client speaks this version.

    Raises:
        HTTPException: 412.
    """
    if request.headers.get("tus-resumable") != VERSION:
        message = gettext("This server speaks the tus protocol %(version)s.", version=VERSION)
        raise refuse(412, message, Tus_Version=VERSION)


class Hashers:
    """How far each file has been hashed on its way. A server that starts anew has forgotten it: then files are read."""

    def __init__(self) -> None:
        self._known: OrderedDict[str, tuple[int, Hash]] = OrderedDict()

    def at(self, file_id: str, offset: int) -> Hash | None:
        """A hasher that has taken the first `offset` bytes of the file; None where there is none."""
        if offset == 0:
            return hashlib.sha256()
        known = self._known.get(file_id)
        return known[1].copy() if known is not None and known[0] == offset else None

    def keep(self, file_id: str, offset: int, hasher: Hash) -> None:
        """Remember it for the next chunk."""
        self._known[file_id] = (offset, hasher)
        self._known.move_to_end(file_id)
        while len(self._known) > MAX_HASHERS:
            self._known.popitem(last=False)

    def forget(self, file_id: str) -> None:
        """The file is whole, or gone."""
        self._known.pop(file_id, None)


class Writer:
    """One chunk on its way into a file. Its methods block: they are called in threads.

    Raises:
        BlockingIOError: another process writes to the file.
    """

    def __init__(self, path: Path, offset: int, checksum: Checksum | None, hasher: Hash | None) -> None:
        self._checksum = checksum
        self._check: Hash | None = hashlib.new(checksum.algorithm) if checksum is not None else None
        self.hasher = hasher
        self.start = self.end = offset
        self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.ftruncate(self._descriptor, offset)  # what a death before the count left behind
        except BaseException:
            os.close(self._descriptor)
            raise

    def write(self, pieces: list[bytes]) -> None:
        """Append to the file, and to what the checksum is about."""
        for start in range(0, len(pieces), MAX_PIECES):
            self._append(pieces[start : start + MAX_PIECES])
        if self._check is not None:
            for piece in pieces:
                self._check.update(piece)

    def _append(self, pieces: list[bytes]) -> None:
        wanted = sum(map(len, pieces))
        written = os.pwritev(self._descriptor, pieces, self.end)  # not joined: that would copy every byte once more
        self.end += written
        if written < wanted:  # the next try says why
            self._append([b"".join(pieces)[written:]])

    @property
    def is_right(self) -> bool:
        """Whether the bytes are those that the client meant."""
        return self._checksum is None or self._check is None or self._check.digest() == self._checksum.digest

    @property
    def is_checked(self) -> bool:
        """Whether the chunk came with a checksum, and so counts whole or not at all."""
        return self._checksum is not None

    def undo(self) -> None:
        """Leave the file as it was."""
        with contextlib.suppress(OSError):  # the next chunk cuts it off
            os.ftruncate(self._descriptor, self.start)

    def close(self) -> None:
        """Let go of the file."""
        os.close(self._descriptor)


class _Lane:
    """Work that is done in order, in a thread of its own, a few pieces behind whoever asks for it."""

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="upload")
        self._waiting: deque[asyncio.Future[None]] = deque()

    def put(self, work: Callable[[list[bytes]], None], pieces: list[bytes]) -> None:
        """Do this after all that was asked for before."""
        self._waiting.append(asyncio.get_running_loop().run_in_executor(self._thread, work, pieces))

    @property
    def is_full(self) -> bool:
        """Whether as much waits as may."""
        while self._waiting and self._waiting[0].done():
            self._waiting.popleft().result()
        return len(self._waiting) >= MAX_WAITING

    async def room(self) -> None:
        """Wait until more may be asked for; raises what went wrong."""
        while self.is_full:
            await self._waiting.popleft()

    async def end(self) -> None:
        """Wait until all is done; raises what went wrong."""
        while self._waiting:
            await self._waiting.popleft()

    async def stop(self) -> None:
        """Take nothing more, and wait for what was asked for; whoever stops early has an error of its own to tell."""
        self._thread.shutdown(wait=False)
        await asyncio.gather(*self._waiting, return_exceptions=True)


class _Hold:
    """A request that writes to a file."""

    def __init__(self, task: "asyncio.Task[object]") -> None:
        self.task, self.over, self.is_taken_over = task, asyncio.Event(), False


class Desk:
    """Takes chunks, one request a file: a newer one takes over, since an older one's connection is most likely dead."""

    def __init__(self) -> None:
        self.hashers = Hashers()
        self._holds: dict[str, _Hold] = {}
        self._threads = ThreadPoolExecutor(max_workers=8, thread_name_prefix="upload")

    @contextlib.asynccontextmanager
    async def hold(self, file_id: str) -> AsyncIterator[None]:
        """Be the only request of this process that writes to the file.

        Raises:
            HTTPException: 423 where the other one does not end; 409 in the other one.
        """
        await self.interrupt(file_id)
        task = asyncio.current_task()
        if file_id in self._holds or task is None:
            raise refuse(423, gettext("Another request is writing to this file."))
        hold = self._holds[file_id] = _Hold(task)
        try:
            yield
        except asyncio.CancelledError:
            if not hold.is_taken_over:
                raise
            task.uncancel()
            raise refuse(409, gettext("Another request has taken over.")) from None
        finally:
            del self._holds[file_id]
            hold.over.set()

    async def interrupt(self, file_id: str) -> None:
        """End the request that writes to the file, if there is one; what it has so far is kept where it may be."""
        hold = self._holds.get(file_id)
        if hold is None:
            return
        if not hold.is_taken_over:
            hold.is_taken_over = True
            hold.task.cancel()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(hold.over.wait(), TAKE_OVER_SECONDS)

    async def receive(
        self,
        request: Request,
        path: Path,
        file_id: str,
        *,
        offset: int,
        size: int,
        checksum: Checksum | None,
        count: Callable[[Chunk], None],
    ) -> int:
        """Take the body of a request in; returns the new offset.

        Args:
            request: its body must not have been read.
            path: of the file.
            file_id: names it.
            offset: where the chunk begins.
            size: of the whole file: no byte is taken beyond it.
            checksum: of the chunk, if one was sent.
            count: makes the bytes count; called in a thread once they may, also when the connection broke and the
                chunk came without a checksum.

        Raises:
            HTTPException: 460 for a wrong checksum, 413 for more than the file's size, 423 where another process
                writes, 404 where the file is gone, 507 where the disk is full.
        """
        loop = asyncio.get_running_loop()
        try:
            writer = await loop.run_in_executor(
                self._threads, Writer, path, offset, checksum, self.hashers.at(file_id, offset)
            )
        except BlockingIOError as error:
            raise refuse(423, gettext("Another request is writing to this file.")) from error
        except FileNotFoundError as error:
            raise refuse(404, gettext("There is no such upload.")) from error
        try:
            return await self._take(request, writer, file_id, size, count)
        except OSError as error:
            if quota.is_full(error):
                raise refuse(507, error_text(quota.disk_full())) from error
            raise
        finally:
            await asyncio.shield(loop.run_in_executor(self._threads, writer.close))

    async def _take(
        self, request: Request, writer: Writer, file_id: str, size: int, count: Callable[[Chunk], None]
    ) -> int:
        try:
            await self._pour(request, writer, size)
        except (ClientDisconnect, TimeoutError, asyncio.CancelledError):
            if writer.is_checked or writer.end == writer.start:
                writer.undo()
            else:
                await asyncio.shield(self._settle(writer, file_id, size, count))
            raise
        except BaseException:
            writer.undo()
            raise
        if not writer.is_right:
            writer.undo()
            raise refuse(CHECKSUM_MISMATCH, gettext("The chunk does not have the checksum that was sent with it."))
        await self._settle(writer, file_id, size, count)
        return writer.end

    async def _pour(self, request: Request, writer: Writer, size: int) -> None:
        """Write everything that comes, in one thread, and hash the file in another as long as that keeps pace."""
        writes, hashes = _Lane(), _Lane()
        try:
            async for batch in _batches(request, size - writer.start):
                await writes.room()
                writes.put(writer.write, batch)
                if writer.hasher is not None and hashes.is_full:
                    writer.hasher = None  # the line is faster than this machine hashes twice: sealing reads the file
                elif writer.hasher is not None:
                    hashes.put(partial(_hash, writer.hasher), batch)
            await writes.end()
            await hashes.end()
        finally:
            # Whatever happened, nobody may write any more when this returns.
            await writes.stop()
            await hashes.stop()

    async def _settle(self, writer: Writer, file_id: str, size: int, count: Callable[[Chunk], None]) -> None:
        is_whole = writer.end == size
        sha256 = writer.hasher.hexdigest() if is_whole and writer.hasher is not None else ""
        loop = asyncio.get_running_loop()
        try:
            await loop.run_in_executor(self._threads, count, Chunk(writer.start, writer.end, sha256))
        except BaseException:
            writer.undo()
            raise
        if is_whole or writer.hasher is None:
            self.hashers.forget(file_id)
        else:
            self.hashers.keep(file_id, writer.end, writer.hasher)


def _hash(hasher: Hash, pieces: list[bytes]) -> None:
    for piece in pieces:
        hasher.update(piece)


async def _batches(request: Request, limit: int) -> AsyncIterator[list[bytes]]:
    """The body in pieces of about `BATCH_BYTES`; what came of the last one is dropped where the connection breaks."""
    loop = asyncio.get_running_loop()
    pieces: list[bytes] = []
    waiting = taken = 0
    async with asyncio.timeout(IDLE_SECONDS) as idle:
        async for piece in request.stream():
            pieces.append(piece)
            waiting, taken = waiting + len(piece), taken + len(piece)
            if taken > limit:
                raise refuse(413, gettext("More bytes came than the file was announced with."))
            idle.reschedule(loop.time() + IDLE_SECONDS)
            if waiting >= BATCH_BYTES:
                yield pieces
                pieces, waiting = [], 0
    if pieces:
        yield pieces
