"""Files that come by the Xet protocol, which is how `huggingface_hub` sends large ones unless it is told otherwise.

A client sends xorbs, then a shard that says which files are made of their chunks. Each file is put together once,
checked against its sha256, and kept as a blob like any other. Of a xorb only a list stays that says where in which blob
its chunks are: clients remember for weeks what they have sent, and name it again instead of sending it.
"""

import json
import os
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from registry import blobs, hubfiles, jsonfiles, xetformat
from registry.errors import Invalid
from registry.xetformat import Chunk, Described

MAX_INDEX_BYTES = 64 * 2**20


class _Xorb:
    """A xorb that somebody has sent: its bytes, or where its chunks are kept since."""

    def __init__(self, user_id: int, name: str) -> None:
        self.raw, self._index = raw_path(user_id, name), raw_path(user_id, name).with_suffix(".json")
        self.chunks: list[Chunk] = xetformat.read_chunks(self.raw) if self.raw.exists() else []
        kept: dict[str, Any] = jsonfiles.read(self._index, max_bytes=MAX_INDEX_BYTES) if self._index.exists() else {}
        self.sizes: list[int] = [chunk.size for chunk in self.chunks] or kept.get("sizes", [])
        self.places: list[list[Any] | None] = kept.get("places") or [None] * len(self.sizes)
        if not self.sizes:
            raise _gone()

    def read(self, first: int, end: int) -> Iterator[bytes]:
        """The bytes of some chunks.

        Raises:
            Invalid: it has no such chunks, or they are not kept any more.
        """
        if end > len(self.sizes):
            raise Invalid("The upload refers to chunks that its xorb does not have.")
        if not self.chunks:
            yield from (self._kept(number) for number in range(first, end))
            return
        with self.raw.open("rb") as file:
            for chunk in self.chunks[first:end]:
                file.seek(chunk.start)
                yield xetformat.unpack(file.read(chunk.packed), chunk)

    def _kept(self, number: int) -> bytes:
        sha256, offset = self.places[number] or ("", 0)
        if not sha256 or not blobs.has(sha256):
            raise _gone()
        with blobs.path(sha256).open("rb") as file:
            file.seek(offset)
            return file.read(self.sizes[number])

    def note(self, number: int, sha256: str, offset: int) -> None:
        """A chunk is kept in a blob."""
        if number < len(self.places):
            self.places[number] = [sha256, offset]

    def save(self) -> None:
        """Write down where the chunks are; the bytes go once all of them are kept elsewhere."""
        temporary = self._index.with_name(f".{uuid.uuid4().hex}")
        temporary.write_text(json.dumps({"sizes": self.sizes, "places": self.places}))
        os.replace(temporary, self._index)
        if all(self.places):
            self.raw.unlink(missing_ok=True)


def raw_path(user_id: int, name: str) -> Path:
    """Where a xorb lies that somebody sent; nobody reads another's."""
    own = hubfiles.folder("xet") / str(user_id)
    own.mkdir(exist_ok=True)
    return own / f"{name}.xorb"


def keep_xorb(user_id: int, name: str, received: Path) -> bool:
    """Keep a xorb that was received, which moves away; False where it was here.

    Raises:
        Invalid: it is none.
    """
    xetformat.read_chunks(received)
    destination = raw_path(user_id, name)
    was_here = destination.exists()
    os.replace(received, destination)
    return not was_here


def drop_dead_lists() -> int:
    """Delete lists of xorbs, older than a day, of which no chunk is kept any more; returns how many."""
    before, dropped = time.time() - hubfiles.STALE_SECONDS, 0
    for index in hubfiles.folder("xet").glob("*/*.json"):
        if index.stat().st_mtime > before or index.with_suffix(".xorb").exists():
            continue
        places = jsonfiles.read(index, max_bytes=MAX_INDEX_BYTES).get("places") or []
        if not any(blobs.path(sha256).exists() for sha256 in {place[0] for place in places if place}):
            index.unlink(missing_ok=True)
            dropped += 1
    return dropped


def register(user_id: int, files: list[Described]) -> None:
    """Put together and keep the files that a shard describes.

    Raises:
        Invalid: a chunk is missing or broken, or a file does not have its sha256.
        NoRoom: the disk is full.
    """
    xorbs = {term.xorb: _Xorb(user_id, term.xorb) for one in files for term in one.terms}
    for one in files:
        hubfiles.receive(_bytes_of(one, xorbs), one.size, one.sha256)
        offset = 0
        for term in one.terms:
            for number in range(term.first, term.end):
                xorbs[term.xorb].note(number, one.sha256, offset)
                offset += xorbs[term.xorb].sizes[number]
    for xorb in xorbs.values():
        xorb.save()


def _bytes_of(one: Described, xorbs: dict[str, _Xorb]) -> Iterator[bytes]:
    for term in one.terms:
        yield from xorbs[term.xorb].read(term.first, term.end)


def _gone() -> Invalid:
    return Invalid(
        "The upload refers to what was sent earlier and is not kept here any more. Delete the client's cache, "
        "the folder xet in $HF_HOME or ~/.cache/huggingface, and push again."
    )
