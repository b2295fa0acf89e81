"""A stored file as an answer: whole or in ranges, with a strong ETag, never compressed, and as fast as can be."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote

import structlog
from fastapi import HTTPException
from fastapi.concurrency import run_in_threadpool
from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import FileResponse, Response
from starlette.types import Receive, Scope, Send

from registry import locks, remote
from registry.settings import get_settings
from server.i18n import gettext
from server.sendfile import EXTENSION

BINARY = "application/octet-stream"
"""The type of all files: browsers save them, none of ours is shown as a page, and no layer compresses it."""
FOREVER = "public, max-age=31536000, immutable"

log = structlog.get_logger(__name__)


class Content(NamedTuple):
    """A file of the registry: where it lies if it is on this disk, and what it is."""

    path: Path
    sha256: str
    size: int


def here(content: Content) -> Path:
    """The file on this disk, fetched from the blob store where it is not; that may take minutes.

    Raises:
        HTTPException: 503 where there is no store either.
        NotFound, NoRoom, Invalid, Away: as of `remote.fetch`.
    """
    if content.path.exists():
        return content.path
    if not remote.is_set():
        log.error("A file of a ready checkpoint is missing.", file=str(content.path))
        raise HTTPException(503, gettext("This file is not here at the moment. Try again later."))
    with locks.hold(f"download {content.sha256}"):
        return remote.fetch(content.sha256, content.size, "download")


class Stored(Response):
    """A file of the registry as an answer; the browser saves it under the last part of its name.

    Fetched only when the answer is sent: the route's database session has ended by then.
    """

    def __init__(self, content: Content, *, etag: str, headers: Mapping[str, str], name: str) -> None:
        super().__init__(media_type=BINARY, headers=headers)
        self.content, self.etag, self.sent, self.name = content, etag, dict(headers), name.rpartition("/")[2]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Find the file, then send what the request asks of it; its head alone needs no file."""
        path = self.content.path
        if scope["method"] == "HEAD" and remote.is_set() and not path.exists():
            known = {"ETag": f'"{self.etag}"', "Content-Length": str(self.content.size), "Accept-Ranges": "bytes"}
            await Response(media_type=BINARY, headers={**self.sent, **known})(scope, receive, send)
            return
        path = (await run_in_threadpool(here, self.content)).absolute()
        found = StoredFile(path, path.stat(), etag=self.etag, headers=self.sent, filename=self.name)
        await found(scope, receive, send)


class StoredFile(FileResponse):
    """`etag` is without its quotes. Answers 304, 206 and 416 as the request's headers ask."""

    chunk_size = 2**20

    def __init__(
        self, path: Path, found: os.stat_result, *, etag: str, headers: Mapping[str, str], filename: str
    ) -> None:
        own = {"ETag": f'"{etag}"', **headers}
        super().__init__(path, headers=own, media_type=BINARY, filename=filename, stat_result=found)
        self._takes_files = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it, or say that the reader has it already."""
        known = Headers(scope=scope).get("if-none-match")
        if known is not None and _names(known, self.headers["etag"]):
            kept = {name: value for name, value in self.headers.items() if not name.startswith("content-")}
            await Response(status_code=304, headers=kept)(scope, receive, send)
            return
        if (location := get_settings().accel_location) and scope["method"] == "GET":
            await self._leave_to_nginx(location)(scope, receive, send)
            return
        self._takes_files = EXTENSION in scope.get("extensions", {})
        await super().__call__(scope, receive, send)

    def _leave_to_nginx(self, location: str) -> Response:
        """All but the content, which nginx puts in; it sees to ranges too."""
        place = Path(self.path).relative_to(get_settings().home.absolute())
        headers = {
            name: value for name, value in self.headers.items() if name not in ("content-length", "last-modified")
        }
        return Response(headers={**headers, "X-Accel-Redirect": quote(f"{location.rstrip('/')}/{place.as_posix()}")})

    async def _handle_simple(self, send: Send, send_header_only: bool, send_pathsend: bool) -> None:
        if send_header_only or not self._takes_files:
            await super()._handle_simple(send, send_header_only, send_pathsend)
        else:
            await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
            await self._send_part(send, 0, int(self.headers["content-length"]))

    async def _handle_single_range(
        self, send: Send, start: int, end: int, file_size: int, send_header_only: bool
    ) -> None:
        if send_header_only or not self._takes_files:
            await super()._handle_single_range(send, start, end, file_size, send_header_only)
            return
        headers = MutableHeaders(raw=list(self.raw_headers))
        headers["content-range"] = f"bytes {start}-{end - 1}/{file_size}"
        headers["content-length"] = str(end - start)
        await send({"type": "http.response.start", "status": 206, "headers": headers.raw})
        await self._send_part(send, start, end - start)

    async def _send_part(self, send: Send, offset: int, count: int) -> None:
        file = os.open(self.path, os.O_RDONLY)
        try:
            await send({"type": EXTENSION, "file": file, "offset": offset, "count": count, "more_body": True})
            await send({"type": "http.response.body", "body": b"", "more_body": False})
        finally:
            os.close(file)


def _names(sent: str, etag: str) -> bool:
    """Whether an If-None-Match header names the ETag; weak ones compare alike there (RFC 9110, 13.1.2)."""
    return any(one.strip().removeprefix("W/") in ("*", etag) for one in sent.split(","))
