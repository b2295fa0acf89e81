"""The body of a commit: one JSON object a line, read as it comes; small files are kept as soon as they are there."""

import base64
import binascii
import re
from collections.abc import AsyncIterator
from typing import Any

from fastapi.concurrency import run_in_threadpool

from registry import gitblobs, hubcommits, hubfiles, jsonfiles
from registry.errors import Invalid
from registry.hub import File
from registry.hubcommits import Push
from server.hubapi.errors import HubError
from server.i18n import gettext

MAX_LINE_BYTES = 16 * 2**20
MAX_BODY_BYTES = 256 * 2**20
MAX_LINES = 2_000
SHA256 = re.compile(r"[0-9a-f]{64}")
SHA = re.compile(r"[0-9a-f]{40}|")


async def read_push(pieces: AsyncIterator[bytes]) -> Push:
    """What a client asks to commit.

    Raises:
        Invalid: a line says nothing that is understood.
        HubError: 413, it is too long.
    """
    push: Push | None = None
    num = 0
    async for line in _lines(pieces):
        num += 1
        if num > MAX_LINES:
            raise HubError(413, gettext("A commit changes at most %(limit)s files here.", limit=MAX_LINES))
        content = jsonfiles.parse(line, f"line {num}")
        kind, value = (content.get("key"), content.get("value")) if isinstance(content, dict) else (None, None)
        if not isinstance(value, dict):
            raise Invalid("Line %(number)s of the commit is no operation.", number=num)
        if kind == "header":
            push = _header(value)
        elif push is None:
            raise Invalid("A commit begins with its header.")
        else:
            await run_in_threadpool(_operation, push, kind, value, num)
    if push is None:
        raise Invalid("A commit begins with its header.")
    return push


async def _lines(pieces: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    waiting, total = bytearray(), 0
    async for piece in pieces:
        total += len(piece)
        waiting += piece
        while (end := waiting.find(b"\n")) >= 0:
            if line := bytes(waiting[:end]).strip():
                yield line
            del waiting[: end + 1]
        if len(waiting) > MAX_LINE_BYTES or total > MAX_BODY_BYTES:
            raise HubError(413, gettext("This commit is too large: upload large files first, as the client does."))
    if line := bytes(waiting).strip():
        yield line


def _header(value: dict[str, Any]) -> Push:
    parent = value.get("parentCommit") or ""
    if not isinstance(parent, str) or not SHA.fullmatch(parent):
        raise Invalid("parentCommit must be a commit of forty hexadecimal digits.")
    return Push(title=_text(value, "summary"), message=_text(value, "description"), parent=parent)


def _operation(push: Push, kind: Any, value: dict[str, Any], line: int) -> None:
    path = _text(value, "path")
    if kind in ("deletedFile", "deletedFolder"):
        push.deleted.append(path if kind == "deletedFile" else path.rstrip("/") + "/")
        return
    if kind not in ("file", "lfsFile"):
        raise Invalid("Line %(number)s of the commit: '%(kind)s' is not known here.", number=line, kind=str(kind)[:40])
    if not hubcommits.is_kept(path):
        push.ignored.append(path)
        return
    push.files[path] = _large(value, path) if kind == "lfsFile" else _regular(value, path)


def _large(value: dict[str, Any], path: str) -> File:
    oid, size = value.get("oid"), value.get("size")
    is_size = isinstance(size, int) and not isinstance(size, bool) and size >= 0
    if value.get("algo") != "sha256" or not isinstance(oid, str) or not SHA256.fullmatch(oid) or not is_size:
        raise Invalid("'%(name)s' must come with its sha256 and its size.", name=path[:120])
    return File(int(value["size"]), oid)


def _regular(value: dict[str, Any], path: str) -> File:
    text = value.get("content")
    if value.get("encoding") != "base64" or not isinstance(text, str):
        raise Invalid("The content of '%(name)s' must be base64.", name=path[:120])
    try:
        content = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise Invalid("The content of '%(name)s' must be base64.", name=path[:120]) from error
    sha256 = hubfiles.receive([content], len(content))
    large = gitblobs.is_large(path, len(content))
    return File(len(content), sha256, "" if large else gitblobs.oid_of(content))


def _text(value: dict[str, Any], name: str) -> str:
    found = value.get(name) or ""
    if not isinstance(found, str):
        raise Invalid("'%(name)s' must be a text.", name=name)
    return found
