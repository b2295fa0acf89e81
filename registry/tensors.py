"""Safetensors files: what their header says, and whether it may be believed.

The format: 8 bytes little-endian header length, a JSON header, then the tensors' bytes, covering the rest of the file
without a hole (github.com/huggingface/safetensors, "Format").
"""

import math
import struct
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from registry import jsonfiles
from registry.errors import Invalid

MAX_HEADER_BYTES = 8_000_000
"""The format allows a hundred million; 126 layers quantized to 4 bit have half a million, and each byte costs twenty
of memory."""
DTYPE_BYTES = {
    "F64": 8,
    "F32": 4,
    "F16": 2,
    "BF16": 2,
    "F8_E4M3": 1,
    "F8_E5M2": 1,
    "I64": 8,
    "I32": 4,
    "I16": 2,
    "I8": 1,
    "U64": 8,
    "U32": 4,
    "U16": 2,
    "U8": 1,
    "BOOL": 1,
}
MAX_DIMENSIONS = 8
MAX_NAME_CHARS = 200


class Tensor(NamedTuple):
    """One tensor of a file."""

    dtype: str
    """In the format's words, such as `BF16`."""
    shape: tuple[int, ...]
    begin: int
    """First byte in the file."""
    end: int
    """Behind its last byte in the file."""


def read_header(path: Path) -> dict[str, Tensor]:
    """The tensors of a file by name, in the order of their bytes; reads the header only.

    Raises:
        Invalid: the file is truncated, is something else, or its header lies.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        start = file.read(8)
        length = struct.unpack("<Q", start)[0] if len(start) == 8 else -1
        if not 2 <= length <= size - 8:
            raise Invalid(
                "%(file)s is truncated or not a safetensors file: its header does not fit into it.", file=path.name
            )
        if length > MAX_HEADER_BYTES:
            raise Invalid(
                "%(file)s has a header of %(size)s bytes; at most %(limit)s are accepted.",
                file=path.name,
                size=f"{length:,}",
                limit=f"{MAX_HEADER_BYTES:,}",
            )
        raw = file.read(length)
    if not raw.startswith(b"{"):
        raise Invalid("%(file)s is not a safetensors file: its header is no JSON object.", file=path.name)
    header = jsonfiles.parse(raw, f"The header of {path.name}")
    _check_metadata(path.name, header.pop("__metadata__", {}))
    found = {name: _tensor(path.name, name, entry, 8 + length) for name, entry in header.items()}
    ordered = dict(sorted(found.items(), key=lambda item: (item[1].begin, item[1].end)))
    _check_cover(path.name, ordered, 8 + length, size)
    return ordered


def _check_metadata(file: str, metadata: Any) -> None:
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise Invalid("%(file)s has a header that lies: its metadata is not text by key.", file=file)


def _tensor(file: str, name: str, entry: Any, start: int) -> Tensor:
    if len(name) > MAX_NAME_CHARS:
        raise Invalid("%(file)s: the name of the tensor %(name)s… is too long.", file=file, name=name[:60])
    if not isinstance(entry, Mapping) or set(entry) != {"dtype", "shape", "data_offsets"}:
        raise Invalid(
            "%(file)s has a header that cannot be read: %(name)s has not exactly dtype, shape and data_offsets.",
            file=file,
            name=name[:80],
        )
    dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(dtype, str) or dtype not in DTYPE_BYTES:
        raise Invalid(
            "%(file)s: the number format %(dtype)s of %(name)s is unknown.",
            file=file,
            dtype=str(dtype)[:20],
            name=name[:80],
        )
    if not _are_counts(shape) or len(shape) > MAX_DIMENSIONS:
        raise Invalid(
            "%(file)s has a header that lies: the shape of %(name)s is not a shape.", file=file, name=name[:80]
        )
    if not _are_counts(offsets) or len(offsets) != 2:
        raise Invalid(
            "%(file)s has a header that lies: the offsets of %(name)s are not two places in the file.",
            file=file,
            name=name[:80],
        )
    begin, end = offsets
    if end - begin != math.prod(shape) * DTYPE_BYTES[dtype]:
        raise Invalid(
            "%(file)s has a header that lies: %(name)s does not have the size of its shape.", file=file, name=name[:80]
        )
    return Tensor(dtype, tuple(shape), start + begin, start + end)


def _are_counts(values: Any) -> bool:
    return isinstance(values, list) and all(type(value) is int and 0 <= value < 2**63 for value in values)


def _check_cover(file: str, ordered: Mapping[str, Tensor], start: int, size: int) -> None:
    position = start
    for tensor in ordered.values():
        if tensor.begin != position:
            raise Invalid("%(file)s has a header that lies: its tensors overlap or leave holes.", file=file)
        position = tensor.end
    if position != size:
        raise Invalid(
            "%(file)s is truncated or has a header that lies: "
            "the tensors need %(position)s bytes, the file has %(found)s.",
            file=file,
            position=position - start,
            found=size - start,
        )


def weight_files(folder: Path) -> list[Path]:
    """The safetensors files of a checkpoint, in order; they lie at the top of its folder."""
    return sorted(folder.glob("*.safetensors"))


def read_headers(folder: Path) -> Iterator[tuple[Path, dict[str, Tensor]]]:
    """Every weight file of a folder with its tensors.

    Raises:
        Invalid: as `read_header`, or two files hold one tensor.
    """
    owner: dict[str, str] = {}
    for path in weight_files(folder):
        header = read_header(path)
        for name in header:
            if name in owner:
                raise Invalid(
                    "The tensor %(name)s is in %(first)s and in %(second)s.",
                    name=name[:80],
                    first=owner[name],
                    second=path.name,
                )
            owner[name] = path.name
        yield path, header
