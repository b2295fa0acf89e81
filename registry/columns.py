"""The scores of a checkpoint as columns: what a curve over a thousand checkpoints is read from.

A row of `results` is what an evaluation said. To draw ten tasks, ten thousand of them would be looked up one by one;
here the scores of a checkpoint in one metric stand together as an array, written in the transaction that writes the
rows. `write` makes them from the rows at any time.
"""

from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from sqlalchemy import ColumnElement, delete, insert, select
from sqlalchemy.orm import Session

from registry.models import Change, Checkpoint, Evaluation, Result, ScoreColumn
from registry.models.base import FINISHED

RECORD = np.dtype(
    [
        ("task", "<i8"),
        ("evaluation", "<i8"),
        ("value", "<f8"),
        ("low", "<f8"),  # NaN without an interval, as `high`
        ("high", "<f8"),
        ("n", "<i4"),
        ("verdict", "<i2"),  # place in VERDICTS
        ("protocol", "S16"),
    ]
)
"""One score. Migration 0006 has a copy: another form needs another migration."""
VERDICTS = ("", "gain", "loss", "within noise")
"""Of the evaluation against the checkpoint before, on the headline metric."""

Records = npt.NDArray[np.void]


class Scores(NamedTuple):
    """Scores of many checkpoints."""

    records: Records
    checkpoint: npt.NDArray[np.int64]
    """Id of the checkpoint of each record."""


NOTHING = Scores(np.array([], dtype=RECORD), np.array([], dtype=np.int64))


def write(session: Session, checkpoint_id: int) -> None:
    """Write the columns of a checkpoint anew from its rows."""
    session.flush()
    # Two writers of one checkpoint, each blind to what the other has not committed, would leave out one's rows.
    # The weaker lock: whoever adds an evaluation holds the key, and two of them would wait for each other.
    session.execute(select(Checkpoint.id).where(Checkpoint.id == checkpoint_id).with_for_update(key_share=True))
    query = (
        select(
            Result.metric,
            Evaluation.task_id,
            Evaluation.id,
            Result.value,
            Result.low,
            Result.high,
            Result.n,
            Change.verdict,
            Evaluation.protocol_key,
        )
        .join(Evaluation, Evaluation.id == Result.evaluation_id)
        .outerjoin(Change, Change.evaluation_id == Evaluation.id)
        .where(Evaluation.checkpoint_id == checkpoint_id, Evaluation.status == FINISHED)
        .order_by(Result.metric, Evaluation.id)
    )
    by_metric: dict[str, list[tuple[object, ...]]] = {}
    for metric, task, evaluation, value, low, high, n, verdict, key in session.execute(query):
        record = (task, evaluation, value, low, high, n, VERDICTS.index(verdict or ""), (key or "").encode())
        by_metric.setdefault(metric, []).append(record)
    session.execute(delete(ScoreColumn).where(ScoreColumn.checkpoint_id == checkpoint_id))
    rows = [
        {"checkpoint_id": checkpoint_id, "metric": metric, "records": np.array(found, dtype=RECORD).tobytes()}
        for metric, found in by_metric.items()
    ]
    if rows:
        session.execute(insert(ScoreColumn), rows)


def read(session: Session, shown: Sequence[ColumnElement[bool]], wanted: Mapping[str, Collection[int]]) -> Scores:
    """The scores of the checkpoints that the conditions in `shown` describe; `wanted` has the tasks by metric."""
    query = (
        select(ScoreColumn.checkpoint_id, ScoreColumn.metric, ScoreColumn.records)
        .join(Checkpoint, Checkpoint.id == ScoreColumn.checkpoint_id)
        .where(*shown, ScoreColumn.metric.in_(wanted))
    )
    rows = session.connection().execute(query).all()
    parts = [_of_tasks([row for row in rows if row[1] == metric], tasks) for metric, tasks in wanted.items()]
    return Scores(*(np.concatenate(part) for part in zip(*(parts or [NOTHING]), strict=True)))


def _of_tasks(rows: Sequence[Any], tasks: Collection[int]) -> Scores:
    records = np.frombuffer(b"".join(row[2] for row in rows), dtype=RECORD)
    lengths = [len(row[2]) // RECORD.itemsize for row in rows]
    checkpoint = np.repeat(np.array([row[0] for row in rows], dtype=np.int64), lengths)
    own = np.isin(records["task"], list(tasks))
    return Scores(records[own], checkpoint[own])
