"""Verbs of runs and their training scalars."""

import datetime as dt
import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from sqlalchemy import func, select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session

from registry.errors import Conflict, Invalid, NotFound, name_list
from registry.models import MetricPoint, Run
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
    parent: Run | None = None,
    parent_step: int | None = None,
) -> Run:
    """Begin a run, or go on with the one of that name and kind.

    Raises:
        Invalid: the name cannot stand in an address.
        Conflict: the name belongs to a run of another kind.
    """
    if not NAME.fullmatch(name):
        raise Invalid(
            "'%(name)s' cannot be a run's name: use a-z, 0-9, dot, dash and underscore, 63 at most.", name=name
        )
    run = session.scalar(select(Run).where(Run.name == name))
    if run is None:
        run = Run(name=name, kind=kind, config=dict(config or {}), parent_run_id=parent.id if parent else None)
        run.parent_step = parent_step
        session.add(run)
    elif run.kind != kind:
        raise Conflict(
            "The name '%(name)s' belongs to a run of the kind '%(kind)s'. Choose another name.",
            name=name,
            kind=run.kind,
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
    """Record scalars of one step; a step logged again after a resume replaces the earlier value."""
    if not values:
        return
    rows = [
        {"run_id": run.id, "key": key, "step": step, "value": value, "tokens_seen": tokens_seen, "created_at": utcnow()}
        for key, value in values.items()
    ]
    dialect = postgresql if session.get_bind().dialect.name == "postgresql" else sqlite
    insert = dialect.insert(MetricPoint).values(rows)
    session.execute(
        insert.on_conflict_do_update(
            index_elements=["run_id", "key", "step"],
            set_={name: insert.excluded[name] for name in ("value", "tokens_seen", "created_at")},
        )
    )
    beat(session, run)


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


def thinned_metrics(
    session: Session, run: Run, keys: Sequence[str] | None = None, limit: int = 160
) -> dict[str, list[MetricSpan]]:
    """Scalars of a run as at most `limit` spans of steps each, by key; a run of a million steps is one small answer."""
    last = session.scalar(select(func.max(MetricPoint.step)).where(MetricPoint.run_id == run.id)) or 0
    span = MetricPoint.step * limit // (last + 1)
    query = (
        select(
            MetricPoint.key,
            func.max(MetricPoint.step),
            func.max(MetricPoint.tokens_seen),
            func.max(MetricPoint.created_at),
            func.avg(MetricPoint.value),
            func.min(MetricPoint.value),
            func.max(MetricPoint.value),
            func.count(),
        )
        .where(MetricPoint.run_id == run.id)
        .group_by(MetricPoint.key, span)
        .order_by(MetricPoint.key, span)
    )
    if keys is not None:
        query = query.where(MetricPoint.key.in_(keys))
    spans: dict[str, list[MetricSpan]] = {}
    for key, *values in session.execute(query):
        spans.setdefault(key, []).append(MetricSpan(*values))
    return spans


def metric_keys(session: Session, run: Run) -> list[str]:
    """The scalars this run has logged."""
    query = select(MetricPoint.key).where(MetricPoint.run_id == run.id).distinct().order_by(MetricPoint.key)
    return list(session.scalars(query))


def last_step(session: Session, run: Run) -> MetricPoint | None:
    """The newest training point, for "step 812 of 6,000"."""
    query = select(MetricPoint).where(MetricPoint.run_id == run.id, MetricPoint.key == "train/loss")
    return session.scalar(query.order_by(MetricPoint.step.desc()).limit(1))


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
