"""One pass over a file's bytes: their sha256, and whether the tensors in them hold finite numbers only.

Each piece of the file is hashed and looked at while it is in the processor's cache, so reading, which is what a disk
makes slow, is done once and memory stays flat. Both parts release Python's lock: several files are read side by side.
"""

import hashlib
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from registry.tensors import Tensor

CHUNK_BYTES = 2**18
"""Larger pieces leave the second-level cache between hashing and looking."""
CARRY_BYTES = 8
"""Room before a piece for the first half of a number that began in the piece before; the widest number has 8 bytes."""
MAX_THREADS = 4


class Format(NamedTuple):
    """How the bits of a number format tell NaN and infinity.

    Both have an exponent of ones. Read as a signed integer, the largest of the positive numbers is below `positive`
    if all of them are finite; read as an unsigned one, the largest of the negative numbers is below `negative`.
    So two maxima do, without a copy, a mask or a float.
    """

    signed: type[np.signedinteger]
    unsigned: type[np.unsignedinteger]
    positive: int
    negative: int


FORMATS: Mapping[str, Format] = {
    "F64": Format(np.int64, np.uint64, 0x7FF0000000000000, 0xFFF0000000000000),
    "F32": Format(np.int32, np.uint32, 0x7F800000, 0xFF800000),
    "BF16": Format(np.int16, np.uint16, 0x7F80, 0xFF80),
    "F16": Format(np.int16, np.uint16, 0x7C00, 0xFC00),
    "F8_E5M2": Format(np.int8, np.uint8, 0x7C, 0xFC),
    "F8_E4M3": Format(np.int8, np.uint8, 0x7F, 0xFF),  # has no infinity, and one NaN of each sign
}
"""Of the number formats that can hold NaN; integers cannot."""


class Found(NamedTuple):
    """What a pass over a file tells."""

    sha256: str
    not_finite: str
    """The first tensor that holds NaN or infinity; empty if none does."""


def read_through(path: Path, tensors: Mapping[str, Tensor] | None = None) -> Found:
    """Hash a file and look at the tensors in it.

    Args:
        path: any file.
        tensors: by name, in the order of their bytes; none: there is nothing to look at.

    Raises:
        OSError: it cannot be read.
    """
    digest = hashlib.sha256()
    watched = _Watch(tensors or {})
    buffer = bytearray(CARRY_BYTES + CHUNK_BYTES)
    view = memoryview(buffer)
    position = 0
    with path.open("rb", buffering=0) as file:
        while count := file.readinto(view[CARRY_BYTES:]):
            digest.update(view[CARRY_BYTES : CARRY_BYTES + count])
            watched.look(buffer, position, position + count)
            buffer[:CARRY_BYTES] = buffer[count : count + CARRY_BYTES]
            position += count
    return Found(digest.hexdigest(), watched.not_finite)


def read_all(files: Sequence[tuple[Path, Mapping[str, Tensor]]], each: Callable[[Path, Found], None]) -> None:
    """Read several files, some side by side, and give what each tells to `each`, in their order.

    Raises:
        OSError: one cannot be read.
    """
    with ThreadPoolExecutor(min(MAX_THREADS, os.cpu_count() or 1), thread_name_prefix="scan") as pool:
        found = [pool.submit(read_through, path, tensors) for path, tensors in files]
        try:
            for (path, _), one in zip(files, found, strict=True):
                each(path, one.result())
        finally:
            for one in found:
                one.cancel()


class _Watch:
    """Looks at the tensors of a file, piece by piece."""

    def __init__(self, tensors: Mapping[str, Tensor]) -> None:
        self.not_finite = ""
        self._waiting = [(name, tensors[name]) for name in reversed(list(tensors)) if _is_watched(tensors[name])]

    def look(self, buffer: bytearray, begin: int, end: int) -> None:
        """Look at the bytes from `begin` to `end` of the file, which the buffer holds after `CARRY_BYTES` before."""
        while self._waiting and not self.not_finite:
            name, tensor = self._waiting[-1]
            if tensor.begin >= end:
                return
            if not _is_finite(buffer, begin, end, tensor):
                self.not_finite = name
            if tensor.end > end:
                return
            self._waiting.pop()


def _is_watched(tensor: Tensor) -> bool:
    return tensor.dtype in FORMATS and tensor.end > tensor.begin


def _is_finite(buffer: bytearray, begin: int, end: int, tensor: Tensor) -> bool:
    """Of the numbers that end in this piece; a number that lies across its end is looked at with the next."""
    form = FORMATS[tensor.dtype]
    width = form.unsigned().itemsize
    first = tensor.begin if tensor.begin >= begin else begin - (begin - tensor.begin) % width
    count = (min(end, tensor.end) - first) // width
    if count <= 0:
        return True
    offset = CARRY_BYTES + first - begin
    signed: NDArray[np.signedinteger] = np.frombuffer(buffer, form.signed, count, offset)
    unsigned: NDArray[np.unsignedinteger] = np.frombuffer(buffer, form.unsigned, count, offset)
    return int(signed.max()) < form.positive and int(unsigned.max()) < form.negative


def sha256_of(paths: Iterable[Path]) -> dict[Path, str]:
    """Hex sha256 of files, some read side by side."""
    found: dict[Path, str] = {}
    read_all([(path, {}) for path in paths], lambda path, one: found.__setitem__(path, one.sha256))
    return found
