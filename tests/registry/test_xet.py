"""Files that come in chunks: put together, checked, kept once, and named again instead of sent."""

import hashlib
import os
import struct
import uuid
from pathlib import Path

import lz4.frame
import numpy as np
import pytest

from registry import blobs, hubfiles, xet, xetformat
from registry.errors import Invalid

NAME, OTHER = "1" * 64, "2" * 64
DRAW = np.random.default_rng(0)
ANNA = 7


def raw_hash(text: str) -> bytes:
    """The bytes of a hash that is written as text."""
    return struct.pack("<4Q", *(int(text[start : start + 16], 16) for start in range(0, 64, 16)))


def packed(content: bytes, scheme: int) -> bytes:
    """One chunk as a xorb holds it."""
    grouped = b"".join(content[place::4] for place in range(4)) if scheme == xetformat.GROUPED else content
    data = grouped if scheme == xetformat.RAW else lz4.frame.compress(grouped)
    return b"\0" + len(data).to_bytes(3, "little") + bytes([scheme]) + len(content).to_bytes(3, "little") + data


def send(chunks: list[bytes], name: str = NAME, scheme: int = xetformat.LZ4, end: bytes = b"XETBLOB\1...") -> bool:
    """Keeps a xorb of these chunks."""
    path = hubfiles.folder("incoming") / uuid.uuid4().hex
    path.write_bytes(b"".join(packed(chunk, scheme) for chunk in chunks) + end)
    return xet.keep_xorb(ANNA, name, path)


def shard(files: dict[str, list[tuple[str, int, int, int]]], *, flags: int = 0xC0000000, begin: bytes = b"") -> bytes:
    """Files by their sha256, each of terms (xorb, first, end, bytes)."""
    body = (begin or b"HFRepoMetaData").ljust(32, b"\0") + struct.pack("<2Q", 2, 0)
    for sha256, terms in files.items():
        body += b"f" * 32 + struct.pack("<2I8x", flags, len(terms))
        for name, first, end, size in terms:
            body += raw_hash(name) + struct.pack("<4I", 0, size, first, end)
        body += b"v" * 48 * len(terms) if flags & xetformat.HAS_VERIFICATION else b""
        body += raw_hash(sha256) + b"\0" * 16 if flags & xetformat.HAS_SHA256 else b""
    return body + b"\xff" * 32 + b"\0" * 16


def register(content: bytes, terms: list[tuple[str, int, int, int]], user_id: int = ANNA) -> str:
    """Has a file put together; returns its sha256."""
    sha256 = hashlib.sha256(content).hexdigest()
    xet.register(user_id, xetformat.read_shard(shard({sha256: terms})))
    return sha256


@pytest.mark.parametrize("scheme", [xetformat.RAW, xetformat.LZ4, xetformat.GROUPED])
@pytest.mark.parametrize("size", [1, 2, 3, 4, 5, 1000, 65_537])
def test_a_file_is_put_together_from_its_chunks(grow_home: Path, scheme: int, size: int) -> None:
    chunks = [DRAW.bytes(size), DRAW.bytes(10), DRAW.bytes(size)]
    assert send(chunks, scheme=scheme)
    sha256 = register(b"".join(chunks), [(NAME, 0, 3, 2 * size + 10)])
    assert blobs.path(sha256).read_bytes() == b"".join(chunks)
    assert not xet.raw_path(ANNA, NAME).exists()  # its bytes are in the blob


def test_what_was_sent_once_is_named_again(grow_home: Path) -> None:
    chunks = [DRAW.bytes(100), DRAW.bytes(50)]
    send(chunks)
    register(b"".join(chunks), [(NAME, 0, 2, 150)])
    new = DRAW.bytes(20)
    send([new], OTHER)
    content = chunks[1] + new + chunks[0]
    sha256 = register(content, [(NAME, 1, 2, 50), (OTHER, 0, 1, 20), (NAME, 0, 1, 100)])
    assert blobs.path(sha256).read_bytes() == content


def test_chunks_of_a_deleted_file_are_asked_for_with_the_way_out(grow_home: Path) -> None:
    content = DRAW.bytes(100)
    send([content])
    blobs.discard(register(content, [(NAME, 0, 1, 100)]))
    with pytest.raises(Invalid, match="Delete the client's cache"):
        register(content, [(NAME, 0, 1, 100)])


def test_a_list_goes_a_day_after_the_last_blob_of_its_chunks(grow_home: Path) -> None:
    content = DRAW.bytes(100)
    send([content])
    sha256 = register(content, [(NAME, 0, 1, 100)])
    index = xet.raw_path(ANNA, NAME).with_suffix(".json")
    os.utime(index, (0, 0))
    assert xet.drop_dead_lists() == 0
    blobs.discard(sha256)
    assert xet.drop_dead_lists() == 1
    assert not index.exists()


def test_nobody_reads_what_another_sent(grow_home: Path) -> None:
    content = DRAW.bytes(100)
    send([content])
    with pytest.raises(Invalid, match="not kept here"):
        register(content, [(NAME, 0, 1, 100)], user_id=8)


@pytest.mark.parametrize(
    ("terms", "said"),
    [
        ([(NAME, 0, 1, 99)], "More bytes came"),
        ([(NAME, 0, 1, 101)], "100 bytes came"),
        ([(NAME, 0, 2, 100)], "does not have"),
        ([(NAME, 5, 6, 100)], "does not have"),
        ([(OTHER, 0, 1, 100)], "not kept here"),
    ],
)
def test_a_description_that_lies(grow_home: Path, terms: list[tuple[str, int, int, int]], said: str) -> None:
    content = DRAW.bytes(100)
    send([content])
    with pytest.raises(Invalid, match=said):
        register(content, terms)
    with pytest.raises(Invalid, match="sha256"):
        register(DRAW.bytes(100), [(NAME, 0, 1, 100)])
    assert list(hubfiles.folder("incoming").iterdir()) == []


@pytest.mark.parametrize(
    "xorb",
    [
        b"",
        b"XETBLOB\1",
        b"\1" + packed(b"x", 0)[1:],  # another version
        packed(b"x", 0)[:-1],  # cut off
        packed(b"x", 0)[:4] + b"\3" + packed(b"x", 0)[5:],  # an unknown way of packing
        packed(b"x" * 10, 0)[:5] + b"\xff\xff\xff" + b"x" * 10,  # 16 MiB of chunk
        packed(b"x", 0) + b"\0\0",
    ],
)
def test_what_is_no_xorb_is_not_kept(grow_home: Path, xorb: bytes) -> None:
    path = hubfiles.folder("incoming") / "x"
    path.write_bytes(xorb)
    with pytest.raises(Invalid, match="xorb that cannot be read"):
        xet.keep_xorb(ANNA, NAME, path)
    assert not xet.raw_path(ANNA, NAME).exists()


@pytest.mark.parametrize("data", [b"no lz4", lz4.frame.compress(b"x" * 1000), lz4.frame.compress(b"x")])
def test_a_chunk_that_unpacks_to_something_else(grow_home: Path, data: bytes) -> None:
    path = hubfiles.folder("incoming") / "x"
    path.write_bytes(b"\0" + len(data).to_bytes(3, "little") + b"\1" + (100).to_bytes(3, "little") + data)
    xet.keep_xorb(ANNA, NAME, path)
    with pytest.raises(Invalid, match="chunk that cannot be read"):
        register(b"x" * 100, [(NAME, 0, 1, 100)])


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"x" * 200,
        shard({}, begin=b"Something else"),
        shard({NAME: [(OTHER, 0, 1, 1)]})[:100],
        shard({NAME: [(OTHER, 1, 1, 1)]}),
        shard({NAME: [(OTHER, 0, 1, 1)]}).replace(struct.pack("<2I", 0xC0000000, 1), b"\xff" * 8),
    ],
)
def test_what_is_no_shard(raw: bytes) -> None:
    with pytest.raises(Invalid, match="shard that cannot be read"):
        xetformat.read_shard(raw)


def test_a_file_without_its_sha256_is_refused() -> None:
    with pytest.raises(Invalid, match="without its sha256"):
        xetformat.read_shard(shard({NAME: [(OTHER, 0, 1, 1)]}, flags=xetformat.HAS_VERIFICATION))
