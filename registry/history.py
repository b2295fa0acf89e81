"""How the answers to single items changed through training, over all checkpoints of a run, for one task.

The slice files are the truth, and lie by checkpoint. So that one item can be read without opening
thousands of them, `compact` keeps a copy that lies by item: a few files that say which evaluations
they cover. What no copy covers yet is read from its slices, so readers always see everything.
Format, measurements and what was left out: docs/decisions/0011-samples.md.
"""

import fcntl
import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from collections.abc import Set as AbstractSet
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from registry import parquet, samples
from registry.answers import COLUMNS, Floats, columns_of, metric_values
from registry.errors import Invalid
from registry.samples import SCHEMA, Item, Sample

FORMAT = "grow-by-item-1"
MIN_BATCH, MAX_BATCH = 16, 64
"""Evaluations that a first compaction takes at once; fewer than the first wait in their slices."""
ROWS_AT_ONCE = 500_000
"""Rows in memory while files are merged."""
ROW_GROUP = 8192
"""Rows that reading one item decodes at least."""
ATTEMPTS = 5

Ints = npt.NDArray[np.int64]


class Source(NamedTuple):
    """A finished evaluation: one checkpoint of the run on the task."""

    evaluation_id: int
    checkpoint_id: int
    step: int
    paths: Sequence[Path]
    """Its slices."""


class Answered(NamedTuple):
    """One item as one checkpoint answered it."""

    source: Source
    sample: Sample


class Grid(NamedTuple):
    """A metric for each item and checkpoint."""

    positions: Ints
    """Of the rows, ascending."""
    sources: list[Source]
    """Of the columns, by step."""
    values: npt.NDArray[np.float32]
    """[item, checkpoint]; NaN where there is no answer, or the metric does not apply."""


class _Copy(NamedTuple):
    path: Path
    evaluations: frozenset[int]


def by_item(sources: Sequence[Source], folder: Path, position: int) -> list[Answered]:
    """Every answer to the item at `position`, by step; `folder` holds the copy of this run and task.

    Raises:
        NotFound, Invalid: a slice or a file of the copy is missing or broken.
    """
    ordered = _ordered(sources)
    table = _sorted(_collect(ordered, folder, SCHEMA.names, position, position + 1))
    numbers = table["order"].to_pylist()
    rows = samples.from_table(table.select(SCHEMA.names))
    return [Answered(ordered[number], sample) for number, sample in zip(numbers, rows, strict=True)]


def heat_map(
    sources: Sequence[Source],
    folder: Path,
    metric: str,
    *,
    headline: str = "",
    items: Sequence[Item] | None = None,
    start: int = 0,
    stop: int | None = None,
) -> Grid:
    """The metric of each item at positions from `start` to before `stop`, for every checkpoint.

    `items` and the task's `headline` metric are for `answers.metric_values`.

    Raises:
        NotFound, Invalid: as `by_item` does.
    """

    def of_metric(table: pa.Table) -> Floats:
        return metric_values(table, metric, items, headline=headline)

    return grids(sources, folder, [of_metric], columns_of(metric), start=start, stop=stop)[0]


def grids(
    sources: Sequence[Source],
    folder: Path,
    measures: Sequence[Callable[[pa.Table], Floats]],
    columns: Sequence[str] = COLUMNS,
    *,
    start: int = 0,
    stop: int | None = None,
) -> list[Grid]:
    """A grid for each measure, which makes a number of each row of a table with these columns; read once.

    Raises:
        NotFound, Invalid: as `by_item` does.
    """
    ordered = _ordered(sources)
    table = _collect(ordered, folder, columns, start, stop)
    found = table["position"].to_numpy()
    positions = np.flatnonzero(np.bincount(found))
    place = np.searchsorted(positions, found), table["order"].to_numpy()
    made = []
    for measure in measures:
        values = np.full((len(positions), len(ordered)), np.nan, dtype=np.float32)
        values[place] = measure(table)
        made.append(Grid(positions, ordered, values))
    return made


def by_checkpoint(sources: Sequence[Source], columns: Sequence[str] = COLUMNS) -> pa.Table:
    """All answers of some evaluations, usually those of one checkpoint, from their slices.

    The columns are those of `samples.SCHEMA` and `evaluation`, the evaluation's id.
    """
    return pa.concat_tables(
        table.append_column("evaluation", pa.array(np.full(table.num_rows, source.evaluation_id)))
        for source in sources
        for table in (samples.read_columns(path, columns) for path in source.paths)
    )


def compact(sources: Sequence[Source], folder: Path) -> int:
    """Bring the copy in `folder` up to date with all evaluations of its run and task.

    Evaluations that are no longer among `sources` leave it. It may be killed at any moment, run
    twice, and run beside readers; beside another of its kind it does nothing.

    Returns:
        How many evaluations are new in the copy.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with _alone(folder) as is_alone:
        if not is_alone:
            return 0
        wanted = {source.evaluation_id: source for source in _ordered(sources)}
        _sweep(folder, wanted.keys())
        covered = frozenset[int]().union(*(copy.evaluations for copy in _copies(folder)))
        fresh = [source for source in wanted.values() if source.evaluation_id not in covered]
        batches = [fresh[start : start + MAX_BATCH] for start in range(0, len(fresh), MAX_BATCH)]
        batches = [batch for batch in batches if len(batch) >= MIN_BATCH]
        for batch in batches:
            _keep(batch, folder)
        small = _to_merge(_copies(folder))
        if small:
            _keep([wanted[one] for copy in small for one in copy.evaluations if one in wanted], folder)
            _sweep(folder, wanted.keys())
        return sum(map(len, batches))


def _to_merge(copies: Sequence[_Copy]) -> list[_Copy]:
    """The smallest files up to the largest that is smaller than all before it together.

    So each file left is as large as all smaller ones together, which keeps them few; and a file that is
    merged at least doubles, so that of a thousand evaluations none is copied more than six times.
    """
    ascending = sorted(copies, key=lambda copy: len(copy.evaluations))
    sizes = np.array([len(copy.evaluations) for copy in ascending])
    too_small = np.flatnonzero(sizes < np.cumsum(sizes) - sizes)
    return ascending[: int(too_small[-1]) + 1] if len(too_small) else []


def _keep(sources: Sequence[Source], folder: Path) -> None:
    """Write what a reader finds for these evaluations as one file."""
    ordered = _ordered(sources)
    ids = [source.evaluation_id for source in ordered]
    # The slices are immutable, so the same evaluations are the same content.
    digest = hashlib.sha256(json.dumps(ids).encode()).hexdigest()[:16]
    schema = pa.schema([pa.field("evaluation", pa.int64(), nullable=False), *SCHEMA])
    window = max(1, ROWS_AT_ONCE // len(ordered))
    with parquet.whole_file(folder / f"{len(ids):06d}-{digest}.parquet") as file, _writer(file, schema) as writer:
        start = 0
        while (table := _collect(ordered, folder, SCHEMA.names, start, start + window)).num_rows:
            table = _sorted(table)
            evaluations = np.array(ids)[table["order"].to_numpy()]
            table = table.drop_columns("order").add_column(0, schema.field("evaluation"), pa.array(evaluations))
            writer.write_table(table.cast(schema), row_group_size=ROW_GROUP)
            start += window
        writer.add_key_value_metadata({"format": FORMAT, "evaluations": json.dumps(ids)})


def _writer(file: Any, schema: pa.Schema) -> pq.ParquetWriter:
    return pq.ParquetWriter(
        file,
        schema,
        compression="zstd",
        store_schema=False,
        use_dictionary=False,
        write_statistics=["position"],  # what lets a reader of one item skip the rest
        column_encoding={"sum_logprob.list.element": "BYTE_STREAM_SPLIT"},
    )


def _collect(ordered: Sequence[Source], folder: Path, columns: Sequence[str], start: int, stop: int | None) -> pa.Table:
    """Rows at positions from `start` to before `stop`, with `order`, the evaluation's number in `ordered`."""
    for attempt in range(ATTEMPTS):
        try:
            tables = list(_parts(ordered, folder if attempt < ATTEMPTS - 1 else None, columns, start, stop))
        except FileNotFoundError:
            # Merged into a larger file, which was there before this one went.
            continue
        break
    return pa.concat_tables(tables)


def _sorted(table: pa.Table) -> pa.Table:
    return table.sort_by([("position", "ascending"), ("order", "ascending")])


def _parts(
    ordered: Sequence[Source], folder: Path | None, columns: Sequence[str], start: int, stop: int | None
) -> Iterator[pa.Table]:
    yield _numbered(pa.schema([SCHEMA.field(name) for name in columns]).empty_table(), np.zeros(0, dtype=np.int64))
    numbers = {source.evaluation_id: number for number, source in enumerate(ordered)}
    for copy in _copies(folder) if folder else []:
        found = sorted(copy.evaluations & numbers.keys())
        if found:
            order = np.array([numbers.pop(one) for one in found])
            yield _from_copy(copy, columns, np.array(found), order, _within(start, stop))
    for number in numbers.values():
        for path in _touched(ordered[number].paths, start, stop):
            table, within = samples.read_columns(path, columns), _within(start, stop)
            table = table if within is None else table.filter(within)
            yield _numbered(table, np.full(table.num_rows, number))


def _from_copy(copy: _Copy, columns: Sequence[str], found: Ints, order: Ints, within: pc.Expression | None) -> pa.Table:
    """The rows of the evaluations `found`, which is sorted; `order` are their numbers."""
    try:
        table = pq.read_table(copy.path, columns=["evaluation", *columns], filters=within)
    except pa.ArrowInvalid as error:
        raise _broken(copy.path, error) from error
    evaluations = table["evaluation"].to_numpy()
    places = np.minimum(np.searchsorted(found, evaluations), len(found) - 1)
    table = _numbered(table.drop_columns("evaluation"), order[places])
    # Another file of the copy, or nobody, has the others.
    return table if len(found) == len(copy.evaluations) else table.filter(pa.array(found[places] == evaluations))


def _numbered(table: pa.Table, order: Ints) -> pa.Table:
    # Files differ in which columns may be empty, and names of list elements: nothing that matters here.
    schema = pa.schema([SCHEMA.field(name).with_nullable(True) for name in table.column_names])
    return table.cast(schema).append_column("order", pa.array(order, pa.int64()))


def _within(start: int, stop: int | None) -> pc.Expression | None:
    if stop is None:
        return pc.field("position") >= start if start > 0 else None
    return (pc.field("position") >= start) & (pc.field("position") < stop)


def _touched(paths: Sequence[Path], start: int, stop: int | None) -> Iterator[Path]:
    """The slices that can have positions in the range; their names begin with their first position."""
    ascending = sorted((int(path.name.split("-")[0]), path) for path in paths)
    for (first, path), (after, _) in zip(ascending, [*ascending[1:], (None, None)], strict=True):
        if (stop is None or first < stop) and (after is None or after > start):
            yield path


def _copies(folder: Path) -> list[_Copy]:
    """The files of a copy, the largest first, so that one that was merged into another adds nothing."""
    found = []
    for path in folder.glob("[0-9]*.parquet"):
        try:
            noted = pq.read_metadata(path).metadata or {}
            found.append(_Copy(path, frozenset(json.loads(noted[b"evaluations"]))))
        except (pa.ArrowInvalid, KeyError, ValueError) as error:
            raise _broken(path, error) from error
    return sorted(found, key=lambda copy: (-len(copy.evaluations), copy.path))


def _broken(path: Path, error: Exception) -> Invalid:
    sentence = "%(file)s is broken: %(error)s. It can be deleted and is made again from the sample files."
    return Invalid(sentence, file=path.name, error=error)


def _sweep(folder: Path, wanted: AbstractSet[int]) -> None:
    """Delete what a larger file has whole, what nobody wants, and what a killed compaction left half-written."""
    for path in folder.glob(".*.tmp"):
        path.unlink()
    seen: set[int] = set()
    for copy in _copies(folder):
        if copy.evaluations & wanted <= seen:
            copy.path.unlink()
        seen |= copy.evaluations


@contextmanager
def _alone(folder: Path) -> Iterator[bool]:
    """Whether no other compaction works on this folder; none begins while this lasts."""
    with (folder / ".lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True


def _ordered(sources: Sequence[Source]) -> list[Source]:
    return sorted(sources, key=lambda source: (source.step, source.evaluation_id))
