"""Small files are there whole or not at all, and say so when they are something else."""

from pathlib import Path

import pyarrow as pa
import pytest

from registry import parquet
from registry.errors import Invalid, NotFound

SCHEMA = pa.schema(
    [pa.field("position", pa.int32(), nullable=False), pa.field("score", pa.float64())], metadata={b"format": b"test-1"}
)


def test_a_column_that_was_left_out_is_empty(tmp_path: Path) -> None:
    table = pa.table({"position": [1, 2]}, schema=pa.schema([SCHEMA.field(0)], metadata=SCHEMA.metadata))
    path = parquet.write(tmp_path / "some.parquet", parquet.encode(table))
    assert parquet.load(path, SCHEMA).to_pydict() == {"position": [1, 2], "score": [None, None]}


def test_other_columns_another_format_and_no_file_are_told(tmp_path: Path) -> None:
    path = tmp_path / "some.parquet"
    with pytest.raises(NotFound):
        parquet.load(path, SCHEMA)
    for other in (SCHEMA.with_metadata({b"format": b"test-2"}), pa.schema([SCHEMA.field(1)], metadata=SCHEMA.metadata)):
        parquet.write(path, parquet.encode(other.empty_table()))
        with pytest.raises(Invalid):
            parquet.load(path, SCHEMA)


def test_a_writer_that_dies_leaves_what_was_there(tmp_path: Path) -> None:
    path = parquet.write(tmp_path / "some.parquet", b"before")
    with pytest.raises(ZeroDivisionError), parquet.whole_file(path) as file:
        _ = file.write(b"half") / 0
    assert path.read_bytes() == b"before"
    assert list(tmp_path.iterdir()) == [path]
