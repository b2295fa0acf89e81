"""Growth curves as columns: everything that the growth page and its exports draw, in a few queries however long a run.

`registry.curves` gives one curve as points, for pages that speak about each of them. Here a view of
ten tasks over a thousand checkpoints is arrays from the query on; benchmarks/growth.py measures it.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from sqlalchemy import ColumnElement, literal_column, select
from sqlalchemy.orm import Session

from registry import columns, news, runs
from registry.errors import Invalid
from registry.models import Checkpoint, Evaluation, MetricPoint, Post, Run, Task
from registry.models.base import FAILED, SCORED

X_AXES = ("tokens", "step", "flops", "time", "loss")
DIGITS = 6
"""Decimal places of what is drawn; an item more or less of a million would not show."""

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]


class View(NamedTuple):
    """Which points of a run are meant."""

    metric: str = ""
    """Empty: each task's headline metric."""
    x: str = "tokens"
    kind: str = "pretrained"
    precision: int = 16


HEADLINE = View()
"""What a run is known by."""


class Failure(NamedTuple):
    """An evaluation that failed at a checkpoint which has no score of the task."""

    x: float
    step: int
    evaluation_id: int
    error: str


class Line(NamedTuple):
    """The points of a task under one protocol, by step; all columns have the same length."""

    protocol_key: str
    protocol: Mapping[str, Any]
    x: Floats
    """In tokens, steps, FLOPs, seconds since the run began, or nats of held-out loss."""
    step: Ints
    tokens: Floats
    """NaN where nobody knows."""
    value: Floats
    low: Floats
    """Lower end of the 95% interval; NaN without one."""
    high: Floats
    n: Ints
    verdict: Sequence[str]
    """`gain`, `loss`, `within noise` against the checkpoint before; empty for the first and for other metrics."""
    evaluation: Ints


class Curve(NamedTuple):
    """One task over a run."""

    task: Task
    metric: str
    lines: list[Line]
    """The one that was used last at the end."""
    failures: list[Failure]


class Pin(NamedTuple):
    """A post at its place on the axis."""

    post: Post
    x: float


class _Axis(NamedTuple):
    """Where the checkpoints of a view stand, by step."""

    checkpoint: Ints
    step: Ints
    tokens: Floats
    x: Floats
    """NaN for a checkpoint without a place."""


def growth_curves(session: Session, run: Run, tasks: Sequence[Task], view: View = HEADLINE) -> list[Curve]:
    """The curves of some tasks over the checkpoints of a run, in the order of the tasks.

    A checkpoint without a place on the axis, such as an upload that does not say how many tokens it
    has seen, is left out.

    Raises:
        Invalid: an unknown axis.
    """
    axis = _axis(session, run, view)
    versions = session.execute(
        select(Task.id, Task.name, Task.metric).where(Task.name.in_([task.name for task in tasks]))
    ).all()
    records, at = _placed(_scores(session, run, view, versions), axis)
    found = _Found(axis, _protocols(session, records), _failures(session, versions))
    numbers = {name: number for number, name in enumerate({row.name: None for row in versions})}
    number = _lookup(records["task"], {row.id: numbers[row.name] for row in versions})
    order = np.argsort(number, kind="stable")
    ends = np.searchsorted(number, np.arange(len(numbers) + 1), sorter=order)
    curves = []
    for task in tasks:
        own = [row for row in versions if row.name == task.name]
        places = order[slice(*ends[numbers[task.name] :][:2])] if own else order[:0]
        curves.append(_curve(task, own, records[places], at[places], found, view))
    return curves


def _lookup(values: Ints, known: Mapping[int, int]) -> Ints:
    """What `known` has for each value; every value is in it."""
    keys = sorted(known)
    return np.array([known[key] for key in keys], dtype=np.int64)[np.searchsorted(keys, values)]


def pins(session: Session, run: Run, x: str) -> list[Pin]:
    """The posts that belong to a step of a run, in the order of the steps.

    A place between two checkpoints is interpolated; beyond the last one it is left out on axes that
    cannot be computed from the step.
    """
    query = select(Post).where(Post.run_id == run.id, Post.step.is_not(None), news.is_published())
    query = query.order_by(Post.step, Post.id)
    found = session.scalars(query).all()
    axis: _Axis | None = None
    pinned = []
    for post in found:
        step = post.step or 0
        at = _place_of_step(run, step, x)
        if at is None:
            axis = axis or _axis(session, run, View(x=x))
            at = _place_between(axis, step)
        if at is not None:
            pinned.append(Pin(post, at))
    return pinned


def _place_of_step(run: Run, step: int, x: str) -> float | None:
    if x == "step":
        return float(step)
    return float(step * run.tokens_per_step) if x == "tokens" and run.tokens_per_step else None


def _place_between(axis: _Axis, step: int) -> float | None:
    known = ~np.isnan(axis.x)
    steps, xs = axis.step[known], axis.x[known]
    return float(np.interp(step, steps, xs)) if steps.size and steps[0] <= step <= steps[-1] else None


def held_out_losses(session: Session, run: Run) -> tuple[Ints, Floats]:
    """Steps at which a run measured its held-out losses, and their mean over the languages, in nats a token.

    The languages are those measured together over the longest stretch: one that came later is left out of the
    mean, which it would make jump, and a step at which one of them is missing is left out of the steps.
    """
    query = (
        select(MetricPoint.step, MetricPoint.key, MetricPoint.value)
        .where(MetricPoint.run_id == run.id, MetricPoint.key.startswith(runs.HELD_OUT, autoescape=True))
        .order_by(MetricPoint.step)
    )
    rows = session.execute(query).all()
    if not rows:
        return np.array([], dtype=np.int64), np.array([])
    at, keys, values = zip(*rows, strict=True)
    steps, places = np.unique(np.array(at, dtype=np.int64), return_inverse=True)
    languages, across = np.unique(np.array(keys), return_inverse=True)
    losses = np.full((len(steps), len(languages)), np.nan)
    losses[places, across] = values
    chosen, whole = _together(steps, ~np.isnan(losses))
    return steps[whole], losses[np.ix_(whole, chosen)].mean(axis=1)


def _together(steps: Ints, is_there: Bools) -> tuple[Bools, Bools]:
    """Of [step, language]: the languages measured together over the longest stretch, and the steps that have them."""
    found = [(chosen, np.asarray(is_there[:, chosen].all(axis=1), np.bool_)) for chosen in np.unique(is_there, axis=0)]
    return max(found, key=lambda one: (np.ptp(steps[one[1]]), one[0].sum(), one[1].sum()))


def _axis(session: Session, run: Run, view: View) -> _Axis:
    if view.x not in X_AXES:
        raise Invalid("There is no x-axis '%(x)s'. Axes: %(known)s.", x=view.x, known=", ".join(X_AXES))
    own = {"flops": Checkpoint.flops, "time": Checkpoint.created_at}.get(view.x, Checkpoint.tokens_seen)
    query = select(Checkpoint.id, Checkpoint.step, Checkpoint.tokens_seen, own.label("own")).where(*_shown(run, view))
    rows = session.connection().execute(query.order_by(Checkpoint.step)).all()  # as rows: no objects are made
    ids, steps, tokens, places = (list(column) for column in zip(*rows, strict=True)) if rows else ([], [], [], [])
    if view.x == "time":
        places = [(moment - run.created_at).total_seconds() for moment in places]
    step = np.array(steps, dtype=np.int64)
    x = np.array(places, dtype=np.float64)  # None becomes NaN
    if view.x == "step":
        x = step.astype(np.float64)
    elif view.x == "loss":
        x = _losses_at(session, run, step)
    return _Axis(np.array(ids, dtype=np.int64), step, np.array(tokens, dtype=np.float64), x)


def _losses_at(session: Session, run: Run, steps: Ints) -> Floats:
    """The held-out loss at each step, between two measurements by interpolation; NaN outside of them."""
    known, losses = held_out_losses(session, run)
    if not known.size:
        return np.full(steps.shape, np.nan)
    return np.interp(steps, known, losses, left=np.nan, right=np.nan)


def _shown(run: Run, view: View) -> tuple[ColumnElement[bool], ...]:
    return (
        Checkpoint.run_id == run.id,
        Checkpoint.kind == view.kind,
        Checkpoint.precision == view.precision,
        Checkpoint.state.in_(SCORED),
    )


class _Found(NamedTuple):
    """What the queries of a view brought."""

    axis: _Axis
    protocols: Mapping[str, Mapping[str, Any]]
    failures: Sequence[Any]


def _scores(session: Session, run: Run, view: View, versions: Sequence[Any]) -> columns.Scores:
    """Those of each version of the tasks: an older one is found by its name, on another line."""
    by_metric: dict[str, list[int]] = {}
    for row in versions:
        by_metric.setdefault(view.metric or row.metric, []).append(row.id)
    return columns.read(session, _shown(run, view), by_metric)


def _placed(scores: columns.Scores, axis: _Axis) -> tuple[columns.Records, Ints]:
    """The scores that have a place on the axis, by step, the newest evaluation of a checkpoint last."""
    by_id = np.argsort(axis.checkpoint)
    places = np.searchsorted(axis.checkpoint, scores.checkpoint, sorter=by_id)
    places[places == len(by_id)] = 0
    at = by_id[places] if by_id.size else places
    known = np.isin(scores.checkpoint, axis.checkpoint[~np.isnan(axis.x)])
    records, at = scores.records[known], at[known]
    order = np.lexsort((records["evaluation"], at))
    return records[order], at[order]


def _failures(session: Session, versions: Sequence[Any]) -> Sequence[Any]:
    query = select(Evaluation.task_id, Evaluation.checkpoint_id, Evaluation.id, Evaluation.error).where(
        Evaluation.task_id.in_([row.id for row in versions]),
        Evaluation.status == literal_column(f"'{FAILED}'"),  # as the condition of the index has it
    )
    return session.execute(query.order_by(Evaluation.id)).all()


def _protocols(session: Session, records: columns.Records) -> dict[str, Mapping[str, Any]]:
    """By protocol key; the evaluations of one key have the same."""
    _keys, one_of_each = np.unique(records["protocol"], return_index=True)
    ids = records["evaluation"][one_of_each].tolist()
    query = select(Evaluation.protocol_key, Evaluation.protocol).where(Evaluation.id.in_(ids))
    return {row.protocol_key: row.protocol for row in session.execute(query)}


def _curve(task: Task, versions: Sequence[Any], records: columns.Records, at: Ints, found: _Found, view: View) -> Curve:
    """`records` are the scores of the task, by step, and `at` their places on the axis."""
    headlines = [row.id for row in versions if row.metric and row.metric == (view.metric or row.metric)]
    keys = records["protocol"]
    own = [keys == key for key in np.unique(keys)] if (keys != keys[:1]).any() else [slice(None)][: len(keys)]
    lines = [_line(records[one], at[one], found, headlines) for one in own]
    return Curve(
        task=task,
        metric=view.metric or task.metric,
        lines=sorted(lines, key=lambda line: int(line.evaluation.max())),
        failures=_failures_at(found, [row.id for row in versions], at),
    )


def _failures_at(found: _Found, task_ids: Sequence[int], scored: Ints) -> list[Failure]:
    """The last failure of each checkpoint that has no score."""
    axis = found.axis
    own = [row for row in found.failures if row.task_id in task_ids] if found.failures else []
    if not own:
        return []
    bare = np.setdiff1d(np.flatnonzero(~np.isnan(axis.x)), scored)
    empty = dict(zip(axis.checkpoint[bare].tolist(), bare.tolist(), strict=True))
    last = {row.checkpoint_id: row for row in own if row.checkpoint_id in empty}
    return sorted(
        Failure(float(axis.x[empty[at]]), int(axis.step[empty[at]]), row.id, row.error) for at, row in last.items()
    )


def _line(records: columns.Records, at: Ints, found: _Found, headlines: Sequence[int]) -> Line:
    key = records["protocol"][0].decode()
    verdicts = np.where(np.isin(records["task"], headlines), records["verdict"], 0) if headlines else at * 0
    return Line(
        protocol_key=key,
        protocol=found.protocols.get(key, {}),
        x=found.axis.x[at],
        step=found.axis.step[at],
        tokens=found.axis.tokens[at],
        value=records["value"].round(DIGITS),
        low=records["low"].round(DIGITS),
        high=records["high"].round(DIGITS),
        n=records["n"].astype(np.int64),
        verdict=[columns.VERDICTS[verdict] for verdict in verdicts.tolist()],
        evaluation=records["evaluation"].copy(),
    )
