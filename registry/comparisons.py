"""Two checkpoints side by side, whichever they are: the tasks that both answered, item by item where that can be done.

`registry.changes` keeps what each checkpoint says against the one before it. Here any two meet, of one
run or of two, and nothing is kept: their sample files never change, so what was read once is remembered.
"""

from bisect import bisect_left
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
import structlog
from sqlalchemy import select
from sqlalchemy.orm import Session, joinedload, selectinload

from analysis import compare as statistics
from analysis.compare import Difference
from analysis.intervals import is_binary
from registry import evaluations, samples
from registry.changes import Found, Pair
from registry.errors import RegistryError
from registry.models import Checkpoint, Evaluation, Result, Run, Task
from registry.models.base import FINISHED, SCORED

log = structlog.get_logger(__name__)

KEPT_PAIRS = 8192
"""Pairs of evaluations whose difference is remembered, at well under a kilobyte each."""


class Outcome(NamedTuple):
    """What one task says about two checkpoints."""

    pair: Pair
    found: Found
    verdict: str
    """`gain`, `loss` or `within noise`, corrected over all tasks of the comparison."""
    corrected_p: float | None
    learned: int | None
    """Items wrong before and right after; None where answers are not right or wrong, or are not here."""
    forgotten: int | None


class Comparison(NamedTuple):
    """Two checkpoints over all tasks, in the tasks' order."""

    outcomes: list[Outcome]
    apart: list[Pair]
    """The same task, measured in different ways: the numbers do not belong side by side."""
    alone: list[Evaluation]
    """Tasks that only one of the two has a score of."""


class Flips(NamedTuple):
    """Hashes of the items that changed sides between two evaluations."""

    learned: list[str]
    forgotten: list[str]


class Place(NamedTuple):
    """A checkpoint of a run at its amount of tokens or FLOPs."""

    checkpoint_id: int
    step: int
    amount: float


class _Items(NamedTuple):
    difference: Difference
    learned: int | None
    forgotten: int | None


def compare(session: Session, before: Checkpoint, after: Checkpoint, *, mixed: bool = False) -> Comparison:
    """After against before, on the headline metric of each task; `mixed` takes in what was measured differently."""
    first, second = _by_task(session, before), _by_task(session, after)
    pairs: list[Pair] = []
    apart: list[Pair] = []
    alone: list[Evaluation] = []
    for name in dict.fromkeys([*second, *first]):
        if name not in first or name not in second:
            alone.append((second.get(name) or first[name])[0])
            continue
        pair = _pair(first[name], second[name])
        (pairs if mixed or is_alike(pair) else apart).append(pair)
    measured = [(pair, *_measure(pair)) for pair in pairs]
    apart += [pair for pair, found, _ in measured if found is None]
    return Comparison(_judged([(pair, found, items) for pair, found, items in measured if found]), apart, alone)


def is_alike(pair: Pair) -> bool:
    """Whether both were measured in the same way."""
    return pair.before.task_id == pair.after.task_id and pair.before.protocol_key == pair.after.protocol_key


def flips(pair: Pair) -> Flips:
    """The items that are right on one side only; needs task and slices loaded.

    Raises:
        NotFound, Invalid: a file is missing, or is no sample file.
    """
    paired = samples.pair(*_files(pair), pair.after.task.metric, _items_path(pair))
    if paired is None or not (is_binary(paired.before) and is_binary(paired.after)):
        return Flips([], [])
    hashes = np.array([f"{item:016x}" for item in paired.items])
    return Flips(
        hashes[paired.after > paired.before].tolist(),
        hashes[paired.after < paired.before].tolist(),
    )


def places(session: Session, run: Run, amount: str = "tokens") -> list[Place]:
    """The checkpoints of a run that say how much they have seen, by amount: pretrained, in 16 bits, not rejected."""
    column = Checkpoint.flops if amount == "flops" else Checkpoint.tokens_seen
    query = select(Checkpoint.id, Checkpoint.step, column.label("amount")).where(
        Checkpoint.run_id == run.id,
        Checkpoint.kind == "pretrained",
        Checkpoint.precision == 16,
        Checkpoint.state.in_(SCORED),
        column.is_not(None),
    )
    found = [Place(row.id, row.step, float(row.amount)) for row in session.execute(query)]
    return sorted(found, key=lambda place: (place.amount, place.step))


def meetings(first: Sequence[Place], second: Sequence[Place]) -> list[tuple[Place, Place]]:
    """Where two runs are about as old: the pairs of which each is the nearest to the other, by amount."""
    found = [(place, _nearest(place, second)) for place in first if second]
    return [(place, other) for place, other in found if _nearest(other, first) == place]


def _nearest(place: Place, others: Sequence[Place]) -> Place:
    """Of places by amount, the nearest one; the younger of two that are as near."""
    after = bisect_left(others, place.amount, key=lambda other: other.amount)
    return min(others[max(0, after - 1) : after + 1], key=lambda other: abs(other.amount - place.amount))


def _by_task(session: Session, checkpoint: Checkpoint) -> dict[str, list[Evaluation]]:
    """Its finished evaluations by the name of the task, the newest first, in the tasks' order."""
    query = (
        select(Evaluation)
        .join(Evaluation.task)
        .where(Evaluation.checkpoint_id == checkpoint.id, Evaluation.status == FINISHED, Task.metric != "")
        .options(joinedload(Evaluation.task), selectinload(Evaluation.results), selectinload(Evaluation.slices))
        .order_by(Task.suite_id, Task.position, Task.name, Evaluation.id.desc())
    )
    found: dict[str, list[Evaluation]] = {}
    for evaluation in session.scalars(query):
        found.setdefault(evaluation.task.name, []).append(evaluation)
    return found


def _pair(first: Sequence[Evaluation], second: Sequence[Evaluation]) -> Pair:
    """The newest two that were measured in the same way, or the newest of each where none were."""
    pairs = (Pair(before, after) for after in second for before in first)
    return next((pair for pair in pairs if is_alike(pair)), Pair(first[0], second[0]))


def _measure(pair: Pair) -> tuple[Found | None, _Items | None]:
    items = _compare_items(pair)
    if items is not None:
        return Found(*items.difference, is_paired=True), items
    metric = pair.after.task.metric
    then, now = _result(pair.before, metric), _result(pair.after, metric)
    if then is None or now is None:
        return None, None
    change = statistics.unpaired_change(then, now)
    low, high = statistics.unpaired_interval(then, now) or (None, None)
    return Found(change.value, None, low, high, change.p_value, min(then.n, now.n), is_paired=False), None


def _compare_items(pair: Pair) -> _Items | None:
    if not pair.before.slices or not pair.after.slices:
        return None
    try:
        return _read(*_files(pair), pair.after.task.metric, _items_path(pair))
    except RegistryError as error:
        log.warning("Sample files cannot be paired.", evaluation_id=pair.after.id, error=str(error))
        return None


@lru_cache(maxsize=KEPT_PAIRS)
def _read(before: tuple[Path, ...], after: tuple[Path, ...], metric: str, items_path: Path | None) -> _Items | None:
    """What sample files say; their names carry a digest of their content, so the answer never changes."""
    paired = samples.pair(before, after, metric, items_path)
    if paired is None:
        return None
    learned = forgotten = None
    if is_binary(paired.before) and is_binary(paired.after):
        learned, forgotten = int((paired.after > paired.before).sum()), int((paired.after < paired.before).sum())
    return _Items(paired.difference(metric), learned, forgotten)


def _files(pair: Pair) -> tuple[tuple[Path, ...], tuple[Path, ...]]:
    return tuple(evaluations.sample_paths(pair.before)), tuple(evaluations.sample_paths(pair.after))


def _items_path(pair: Pair) -> Path | None:
    return evaluations.items_path(pair.after) if pair.after.items_file else None


def _result(evaluation: Evaluation, metric: str) -> Result | None:
    return next((result for result in evaluation.results if result.metric == metric), None)


def _judged(measured: Sequence[tuple[Pair, Found, _Items | None]]) -> list[Outcome]:
    family = [
        statistics.Change(found.value, found.p_value, pair.after.task.higher_is_better) for pair, found, _ in measured
    ]
    words, corrected = statistics.verdicts(family), statistics.corrected_p_values(family)
    return [
        Outcome(pair, found, word, p_value, items and items.learned, items and items.forgotten)
        for (pair, found, items), word, p_value in zip(measured, words, corrected, strict=True)
    ]
