"""What lists of checkpoints show, without the rest of their rows: a run has thousands, each with a manifest."""

import datetime as dt
from collections.abc import Sequence
from typing import Any, NamedTuple

from sqlalchemy import JSON, Text, cast, func, select
from sqlalchemy.orm import Session

from registry.errors import NotFound
from registry.models import Checkpoint, HubRepo, Run
from registry.models.base import READY
from registry.models.checkpoints import label_of


class Item(NamedTuple):
    """A checkpoint in a list."""

    id: int
    run: str
    step: int
    kind: str
    precision: int
    state: str
    tokens_seen: int | None
    num_parameters: int | None
    size_bytes: int
    digest: str
    is_released: bool
    created_at: dt.datetime

    @property
    def label(self) -> str:
        """`run@step`, with kind and precision where they are not the usual ones."""
        return label_of(self.run, self.step, self.kind, self.precision)

    @property
    def revision(self) -> str:
        """Its name as a revision of the Hub protocol: `step-8000`, `step-8000-chat-4bit`."""
        return "step-" + self.label.rpartition("@")[2]


def revision_of(checkpoint: Checkpoint) -> str:
    """Its name as a revision of the Hub protocol: `step-8000`, `step-8000-chat-4bit`."""
    return "step-" + checkpoint.label.rpartition("@")[2]


class Model(NamedTuple):
    """A run of which something can be downloaded."""

    run: str
    namespace: str
    """What stands before the name in the Hub protocol; may be empty."""
    num_parameters: int | None
    num_checkpoints: int
    created_at: dt.datetime
    last_at: dt.datetime
    """When its newest checkpoint came."""


def items(session: Session, run: Run | None = None, states: Sequence[str] = (READY,)) -> list[Item]:
    """Checkpoints in the given states, by run and step."""
    columns = [getattr(Checkpoint, name) for name in Item._fields if name != "run"]
    query = select(columns[0], Run.name, *columns[1:]).join(Run, Run.id == Checkpoint.run_id)
    query = query.where(Checkpoint.state.in_(states))
    if run is not None:
        query = query.where(Checkpoint.run_id == run.id)
    order = (Checkpoint.run_id, Checkpoint.step, Checkpoint.kind, Checkpoint.id)
    return [Item(*row) for row in session.execute(query.order_by(*order))]


def columns(session: Session, run: Run, states: Sequence[str], names: Sequence[str]) -> list[dict[str, Any]]:
    """Some columns of a run's checkpoints by step, as they are; JSON is given as its text, which is not read."""
    chosen = []
    for name in names:
        column = getattr(Checkpoint, name)
        chosen.append(cast(column, Text).label(name) if isinstance(column.type, JSON) else column)
    query = select(*chosen).where(Checkpoint.run_id == run.id, Checkpoint.state.in_(states))
    rows = session.execute(query.order_by(Checkpoint.step, Checkpoint.kind, Checkpoint.id))
    return [dict(row) for row in rows.mappings()]


def models(session: Session, search: str = "") -> list[Model]:
    """The runs that have a ready checkpoint, the one that got one last first; `search` is a part of the name."""
    last, namespace = func.max(Checkpoint.created_at), func.coalesce(HubRepo.namespace, "")
    query = (
        select(Run.name, namespace, Run.num_parameters, func.count(), func.min(Checkpoint.created_at), last)
        .join(Checkpoint, Checkpoint.run_id == Run.id)
        .outerjoin(HubRepo, HubRepo.run_id == Run.id)
        .where(Checkpoint.state == READY)
        .group_by(Run.id, Run.name, namespace, Run.num_parameters)
        .order_by(last.desc(), Run.id.desc())
    )
    if search:
        query = query.where(Run.name.contains(search.lower(), autoescape=True))
    return [Model(*row) for row in session.execute(query)]


def by_digest(session: Session, digest: str) -> Checkpoint:
    """A ready checkpoint with exactly these files; of several that have the same ones, the first.

    Raises:
        NotFound: there is none, or it may not be shown.
    """
    query = select(Checkpoint).where(Checkpoint.digest == digest, Checkpoint.state == READY).order_by(Checkpoint.id)
    checkpoint = session.scalars(query.limit(1)).first()
    if checkpoint is None:
        raise NotFound("There is no checkpoint '%(name)s' that can be downloaded.", name=digest[:16])
    return checkpoint
