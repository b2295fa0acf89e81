"""Small immutable Parquet files: lean, deterministic, there whole or not at all.

Sizes and what was left out: docs/decisions/0011-samples.md.
"""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from registry.errors import Invalid, NotFound

# Half of a small file would else be statistics, dictionaries and a second copy of the schema.
_LEAN: dict[str, Any] = {
    "compression": "zstd",
    "write_statistics": False,
    "store_schema": False,
    "use_dictionary": False,
}
_ENCODINGS = {
    "position": "DELTA_BINARY_PACKED",
    "target": "DELTA_BINARY_PACKED",
    "sum_logprob.list.element": "BYTE_STREAM_SPLIT",
    "num_tokens.list.element": "DELTA_BINARY_PACKED",
    "num_bytes.list.element": "DELTA_BINARY_PACKED",
}


def encode(table: pa.Table) -> bytes:
    """The bytes of a file with these columns, the same for the same columns; the schema's metadata goes along."""
    sink = pa.BufferOutputStream()
    encoding = {name: kind for name, kind in _ENCODINGS.items() if name.split(".")[0] in table.column_names}
    with pq.ParquetWriter(sink, table.schema, column_encoding=encoding, **_LEAN) as writer:
        writer.write_table(table)
        writer.add_key_value_metadata(table.schema.metadata)  # goes with the copy of the schema, which is left out
    return bytes(sink.getvalue().to_pybytes())


@contextmanager
def whole_file(path: Path) -> Iterator[BinaryIO]:
    """A file to write that will be there whole or not at all, also after a power cut."""
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=".", suffix=".tmp")
    try:
        with os.fdopen(descriptor, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)  # the new name survives a power cut too
    finally:
        os.close(folder)


def write(path: Path, content: bytes) -> Path:
    """Write these bytes, whole or not at all."""
    with whole_file(path) as file:
        file.write(content)
    return path


def load(path: Path, schema: pa.Schema) -> pa.Table:
    """A file's columns as `schema` has them; one that may be empty and that the file leaves out is empty.

    Raises:
        NotFound: there is no such file.
        Invalid: it is no file of the format that the schema's metadata name.
    """
    try:
        with pq.ParquetFile(path) as file:
            table = file.read(columns=schema.names, use_threads=False)
    except FileNotFoundError:
        raise NotFound("There is no sample file %(file)s.", file=path.name) from None
    except (pa.ArrowException, OSError) as error:
        raise _unreadable(path, error) from error
    if (table.schema.metadata or {}).get(b"format") != schema.metadata[b"format"]:
        raise _unreadable(path, "another format")
    for field in schema:
        if field.nullable and field.name not in table.column_names:
            table = table.append_column(field, pa.nulls(table.num_rows, field.type))
    try:
        return table.select(schema.names).cast(schema)
    except (pa.ArrowException, KeyError, ValueError) as error:
        raise _unreadable(path, error) from error


def _unreadable(path: Path, error: object) -> Invalid:
    return Invalid("%(file)s is no sample file: %(error)s", file=path.name, error=error)
