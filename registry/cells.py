"""A byte for each item and checkpoint of a task: whether it was right, and how likely the right answer was.

That is all a heat map shows. Working it out from the answers takes the better part of a second for a million of
them, so one small file beside the copy by item keeps it; what the file lacks is worked out by whoever reads. It can be
deleted at any time.
"""

import hashlib
import io
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from registry import history, parquet, samples
from registry.answers import COLUMNS, Floats, is_judged, likelihoods, metric_values
from registry.history import Source

FORMAT = "grow-cells-1"
NOTHING, LEAST, MOST = 0, 1, 255
"""Bytes: no answer, then 0 up to 1 in 254 steps. Of right and wrong, wrong is `LEAST` and right `MOST`."""

Bytes = npt.NDArray[np.uint8]
Ints = npt.NDArray[np.int64]


class Task(NamedTuple):
    """What must be known of a task to say what is right."""

    metric: str
    """The headline metric."""
    items_file: Path | None


class Cells(NamedTuple):
    """Both views of all answers."""

    positions: Ints
    """Of the rows, ascending."""
    evaluations: Ints
    """Ids of the columns, by step."""
    right: Bytes
    """[item, checkpoint], nothing but `NOTHING` where the metric knows no right and wrong."""
    likelihood: Bytes
    """[item, checkpoint], of the right choice or of a text's bytes; `NOTHING` for free answers."""


def known(folder: Path, metric: str) -> Cells | None:
    """What the file in `folder` has; None if there is none that can be read."""
    try:
        with _path(folder, metric).open("rb") as file:
            return Cells(*(np.load(file, allow_pickle=False) for _ in Cells._fields))
    except (OSError, ValueError, EOFError, zipfile.BadZipFile):
        return None


def read(sources: Sequence[Source], folder: Path, task: Task, kept: Cells | None) -> Cells:
    """The cells of these evaluations; those that `kept` has need no paths.

    Raises:
        NotFound, Invalid: a file of answers is missing or broken.
    """
    ids = np.array([source.evaluation_id for source in sources], dtype=np.int64)
    covered = np.isin(ids, kept.evaluations) if kept else np.zeros(len(ids), dtype=bool)
    fresh = [source for source, is_covered in zip(sources, covered, strict=True) if not is_covered]
    parts = [kept] if kept and covered.any() else []
    if fresh:
        parts.append(_work_out(fresh, folder, task))
    return parts[0] if len(parts) == 1 and np.array_equal(parts[0].evaluations, ids) else _joined(ids, parts)


def keep(cells: Cells, folder: Path, metric: str) -> Path:
    """Write the file, whole or not at all."""
    content = io.BytesIO()
    for column in cells:
        # One after the other: the checksums of numpy's own archive take longer than reading.
        np.save(content, np.ascontiguousarray(column), allow_pickle=False)
    return parquet.write(_path(folder, metric), content.getvalue())


def quantise(values: npt.NDArray[np.float32] | Floats) -> Bytes:
    """Numbers from 0 to 1 as bytes; what is less or more counts as the end, NaN as `NOTHING`."""
    is_known = ~np.isnan(values)
    steps = np.rint(np.clip(np.where(is_known, values, 0), 0, 1) * (MOST - LEAST)) + LEAST
    return np.where(is_known, steps, NOTHING).astype(np.uint8)


def values_of(cells: Bytes) -> npt.NDArray[np.float32]:
    """The numbers again, NaN where there is no answer."""
    table = np.concatenate([[np.nan], np.linspace(0, 1, MOST)]).astype(np.float32)
    return table[cells]


def _path(folder: Path, metric: str) -> Path:
    # The name of a metric may hold anything; a folder of its own, because compaction sweeps the one above.
    name = hashlib.sha256(f"{FORMAT} {metric}".encode()).hexdigest()[:16]
    return folder / "cells" / f"{name}.npy"


def _work_out(sources: Sequence[Source], folder: Path, task: Task) -> Cells:
    items = samples.read_items(task.items_file) if task.metric == "acc_norm" and task.items_file else None

    def is_right(table: pa.Table) -> Floats:
        if not is_judged(task.metric):
            return np.full(table.num_rows, np.nan)
        return metric_values(table, task.metric, items, headline=task.metric)

    right, likely = history.grids(sources, folder, [is_right, likelihoods], COLUMNS)
    ids = np.array([source.evaluation_id for source in right.sources], dtype=np.int64)
    return Cells(right.positions, ids, quantise(right.values), quantise(likely.values))


def _joined(ids: Ints, parts: Sequence[Cells]) -> Cells:
    """The columns of these evaluations, in this order, from wherever they are."""
    positions = np.unique(np.concatenate([np.zeros(0, dtype=np.int64), *(part.positions for part in parts)]))
    right, likelihood = np.full((2, len(positions), len(ids)), NOTHING, dtype=np.uint8)
    columns = {int(one): column for column, one in enumerate(ids)}
    for part in parts:
        wanted = [(column, columns[int(one)]) for column, one in enumerate(part.evaluations) if int(one) in columns]
        if wanted and len(part.positions):
            theirs, ours = (_span(np.array(numbers)) for numbers in zip(*wanted, strict=True))
            rows = _span(np.searchsorted(positions, part.positions))
            for all_cells, cells in ((right, part.right), (likelihood, part.likelihood)):
                if isinstance(rows, slice):
                    all_cells[rows, ours] = cells[:, theirs]
                else:
                    all_cells[np.ix_(rows, np.arange(len(ids))[ours])] = cells[:, theirs]
    return Cells(positions, ids, right, likelihood)


def _span(numbers: Ints) -> Ints | slice:
    """Numbers that follow one another as a slice, which copies many times faster."""
    first = int(numbers[0])
    is_run = np.array_equal(numbers, np.arange(first, first + len(numbers)))
    return slice(first, first + len(numbers)) if is_run else numbers
