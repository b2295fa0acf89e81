"""Sample files: every answer of an evaluation, as immutable columns in one Parquet file a slice.

The columns keep what a metric needs, so that every number can be computed again without a GPU. What
all evaluations of a task share, its prompts and choices, lies in one items file. The same content
always gives the same bytes and the same name. Format and sizes: docs/decisions/0011-samples.md.
"""

import hashlib
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from analysis.answers import Answers
from analysis.compare import Difference, paired_difference, paired_ratio_difference
from registry import parquet
from registry.answers import COLUMNS, Floats, columns_of, flatten, metric_values, right_bytes
from registry.errors import Invalid

FORMAT, ITEMS_FORMAT = b"grow-samples-2", b"grow-items-1"

SCHEMA = pa.schema(
    [
        pa.field("item", pa.uint64(), nullable=False),
        pa.field("position", pa.int32(), nullable=False),
        pa.field("target", pa.int32()),
        pa.field("sum_logprob", pa.list_(pa.float32()), nullable=False),
        pa.field("num_tokens", pa.list_(pa.int32()), nullable=False),
        pa.field("num_bytes", pa.list_(pa.int32()), nullable=False),
        pa.field("is_greedy", pa.list_(pa.bool_()), nullable=False),
        pa.field("score", pa.float64()),
        pa.field("text", pa.string()),
        pa.field("finish_reason", pa.string()),
    ],
    metadata={b"format": FORMAT},
)

ITEMS_SCHEMA = pa.schema(
    [
        pa.field("item", pa.uint64(), nullable=False),
        pa.field("position", pa.int32(), nullable=False),
        pa.field("group", pa.string(), nullable=False),
        pa.field("prompt", pa.string(), nullable=False),
        pa.field("choices", pa.list_(pa.string()), nullable=False),
        pa.field("target", pa.int32()),
        pa.field("answer", pa.string(), nullable=False),
    ],
    metadata={b"format": ITEMS_FORMAT},
)

_SAFE_NAME = re.compile(r"[\w][\w.-]{0,199}")


class Sample(NamedTuple):
    """One item answered in one evaluation.

    A choice item has one entry a choice in the lists and the right choice in `target`; a text whose
    likelihood is measured has one entry and no target; a free answer has `text`, no log-probability,
    and its length as the one entry of `num_tokens` and `num_bytes`.
    """

    item: str
    """16 hexadecimal digits, a hash of the item's content: the same for every checkpoint."""
    position: int
    """Its place in the task, from 0."""
    target: int | None
    sum_logprob: list[float]
    """Natural logarithm, summed over the tokens; kept in 32 bits."""
    num_tokens: list[int]
    num_bytes: list[int]
    is_greedy: list[bool]
    """Whether the model would have written this choice by itself."""
    score: float | None = None
    """The headline metric of this item where the columns above do not give it, such as exact_match."""
    text: str | None = None
    finish_reason: str | None = None


class Item(NamedTuple):
    """One question of a task, the same for every checkpoint."""

    item: str
    position: int
    group: str
    """What clusters items, a subject or a passage; empty if nothing does."""
    prompt: str
    choices: list[str]
    target: int | None
    answer: str = ""
    """The right text of a free answer."""


class Paired(NamedTuple):
    """A metric of the items that two evaluations share, in the same order."""

    items: list[int]
    """Their hashes."""
    before: Floats
    after: Floats
    num_bytes: Floats
    """What bits per byte are weighted with; ones for other metrics."""
    groups: list[str] | None

    def difference(self, metric: str) -> Difference:
        """After minus before."""
        if metric != "bits_per_byte":
            return paired_difference(self.before, self.after, self.groups)
        sizes = self.num_bytes
        return paired_ratio_difference(self.before * sizes, self.after * sizes, sizes, self.groups)


def write_slice(folder: Path, start: int, samples: Sequence[Sample]) -> Path:
    """Write the samples from position `start` on as `<start>-<start of the digest>.parquet`.

    The digest is part of the name, so a file is never replaced by another content: a worker whose
    lease ran out cannot touch what the recorded evaluation points at.
    """
    rows = [sample._replace(text=_encodable(sample.text)) for sample in samples]
    columns = _columns(rows, Sample._fields)
    # A column without a value costs more in the footer than an item costs; readers put it back.
    schema = pa.schema(
        [field for field in SCHEMA if not field.nullable or any(value is not None for value in columns[field.name])],
        metadata=SCHEMA.metadata,
    )
    content = parquet.encode(pa.table(columns, schema=schema))
    return parquet.write(folder / f"{start:06d}-{hashlib.sha256(content).hexdigest()[:12]}.parquet", content)


def read_slice(path: Path) -> list[Sample]:
    """The samples of one file, in the order of the items.

    Raises:
        NotFound: there is no such file.
        Invalid: it is no sample file.
    """
    return from_table(read_columns(path).sort_by("position"))


def from_table(table: pa.Table) -> list[Sample]:
    """The rows of a table with the columns of `SCHEMA`."""
    return [Sample(**{**row, "item": f"{row['item']:016x}"}) for row in table.to_pylist()]


def read_columns(path: Path, columns: Sequence[str] = Sample._fields) -> pa.Table:
    """Columns of one file as `SCHEMA` has them; what every item leaves empty is filled in.

    Raises:
        NotFound, Invalid: as `read_slice` does.
    """
    return parquet.load(path, _schema(columns))


def read(paths: Sequence[Path]) -> list[Sample]:
    """All samples of an evaluation from its slices, whatever their order, by position.

    Raises:
        NotFound: a file is not there.
        Invalid: a file is no sample file, or a position from 0 on is missing or there twice.
    """
    return from_table(_whole(paths, SCHEMA.names))


def answers(paths: Sequence[Path], items_path: Path | None = None) -> Answers:
    """What `analysis.metrics` works on, by position, of the items that have log-probabilities.

    The lengths in characters, which `acc_norm` needs, are 0 without the items file.

    Raises:
        NotFound, Invalid: as `read` and `read_items` do.
    """
    return flatten(_whole(paths, COLUMNS), read_items(items_path) if items_path else None).answers


def write_items(folder: Path, task: str, items: Sequence[Item]) -> Path:
    """Write `<task>-<digest of the items>.parquet`; a file that is there already is left alone.

    Raises:
        Invalid: the task's name cannot be part of a file name.
    """
    if not _SAFE_NAME.fullmatch(task):
        raise Invalid("The name of a task has letters, digits, dots, hyphens and underscores only.")
    rows = [_encodable_item(item) for item in items]
    path = folder / f"{task}-{items_digest(rows)}.parquet"
    if path.is_file():
        return path
    return parquet.write(path, parquet.encode(pa.table(_columns(rows, Item._fields), schema=ITEMS_SCHEMA)))


def items_digest(items: Sequence[Item]) -> str:
    """16 hexadecimal digits of the content: prompts, choices, targets, groups and order."""
    return hashlib.sha256(json.dumps(items, ensure_ascii=True).encode()).hexdigest()[:16]


def read_items(path: Path) -> list[Item]:
    """The items of an items file, by position.

    Raises:
        NotFound: there is no such file.
        Invalid: it is no items file.
    """
    rows = parquet.load(path, ITEMS_SCHEMA).to_pylist()
    return sorted((Item(**{**row, "item": f"{row['item']:016x}"}) for row in rows), key=lambda one: one.position)


def compare(
    before: Sequence[Path], after: Sequence[Path], metric: str, items_path: Path | None = None
) -> Difference | None:
    """After minus before over the items both have, in a task's headline metric; None if they share none.

    This is the paired comparison; it sees smaller changes than two error bars side by side do. The
    items file, where it is given, adds what clusters items and the choices' characters for `acc_norm`.

    Raises:
        NotFound, Invalid: as `read` and `read_items` do, and where the answers do not have the metric.
    """
    shared = pair(before, after, metric, items_path)
    return None if shared is None else shared.difference(metric)


def pair(before: Sequence[Path], after: Sequence[Path], metric: str, items_path: Path | None = None) -> Paired | None:
    """What `compare` compares, item by item; None if they share none.

    Raises:
        NotFound, Invalid: as `compare` does.
    """
    # Prompts and choices are most of an items file, and only characters need them.
    items = read_items(items_path) if items_path is not None and metric == "acc_norm" else None
    one, two = (_whole(paths, columns_of(metric)) for paths in (before, after))
    _, rows, others = np.intersect1d(one["item"].to_numpy(), two["item"].to_numpy(), return_indices=True)
    one, two = one.take(rows), two.take(others)
    first, second = (metric_values(table, metric, items, headline=metric) for table in (one, two))
    known = ~np.isnan(first) & ~np.isnan(second)
    if not known.any():
        return None
    kept = one.filter(pa.array(known))
    sizes = right_bytes(kept) if metric == "bits_per_byte" else np.ones(kept.num_rows)
    hashes = kept["item"].to_pylist()
    return Paired(hashes, first[known], second[known], sizes, _groups(hashes, items_path))


def _whole(paths: Sequence[Path], names: Sequence[str]) -> pa.Table:
    """Columns of all slices by position, of which none is missing or there twice."""
    parts = [parquet.load(path, _schema(names)) for path in paths]
    table = pa.concat_tables([_schema(names).empty_table(), *parts]).sort_by("position")
    is_off = table["position"].to_numpy() != np.arange(table.num_rows)
    if is_off.any():
        place = int(is_off.argmax())
        raise Invalid("The answers to item %(position)s are missing or there twice.", position=place)
    return table


def _schema(names: Sequence[str]) -> pa.Schema:
    return pa.schema([SCHEMA.field(name) for name in names], metadata=SCHEMA.metadata)


def _groups(hashes: Sequence[int], items_path: Path | None) -> list[str] | None:
    if items_path is None:
        return None
    schema = pa.schema([ITEMS_SCHEMA.field(name) for name in ("item", "group")], metadata=ITEMS_SCHEMA.metadata)
    table = parquet.load(items_path, schema)
    names = dict(zip(table["item"].to_pylist(), table["group"].to_pylist(), strict=True))
    groups = [names.get(item, "") for item in hashes]
    return groups if any(groups) else None


def _columns(rows: Sequence[Sample] | Sequence[Item], fields: Sequence[str]) -> dict[str, list[Any]]:
    columns = {field: [getattr(row, field) for row in rows] for field in fields}
    columns["item"] = [int(item, 16) for item in columns["item"]]
    return columns


def _encodable(text: str | None) -> str | None:
    # A lone surrogate, which JSON can carry, has no UTF-8.
    return None if text is None else text.encode(errors="replace").decode()


def _encodable_item(item: Item) -> Item:
    return item._replace(
        group=item.group.encode(errors="replace").decode(),
        prompt=item.prompt.encode(errors="replace").decode(),
        choices=[choice.encode(errors="replace").decode() for choice in item.choices],
        answer=item.answer.encode(errors="replace").decode(),
    )
