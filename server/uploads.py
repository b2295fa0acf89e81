"""Receiving a checkpoint from a browser: streamed to disk, unpacked with suspicion, or refused without a trace.

A form comes with its fields first and its files last, so that everything that can be refused is
refused before the first byte of a file is kept. Nothing here loads weights: what the files hold is
`registry.store.check_folder`'s and the worker's matter.
"""

import shutil
import uuid
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import IO

from fastapi import Request
from fastapi.concurrency import run_in_threadpool
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from registry import unpack
from registry.errors import Invalid
from registry.settings import get_settings
from server.i18n import gettext

CHUNK_BYTES = 2**20
MAX_FIELDS, MAX_FIELD_BYTES = 20, 10_000
DRAIN_BYTES = 256 * 2**20
"""A refused upload is read on so far: a browser that is cut off while it sends never shows the answer."""

Fields = Mapping[str, str]


@asynccontextmanager
async def incoming() -> AsyncIterator[Path]:
    """A folder for one upload, gone afterwards whatever happened; what a crash leaves, the worker's sweep finds."""
    folder = get_settings().uploads_dir / uuid.uuid4().hex
    await run_in_threadpool(folder.mkdir, parents=True)
    try:
        yield folder
    finally:
        await run_in_threadpool(shutil.rmtree, folder, ignore_errors=True)


async def receive(request: Request, folder: Path, check: Callable[[Fields], None]) -> Fields:
    """Write the files of a multipart form below `folder` and return its fields.

    Args:
        request: its body must not have been read.
        folder: an empty folder of this upload's own.
        check: called with the fields before the first file is kept; raises to refuse.

    Raises:
        Invalid: not such a form, or a file that is not accepted.
        TooLarge: more than `Settings.max_upload_bytes`, or than the disk holds.
    """
    chunks = _chunks(request)
    try:
        _check_size(request, folder)
        receiver = Receiver(_boundary(request), folder, check)
        try:
            async for chunk in chunks:
                await run_in_threadpool(receiver.feed, chunk)
            return receiver.finish()
        finally:
            receiver.close()
    except FormParserError as error:
        raise _broken_off() from error
    finally:
        await _drain(chunks)


async def _drain(chunks: AsyncIterator[bytes]) -> None:
    drained = 0
    async for chunk in chunks:
        drained += len(chunk)
        if drained > DRAIN_BYTES:
            return


async def _chunks(request: Request) -> AsyncIterator[bytes]:
    buffer = bytearray()
    async for piece in request.stream():
        buffer += piece
        if len(buffer) >= CHUNK_BYTES:
            yield bytes(buffer)
            buffer.clear()
    if buffer:
        yield bytes(buffer)


def _check_size(request: Request, folder: Path) -> None:
    length = request.headers.get("content-length", "")
    size = int(length) if length.isdigit() else 0
    unpack.check_size(size)
    if 2 * size > shutil.disk_usage(folder).free:  # an archive and what is in it
        raise unpack.TooLarge(gettext("The disk of this site has no room for it."))


def _broken_off() -> Invalid:
    return Invalid(gettext("The upload is no form that can be read, or it broke off."))


def _boundary(request: Request) -> bytes:
    kind, options = parse_options_header(request.headers.get("content-type", ""))
    if kind != b"multipart/form-data" or b"boundary" not in options:
        raise Invalid(gettext("An upload must be sent as multipart/form-data."))
    return options[b"boundary"]


class Receiver:
    """Takes a form piece by piece; fields stay in memory, files go to `folder / "files"`."""

    def __init__(self, boundary: bytes, folder: Path, check: Callable[[Fields], None]) -> None:
        self._folder = folder
        self._check = check
        self._fields: dict[str, str] = {}
        self._names: list[str] = []
        self._written = 0
        self._limit = get_settings().max_upload_bytes
        self._checked = False
        self._ended = False
        self._file: IO[bytes] | None = None
        self._field: str | None = None
        self._value = bytearray()
        self._header_name, self._header_value, self._disposition = b"", b"", b""
        self._parser = MultipartParser(
            boundary,
            {
                "on_part_begin": self._begin_part,
                "on_header_field": self._add_header_name,
                "on_header_value": self._add_header_value,
                "on_header_end": self._end_header,
                "on_headers_finished": self._begin_content,
                "on_part_data": self._add_content,
                "on_part_end": self._end_part,
                "on_end": self._end,
            },
        )

    def feed(self, chunk: bytes) -> None:
        """Take the next piece of the body."""
        self._parser.write(chunk)

    def finish(self) -> Fields:
        """The fields, once the whole body came."""
        self._parser.finalize()
        if not self._ended:  # the parser itself takes a body that stops anywhere
            raise _broken_off()
        if not self._checked:
            self._check(self._fields)
        if not self._names:
            raise Invalid(gettext("Choose the files of a checkpoint, or a zip of them."))
        return self._fields

    def close(self) -> None:
        """Let go of a file that was being written."""
        if self._file is not None:
            self._file.close()

    def _begin_part(self) -> None:
        self._disposition, self._field, self._file = b"", None, None
        self._value.clear()

    def _add_header_name(self, data: bytes, start: int, end: int) -> None:
        self._header_name += data[start:end]

    def _add_header_value(self, data: bytes, start: int, end: int) -> None:
        self._header_value += data[start:end]

    def _end_header(self) -> None:
        if self._header_name.lower() == b"content-disposition":
            self._disposition = self._header_value
        self._header_name, self._header_value = b"", b""

    def _begin_content(self) -> None:
        _, options = parse_options_header(self._disposition)
        if b"filename" not in options:
            self._field = options.get(b"name", b"").decode("utf-8", "replace")
            return
        name = options[b"filename"].decode("utf-8", "replace")
        if not name or unpack.is_ignored(name):  # an input without a chosen file comes with an empty name
            return
        if not self._checked:
            self._check(self._fields)
            self._checked = True
        self._file = self._open(name)

    def _open(self, name: str) -> IO[bytes]:
        self._names.append(name)
        unpack.check_names([one for one in self._names if not unpack.is_zip(one)])
        if len(self._names) > 1 and any(unpack.is_zip(one) for one in self._names):
            raise Invalid("Send either one zip or the files themselves, not both.")
        # A zip's own name never becomes a path.
        path = self._folder / "files" / ("upload.zip" if unpack.is_zip(name) else name)
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            return path.open("xb")
        except OSError as error:
            raise Invalid(gettext("The file '%(name)s' cannot be kept under this name.", name=name[:120])) from error

    def _add_content(self, data: bytes, start: int, end: int) -> None:
        if self._file is not None:
            self._written += end - start
            if self._written > self._limit:
                raise unpack.too_large()
            self._file.write(memoryview(data)[start:end])
        elif self._field is not None:
            self._value += data[start:end]
            if len(self._value) > MAX_FIELD_BYTES:
                raise unpack.TooLarge(gettext("The field '%(name)s' is too long.", name=self._field[:40]))

    def _end_part(self) -> None:
        if self._file is not None:
            self._file.close()
        elif self._field is not None:
            self._fields[self._field] = self._value.decode("utf-8", "replace")
            if len(self._fields) > MAX_FIELDS:
                raise Invalid(gettext("The form has too many fields."))

    def _end(self) -> None:
        self._ended = True


def open_received(folder: Path) -> tuple[Path, dict[str, str]]:
    """The folder that holds `config.json` and the rest, from what `receive` wrote, and hashes that are known of it.

    Raises:
        Invalid: a zip beside other files, or one that cannot be trusted.
    """
    received = folder / "files"
    archive = received / "upload.zip"
    if not archive.exists():
        inside = list(received.iterdir())
        return (inside[0] if len(inside) == 1 and inside[0].is_dir() else received), {}
    if len(list(received.iterdir())) > 1:
        raise Invalid("Send either one zip or the files themselves, not both.")
    content = folder / "content"
    hashes = unpack.extract(archive, content)
    archive.unlink()
    return content, hashes
