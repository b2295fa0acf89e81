"""Verbs of runs and their training scalars."""

import datetime as dt
import re
from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, delete, func, insert, literal, select, tuple_
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session

from registry.errors import Conflict, Invalid, NotFound, name_list
from registry.models import MetricPoint, Run, SupersededPoint
from registry.models.base import FINISHED, RUNNING, utcnow

NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}")


class MetricSpan(NamedTuple):
    """The points of a scalar over a few neighbouring steps, as one; `step` is the last of them."""

    step: int
    tokens_seen: int
    created_at: dt.datetime
    mean: float
    low: float
    high: float
    n: int


class Origin(NamedTuple):
    """The step of another run that a run goes on from."""

    run: Run
    step: int
    is_rewind: bool = False
    """It takes that run's place."""


class Branch(NamedTuple):
    """One run of a family: runs that began at a step of another."""

    run: Run
    parent: Run | None
    """None for the one that began from nothing."""
    from_step: int | None
    """Step of the parent that it goes on from."""
    depth: int
    """0 for the first run, 1 for its branches, …"""
    superseded_after: int | None
    """Where a rewind took its place; what it did later counts no more."""


class Window(NamedTuple):
    """A stretch of steps, both ends with it."""

    first: int = 0
    last: int = 2**62


EVERYTHING = Window()


class Place(NamedTuple):
    """Where a point stands among all of its run; see `next_points`."""

    attempt: int = 0
    key: str = ""
    step: int = -1


BEGINNING = Place()
HELD_OUT = "heldout/loss"
"""Beginning of the keys of the losses on text that the model is not trained on."""

Spans = dict[str, list[MetricSpan]]
"""By key, in order of steps."""


def create_run(
    session: Session,
    *,
    name: str,
    kind: str = "training",
    config: Mapping[str, Any] | None = None,
    git_revision: str = "",
    num_parameters: int | None = None,
    tokens_per_step: int | None = None,
    max_steps: int | None = None,
    origin: Origin | None = None,
) -> Run:
    """Begin a run, or go on with the one of that name and kind.

    Raises:
        Invalid: the name cannot stand in an address.
        Conflict: the name belongs to a run of another kind, or to one that began elsewhere.
    """
    if not NAME.fullmatch(name):
        raise Invalid(
            "'%(name)s' cannot be a run's name: use a-z, 0-9, dot, dash and underscore, 63 at most.", name=name
        )
    run = session.scalar(select(Run).where(Run.name == name))
    if run is None:
        run = Run(name=name, kind=kind, config=dict(config or {}))
        if origin is not None:
            run.parent_run_id, run.parent_step, run.is_rewind = origin.run.id, origin.step, origin.is_rewind
        session.add(run)
    elif run.kind != kind:
        raise Conflict(
            "The name '%(name)s' belongs to a run of the kind '%(kind)s'. Choose another name.",
            name=name,
            kind=run.kind,
        )
    elif origin is not None and (run.parent_run_id, run.parent_step) != (origin.run.id, origin.step):
        raise Conflict(
            "The run '%(name)s' exists and did not begin at step %(step)s of '%(parent)s'. Choose another name.",
            name=name,
            step=origin.step,
            parent=origin.run.name,
        )
    run.status = RUNNING
    run.heartbeat_at = utcnow()
    run.git_revision = git_revision or run.git_revision or ""
    run.num_parameters = num_parameters or run.num_parameters
    run.tokens_per_step = tokens_per_step or run.tokens_per_step
    run.max_steps = max_steps or run.max_steps
    session.flush()  # callers register checkpoints under run.id
    return run


def get_run(session: Session, name: str) -> Run:
    """The run of that name.

    Raises:
        NotFound: with the names that exist.
    """
    run = session.scalar(select(Run).where(Run.name == name))
    if run is None:
        raise NotFound(
            "There is no run '%(name)s'. Runs: %(known)s.",
            name=name,
            known=name_list([r.name for r in list_runs(session)]),
        )
    return run


def list_runs(session: Session) -> Sequence[Run]:
    """Every run, the one heard from last first."""
    return session.scalars(select(Run).order_by(Run.heartbeat_at.desc(), Run.id.desc())).all()


def log_metrics(session: Session, run: Run, step: int, tokens_seen: int, values: Mapping[str, float]) -> None:
    """Record scalars of one step; one that is logged again replaces the earlier value, see `rewind`."""
    if not values:
        return
    rows = [
        {"run_id": run.id, "key": key, "step": step, "value": value, "tokens_seen": tokens_seen, "created_at": utcnow()}
        for key, value in values.items()
    ]
    dialect = postgresql if session.get_bind().dialect.name == "postgresql" else sqlite
    statement = dialect.insert(MetricPoint).values(rows)
    session.execute(
        statement.on_conflict_do_update(
            index_elements=["run_id", "key", "step"],
            set_={name: statement.excluded[name] for name in ("value", "tokens_seen", "created_at")},
        )
    )
    beat(session, run)


def rewind(session: Session, run: Run, step: int) -> int:
    """The run goes on from `step`: later points step aside as superseded. Returns how many did."""
    later = (MetricPoint.run_id == run.id, MetricPoint.step > step)
    columns = ("run_id", "key", "step", "value", "tokens_seen", "created_at")
    moved = select(literal(num_rewinds(session, run) + 1), *(getattr(MetricPoint, name) for name in columns))
    session.execute(insert(SupersededPoint).from_select(["attempt", *columns], moved.where(*later)))
    deleted: Any = session.execute(delete(MetricPoint).where(*later))
    beat(session, run)
    return int(deleted.rowcount)


def num_rewinds(session: Session, run: Run) -> int:
    """How often the run gave up points to go on from an earlier step."""
    return session.scalar(select(func.max(SupersededPoint.attempt)).where(SupersededPoint.run_id == run.id)) or 0


def family(session: Session, run: Run) -> list[Branch]:
    """Every run of the tree that a run belongs to, each after its parent; alone where it has no relatives."""
    return next(tree for tree in families(list_runs(session)) if any(branch.run.id == run.id for branch in tree))


def families(found: Sequence[Run]) -> list[list[Branch]]:
    """The trees that runs make, in their order; each is given with its first run at the beginning."""
    by_id = {run.id: run for run in found}
    children: dict[int | None, list[Run]] = {}
    for run in found:
        children.setdefault(run.parent_run_id if run.parent_run_id in by_id else None, []).append(run)

    def grow(run: Run, depth: int) -> list[Branch]:
        own = sorted(children.get(run.id, ()), key=lambda child: (child.parent_step or 0, child.id))
        rewinds = [child.parent_step for child in own if child.is_rewind and child.parent_step is not None]
        parent = by_id.get(run.parent_run_id) if run.parent_run_id is not None else None
        branch = Branch(run, parent, run.parent_step if parent else None, depth, min(rewinds, default=None))
        return [branch, *(later for child in own for later in grow(child, depth + 1))]

    trees = [grow(root, 0) for root in children.get(None, ())]
    place = {run.id: number for number, run in enumerate(found)}
    return sorted(trees, key=lambda tree: min(place[branch.run.id] for branch in tree))


def metric_series(session: Session, run: Run, key: str) -> Sequence[MetricPoint]:
    """The points of one scalar in order of steps.

    Raises:
        NotFound: the run never logged that key; with the keys it did log.
    """
    query = select(MetricPoint).where(MetricPoint.run_id == run.id, MetricPoint.key == key).order_by(MetricPoint.step)
    points = session.scalars(query).all()
    if not points:
        raise NotFound(
            "Run '%(run)s' has no metric '%(key)s'. Metrics: %(known)s.",
            run=run.name,
            key=key,
            known=name_list(metric_keys(session, run)),
        )
    return points


def values_at(session: Session, run: Run, prefix: str, step: int) -> dict[str, float]:
    """The newest values up to a step of the scalars whose key begins so, by key."""
    family = (MetricPoint.run_id == run.id, MetricPoint.key.startswith(prefix, autoescape=True))
    last = select(MetricPoint.key, func.max(MetricPoint.step)).where(*family, MetricPoint.step <= step)
    last = last.group_by(MetricPoint.key)
    query = select(MetricPoint.key, MetricPoint.value).where(*family)
    query = query.where(tuple_(MetricPoint.key, MetricPoint.step).in_(last))
    return {key: value for key, value in session.execute(query)}


def thinned_metrics(session: Session, run: Run, keys: Sequence[str] | None = None, limit: int = 160) -> Spans:
    """Scalars of a run as at most `limit` spans of steps each, by key; a run of a million steps is one small answer."""
    return thinned_family(session, [run], keys, limit).get(run.id, {})


def thinned_family(
    session: Session,
    found: Collection[Run],
    keys: Sequence[str] | None = None,
    limit: int = 160,
    within: Window = EVERYTHING,
) -> dict[int, Spans]:
    """The same for several runs, by id, in spans that begin and end at the same steps; or for a stretch of steps."""
    thinned = _thin(session, MetricPoint, found, literal(0), keys, limit, within)
    return {run_id: spans for (run_id, _), spans in thinned.items()}


def superseded_metrics(
    session: Session,
    found: Collection[Run],
    keys: Sequence[str] | None = None,
    limit: int = 160,
    within: Window = EVERYTHING,
) -> dict[tuple[int, int], Spans]:
    """What runs gave up when they were rewound, by the run's id and the number of the attempt."""
    return _thin(session, SupersededPoint, found, SupersededPoint.attempt, keys, limit, within)


def _thin(
    session: Session,
    points: type[MetricPoint] | type[SupersededPoint],
    found: Collection[Run],
    attempt: ColumnElement[int] | Any,
    keys: Sequence[str] | None,
    limit: int,
    within: Window,
) -> dict[tuple[int, int], Spans]:
    of_runs = points.run_id.in_([run.id for run in found]) & points.step.between(*within)
    last = session.scalar(select(func.max(points.step)).where(of_runs))
    if last is None:
        return {}
    span = ((points.step - within.first) * limit // (last - within.first + 1)).label("span")
    number = attempt.label("attempt")
    query = (
        select(
            points.run_id,
            number,
            points.key,
            func.max(points.step),
            func.max(points.tokens_seen),
            func.max(points.created_at),
            func.avg(points.value),
            func.min(points.value),
            func.max(points.value),
            func.count(),
        )
        .where(of_runs)
        .group_by(points.run_id, number, points.key, span)
        .order_by(points.run_id, number, points.key, span)
    )
    if keys is not None:
        query = query.where(points.key.in_(keys))
    thinned: dict[tuple[int, int], Spans] = {}
    for run_id, number_of, key, *values in session.execute(query):
        thinned.setdefault((run_id, number_of), {}).setdefault(key, []).append(MetricSpan(*values))
    return thinned


def metric_keys(session: Session, run: Run) -> list[str]:
    """The scalars this run has logged."""
    query = select(MetricPoint.key).where(MetricPoint.run_id == run.id).distinct().order_by(MetricPoint.key)
    return list(session.scalars(query))


def last_step(session: Session, run: Run) -> MetricPoint | None:
    """The newest training point, for "step 812 of 6,000"."""
    query = select(MetricPoint).where(MetricPoint.run_id == run.id, MetricPoint.key == "train/loss")
    return session.scalar(query.order_by(MetricPoint.step.desc()).limit(1))


def next_points(
    session: Session, run: Run, keys: Sequence[str] = (), after: Place = BEGINNING, limit: int = 2000
) -> list[Any]:
    """The points of a run that come after a place, in rows with the number of the attempt, 0 for those of its curve.

    They come by attempt, key and step, at most `limit` at once: whoever reads slowly holds no session.
    """
    found: list[Any] = []
    for points, attempt in ((MetricPoint, literal(0)), (SupersededPoint, SupersededPoint.attempt)):
        columns = (points.key, points.step, points.tokens_seen, points.created_at, points.value)
        query = select(attempt.label("attempt"), *columns).where(points.run_id == run.id)
        if keys:
            query = query.where(points.key.in_(keys))
        if points is SupersededPoint:
            order: tuple[Any, ...] = (attempt, points.key, points.step)
            query = query.where(tuple_(*order) > tuple(after))
        elif after.attempt == 0:
            order = (points.key, points.step)
            query = query.where(tuple_(*order) > (after.key, after.step))
        else:
            continue
        found += session.execute(query.order_by(*order).limit(limit - len(found)))
    return found


def step_at(session: Session, run: Run, tokens: int) -> int:
    """The step after which a run had read so many tokens, to the nearest.

    Raises:
        Invalid: nothing says how many tokens a step of this run reads.
    """
    if run.tokens_per_step:
        return round(tokens / run.tokens_per_step)
    distance = func.abs(MetricPoint.tokens_seen - tokens)
    step = session.scalar(select(MetricPoint.step).where(MetricPoint.run_id == run.id).order_by(distance).limit(1))
    if step is None:
        raise Invalid("Nothing says how many tokens a step of '%(run)s' reads: give the step.", run=run.name)
    return step


def set_status(session: Session, run: Run, status: str) -> None:
    """Record that a run finished, failed, was stopped or goes on."""
    session.merge(run, load=True).status = status
    beat(session, run)


def beat(session: Session, run: Run) -> None:
    """Record a sign of life."""
    session.merge(run, load=True).heartbeat_at = utcnow()


def find_or_create(session: Session, name: str) -> Run:
    """The run of that name whatever its kind, or a new home for uploads."""
    run = session.scalar(select(Run).where(Run.name == name))
    if run is not None:
        return run
    run = create_run(session, name=name, kind="upload")
    run.status = FINISHED
    return run
