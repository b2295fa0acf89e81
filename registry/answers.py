"""Columns of sample files as the flat arrays that `analysis` works on, and the metric of each item in them."""

from collections.abc import Sequence
from typing import NamedTuple, Protocol, TypeVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from analysis.answers import Answers
from analysis.metrics import ACCURACIES, bits, item_values
from registry.errors import Invalid

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Entry = TypeVar("Entry", bound=np.generic)

COLUMNS = ("item", "position", "target", "sum_logprob", "num_tokens", "num_bytes", "is_greedy", "score")
"""Of a sample file, what metrics are made of."""
DERIVED = ("acc", "acc_norm", "acc_bytes", "acc_per_token", "prob", "brier_score", "bits_per_byte")
"""What is computed from log-probabilities; other metrics are scores that were stored with the answers."""
_LENGTHS = {"acc_bytes": "num_bytes", "bits_per_byte": "num_bytes", "acc_per_token": "num_tokens"}


class Choices(Protocol):
    """What is needed of an item: which one it is, and the texts of its choices."""

    @property
    def item(self) -> str:
        """16 hexadecimal digits."""

    @property
    def choices(self) -> list[str]:
        """Empty for a text whose likelihood is measured."""


class Flat(NamedTuple):
    """The rows of a table that have log-probabilities."""

    answers: Answers
    rows: Ints
    """Their numbers."""


def columns_of(metric: str) -> list[str]:
    """Those of `COLUMNS` that the metric of an item and its place are made of."""
    return [name for name in COLUMNS if not name.startswith("num_") or name == _LENGTHS.get(metric)]


def flatten(table: pa.Table, items: Sequence[Choices] | None = None) -> Flat:
    """Answers of items with choices and of texts; the lengths in characters are 0 without the items.

    Lengths whose column the table leaves out are 0 as well.
    """
    counts = pc.list_value_length(table["sum_logprob"]).to_numpy()
    rows = np.flatnonzero(counts)
    # The lists of a free answer hold its length alone, and would put the others out of step.
    chosen = table if len(rows) == table.num_rows else table.take(rows)
    offsets = np.concatenate([[0], np.cumsum(counts[rows], dtype=np.int64)])
    lengths = {
        name: _values(chosen[name], np.int32) if name in table.column_names else np.zeros(offsets[-1], dtype=np.int32)
        for name in ("num_tokens", "num_bytes")
    }
    answers = Answers(
        offsets=offsets,
        sum_logprob=_values(chosen["sum_logprob"], np.float64),
        num_tokens=lengths["num_tokens"],
        num_bytes=lengths["num_bytes"],
        num_chars=_num_chars(chosen, offsets, items or []),
        is_greedy=_values(chosen["is_greedy"], np.bool_),
        target=pc.fill_null(chosen["target"], -1).to_numpy(),
    )
    return Flat(answers, rows)


def metric_values(
    table: pa.Table, metric: str, items: Sequence[Choices] | None = None, *, headline: str = ""
) -> Floats:
    """[row], the metric of each item, bits per byte included; NaN where its answer does not say.

    `acc_norm` needs the items, for the length of their choices in characters. `headline` is the task's
    headline metric, the one whose scores may be stored with the answers; where they are, they count.

    Raises:
        Invalid: the answers are not of the kind that has this metric.
    """
    values: Floats = pc.fill_null(table["score"], np.nan).to_numpy().astype(np.float64)
    if metric not in DERIVED or (metric == headline and not np.isnan(values).any()):
        return values
    flat, values = flatten(table, items), np.full(table.num_rows, np.nan)
    if len(flat.rows):
        try:
            values[flat.rows] = _derived(metric, flat.answers)
        except ValueError as error:
            raise Invalid("These answers have no '%(metric)s': %(error)s", metric=metric, error=error) from error
    return values


def likelihoods(table: pa.Table) -> Floats:
    """[row], from 0 to 1: the probability of the right choice among the choices, or of a text's bytes on average.

    NaN for a free answer, and for an item all of whose choices are impossible.
    """
    flat, values = flatten(table), np.full(table.num_rows, np.nan)
    if not len(flat.rows):
        return values
    found, starts = flat.answers, flat.answers.offsets[:-1]
    counts = np.diff(found.offsets)
    has_choices = counts > 1
    places = starts + np.maximum(found.target, 0)
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        weights = np.exp(found.sum_logprob - np.repeat(np.maximum.reduceat(found.sum_logprob, starts), counts))
        among = weights[places] / np.add.reduceat(weights, starts)
        of_bytes = np.exp(found.sum_logprob[places] / found.num_bytes[places])
    values[flat.rows] = np.where(has_choices, np.where(found.target >= 0, among, np.nan), of_bytes)
    return values


def is_judged(metric: str) -> bool:
    """Whether the metric calls an item right or wrong: an accuracy, or a score that was stored with the answers."""
    return bool(metric) and (metric in ACCURACIES or metric not in DERIVED)


def right_bytes(table: pa.Table) -> Floats:
    """[row], UTF-8 bytes of the right answer, or of the text itself; 0 where there is none."""
    flat = flatten(table)
    sizes = np.zeros(table.num_rows)
    if len(flat.rows):
        sizes[flat.rows] = bits(flat.answers).num_bytes
    return sizes


def _derived(metric: str, answers: Answers) -> Floats:
    if metric != "bits_per_byte":
        return item_values(metric, answers)
    found = bits(answers)
    return np.asarray(found.bits / found.num_bytes, dtype=np.float64)


def _values(column: pa.ChunkedArray, kind: type[Entry]) -> npt.NDArray[Entry]:
    return np.asarray(pc.list_flatten(column).to_numpy(), dtype=kind)


def _num_chars(table: pa.Table, offsets: Ints, items: Sequence[Choices]) -> npt.NDArray[np.int32]:
    lengths = np.zeros(offsets[-1], dtype=np.int32)
    known = {int(one.item, 16): [len(choice) for choice in one.choices] for one in items}
    if known:
        for key, start, stop in zip(table["item"].to_pylist(), offsets[:-1], offsets[1:], strict=True):
            if len(known.get(key, [])) == stop - start:
                lengths[start:stop] = known[key]
    return lengths
