"""Receiving a checkpoint from a browser: streamed to disk, unpacked with suspicion, or refused without a trace.

A form comes with its fields first and its files last, so that everything that can be refused is
refused before the first byte of a file is kept. Nothing here loads weights: what the files hold is
`registry.store.check_folder`'s and the worker's matter.
"""

import shutil
import stat
import time
import uuid
import zipfile
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import IO

from fastapi import Request
from fastapi.concurrency import run_in_threadpool
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from registry import store
from registry.errors import Invalid
from registry.settings import get_settings
from server.i18n import gettext

CHUNK_BYTES = 2**20
MAX_FIELDS, MAX_FIELD_BYTES = 20, 10_000
MAX_FILES = 500
DRAIN_BYTES = 256 * 2**20
"""A refused upload is read on so far: a browser that is cut off while it sends never shows the answer."""
MAX_RATIO = 100
"""Weights hardly compress; above this, and above `RATIO_FROM_BYTES`, an archive is a bomb."""
RATIO_FROM_BYTES = 64 * 2**20
STALE_SECONDS = 86_400
IGNORED_NAMES = (".DS_Store", ".gitattributes", ".gitignore", "Thumbs.db")
"""What file managers and git leave in folders: neither kept nor a reason to refuse."""

Fields = Mapping[str, str]


class TooLarge(Invalid):
    """More bytes than the site accepts."""


@asynccontextmanager
async def incoming() -> AsyncIterator[Path]:
    """A folder for one upload, gone afterwards whatever happened; what a crash left behind goes too."""
    parent = get_settings().uploads_dir
    folder = parent / uuid.uuid4().hex
    await run_in_threadpool(folder.mkdir, parents=True)
    try:
        await run_in_threadpool(_drop_stale, parent)
        yield folder
    finally:
        await run_in_threadpool(shutil.rmtree, folder, ignore_errors=True)


def _drop_stale(parent: Path) -> None:
    for folder in parent.iterdir():
        if folder.is_dir() and folder.stat().st_mtime < time.time() - STALE_SECONDS:
            shutil.rmtree(folder, ignore_errors=True)


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
    size, limit = int(length) if length.isdigit() else 0, get_settings().max_upload_bytes
    if size > limit:
        raise _too_large(limit)
    if 2 * size > shutil.disk_usage(folder).free:  # an archive and what is in it
        raise TooLarge(gettext("The disk of this site has no room for it."))


def _too_large(limit: int) -> TooLarge:
    return TooLarge(gettext("The upload is too large: at most %(limit)s bytes are accepted.", limit=f"{limit:,}"))


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
        self._names: set[str] = set()
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
        if not name or is_ignored(name):  # an input without a chosen file comes with an empty name
            return
        if not self._checked:
            self._check(self._fields)
            self._checked = True
        self._file = self._open(name)

    def _open(self, name: str) -> IO[bytes]:
        if not name.lower().endswith(".zip"):
            store.check_file_name(name)
        if name in self._names:
            raise Invalid(gettext("The file '%(name)s' came twice.", name=name))
        self._names.add(name)
        _check_count(len(self._names))
        # A zip's own name never becomes a path.
        path = self._folder / "files" / ("upload.zip" if name.lower().endswith(".zip") else name)
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            return path.open("xb")
        except OSError as error:
            raise Invalid(gettext("The file '%(name)s' cannot be kept under this name.", name=name[:120])) from error

    def _add_content(self, data: bytes, start: int, end: int) -> None:
        if self._file is not None:
            self._written += end - start
            if self._written > self._limit:
                raise _too_large(self._limit)
            self._file.write(memoryview(data)[start:end])
        elif self._field is not None:
            self._value += data[start:end]
            if len(self._value) > MAX_FIELD_BYTES:
                raise TooLarge(gettext("The field '%(name)s' is too long.", name=self._field[:40]))

    def _end_part(self) -> None:
        if self._file is not None:
            self._file.close()
        elif self._field is not None:
            self._fields[self._field] = self._value.decode("utf-8", "replace")
            if len(self._fields) > MAX_FIELDS:
                raise Invalid(gettext("The form has too many fields."))

    def _end(self) -> None:
        self._ended = True


def unpack(folder: Path) -> Path:
    """The folder that holds `config.json` and the rest, from what `receive` wrote.

    Raises:
        Invalid: a zip beside other files, or one that cannot be trusted.
    """
    received = folder / "files"
    archive = received / "upload.zip"
    if not archive.exists():
        return _without_top(received)
    if len(list(received.iterdir())) > 1:
        raise Invalid(gettext("Send either one zip or the files themselves, not both."))
    content = folder / "content"
    content.mkdir()
    _extract(archive, content)
    archive.unlink()
    return _without_top(content)


def _extract(archive: Path, content: Path) -> None:
    try:
        with zipfile.ZipFile(archive) as opened:
            entries = _checked_entries(opened, archive.stat().st_size)
            for entry in entries:
                _extract_entry(opened, entry, content / entry.filename)
    except (zipfile.BadZipFile, NotImplementedError, EOFError, OSError, ValueError) as error:
        raise Invalid(gettext("The zip is damaged or cannot be read: %(error)s", error=error)) from error


def _checked_entries(opened: zipfile.ZipFile, packed_size: int) -> list[zipfile.ZipInfo]:
    entries = [entry for entry in opened.infolist() if not entry.is_dir() and not is_ignored(entry.filename)]
    _check_count(len(entries))
    for entry in entries:
        store.check_file_name(entry.filename)
        mode = entry.external_attr >> 16
        if mode and stat.S_IFMT(mode) not in (0, stat.S_IFREG):
            raise Invalid(gettext("'%(name)s' is a link; checkpoints hold files only.", name=entry.filename[:120]))
        if entry.flag_bits & 0x1:
            raise Invalid(gettext("The zip is encrypted."))
    size, limit = sum(entry.file_size for entry in entries), get_settings().max_upload_bytes
    if size > limit:
        raise _too_large(limit)
    if size > RATIO_FROM_BYTES and size > MAX_RATIO * packed_size:
        raise Invalid(gettext("The zip unpacks to more than a hundred times its size: that is no checkpoint."))
    return entries


def _extract_entry(opened: zipfile.ZipFile, entry: zipfile.ZipInfo, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    written = 0
    with opened.open(entry) as source, path.open("xb") as target:
        while chunk := source.read(CHUNK_BYTES):
            written += len(chunk)
            if written > entry.file_size:  # the directory of a zip is only a claim
                raise Invalid(gettext("'%(name)s' in the zip is larger than it says.", name=entry.filename[:120]))
            target.write(chunk)


def _check_count(count: int) -> None:
    if count > MAX_FILES:
        raise Invalid(gettext("A checkpoint has at most %(count)s files.", count=MAX_FILES))


def is_ignored(name: str) -> bool:
    """Whether a file is neither kept nor a reason to refuse the rest."""
    parts = name.replace("\\", "/").split("/")
    return parts[-1] in IGNORED_NAMES or parts[0] == "__MACOSX"


def _without_top(folder: Path) -> Path:
    """Zips and picked folders mostly hold one folder that holds everything."""
    inside = list(folder.iterdir())
    return inside[0] if len(inside) == 1 and inside[0].is_dir() else folder
