"""The two binary forms in which the Xet protocol sends files, read with suspicion.

A xorb is a row of compressed chunks; a shard says of which chunks of which xorbs files are made. Both are specified at
huggingface.co/docs/xet (version 1.1.0). Numbers are little-endian; a hash is written as four numbers of 64 bits.
"""

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import lz4.frame
import numpy as np

from registry.errors import Invalid

MAX_XORB_BYTES = 80 * 2**20
"""The protocol allows 64 MiB of chunks; what describes them comes on top."""
MAX_SHARD_BYTES = 256 * 2**20
MAX_CHUNK_BYTES = 2**20
"""The protocol's own limit is 128 KiB."""
XORB_END, SHARD_BEGIN = b"XETBLOB", b"HFRepoMetaData"
HAS_VERIFICATION, HAS_SHA256 = 1 << 31, 1 << 30
ENTRY_BYTES = 48
BOOKEND = b"\xff" * 32
RAW, LZ4, GROUPED = 0, 1, 2


class Chunk(NamedTuple):
    """Where a chunk lies in its xorb."""

    start: int
    packed: int
    scheme: int
    size: int
    """Unpacked, in bytes."""


class Term(NamedTuple):
    """A stretch of a file: chunks `first` to `end`, without it, of a xorb."""

    xorb: str
    first: int
    end: int
    size: int


class Described(NamedTuple):
    """A file as a shard describes it."""

    sha256: str
    terms: list[Term]

    @property
    def size(self) -> int:
        """In bytes."""
        return sum(term.size for term in self.terms)


def hash_text(raw: bytes) -> str:
    """Sixty-four hexadecimal digits of a hash of 32 bytes."""
    return "".join(f"{number:016x}" for number in struct.unpack("<4Q", raw))


def read_chunks(xorb: Path) -> list[Chunk]:
    """The chunks of a xorb; reads their headers only.

    Raises:
        Invalid: it is no xorb.
    """
    found, size, position = [], xorb.stat().st_size, 0
    with xorb.open("rb") as file:
        while position < size:
            file.seek(position)
            header = file.read(8)
            if header.startswith(XORB_END[:7]):
                break
            if len(header) < 8 or header[0] != 0:
                raise _broken("xorb")
            packed, unpacked = int.from_bytes(header[1:4], "little"), int.from_bytes(header[5:8], "little")
            if header[4] > GROUPED or not 0 < unpacked <= MAX_CHUNK_BYTES or position + 8 + packed > size:
                raise _broken("xorb")
            found.append(Chunk(position + 8, packed, header[4], unpacked))
            position += 8 + packed
    if not found:
        raise _broken("xorb")
    return found


def unpack(packed: bytes, chunk: Chunk) -> bytes:
    """The bytes of a chunk.

    Raises:
        Invalid: they are not what its header says.
    """
    if chunk.scheme == RAW:
        found = packed
    else:
        try:
            # One byte more than is right shows a chunk that would unpack to more, without unpacking it.
            found = lz4.frame.LZ4FrameDecompressor().decompress(packed, max_length=chunk.size + 1)
        except (RuntimeError, EOFError) as error:
            raise _broken("chunk") from error
    if len(found) != chunk.size:
        raise _broken("chunk")
    return _ungroup(found) if chunk.scheme == GROUPED else found


def _ungroup(grouped: bytes) -> bytes:
    """Put back in order what was sorted by the place of each byte in its four."""
    source = np.frombuffer(grouped, dtype=np.uint8)
    target, position = np.empty_like(source), 0
    for place in range(4):
        number = len(target[place::4])
        target[place::4] = source[position : position + number]
        position += number
    return target.tobytes()


def read_shard(raw: bytes) -> list[Described]:
    """The files that a shard describes.

    Raises:
        Invalid: it is no shard, or a file comes without its sha256.
    """
    if not raw.startswith(SHARD_BEGIN) or len(raw) < ENTRY_BYTES:
        raise _broken("shard")
    try:
        return list(_files(raw))
    except (struct.error, IndexError) as error:
        raise _broken("shard") from error


def _files(raw: bytes) -> Iterator[Described]:
    position = ENTRY_BYTES
    while True:
        entry = raw[position : position + ENTRY_BYTES]
        flags, number = struct.unpack_from("<2I", entry, 32)
        position += ENTRY_BYTES
        if entry[:32] == BOOKEND:
            return
        if not flags & HAS_SHA256:
            raise Invalid("A file of the upload comes without its sha256.")
        end = position + number * ENTRY_BYTES
        if end > len(raw):
            raise _broken("shard")
        terms = [_term(raw, place) for place in range(position, end, ENTRY_BYTES)]
        position = end + (number * ENTRY_BYTES if flags & HAS_VERIFICATION else 0)
        yield Described(hash_text(raw[position : position + 32]), terms)
        position += ENTRY_BYTES


def _term(raw: bytes, place: int) -> Term:
    _flags, size, first, end = struct.unpack_from("<4I", raw, place + 32)
    if first >= end:
        raise _broken("shard")
    return Term(hash_text(raw[place : place + 32]), first, end, size)


def _broken(what: str) -> Invalid:
    return Invalid("The upload holds a %(what)s that cannot be read.", what=what)
