"""Verbs of checkpoints."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sqlalchemy import delete, func, select
from sqlalchemy.orm import Session

from registry import jobs
from registry.errors import Conflict, NotFound, name_list
from registry.models import Checkpoint, Evaluation, Run, Ticket
from registry.models.base import READY, REJECTED, VERIFYING
from registry.settings import get_settings
from registry.store import Manifest


def register(
    session: Session,
    run: Run,
    *,
    step: int,
    folder: str,
    manifest: Manifest,
    kind: str = "pretrained",
    precision: int = 16,
    num_parameters: int | None = None,
) -> Checkpoint:
    """Make a sealed checkpoint known and have a worker verify it. The same files twice are one checkpoint.

    `folder` is relative to `Settings.checkpoints_dir`; tokens and FLOPs come from the manifest's facts.

    Raises:
        Conflict: the step holds other files already, and they were not rejected.
    """
    known = _find(session, run, step, kind, precision)
    if known is not None and known.state == REJECTED:
        _forget(session, known)
        known = None
    if known is not None:
        if known.digest != manifest.digest:
            raise Conflict(
                "%(checkpoint)s exists already with other files. Choose another step or another run.",
                checkpoint=known.label,
            )
        return known
    checkpoint = Checkpoint(
        run=run,
        step=step,
        kind=kind,
        precision=precision,
        tokens_seen=manifest.facts.get("tokens_seen"),
        flops=manifest.facts.get("flops"),
        folder=folder,
        digest=manifest.digest,
        manifest=manifest.as_json(),
        size_bytes=manifest.size_bytes,
        num_parameters=num_parameters,
    )
    session.add(checkpoint)
    session.flush()  # the job carries the id
    jobs.defer(session, jobs.VERIFY, checkpoint.id)
    return checkpoint


def _forget(session: Session, rejected: Checkpoint) -> None:
    """Make room for a mended one. Nothing was ever asked of a rejected checkpoint, so nothing is lost."""
    session.execute(delete(Ticket).where(Ticket.checkpoint_id == rejected.id))
    session.execute(delete(Evaluation).where(Evaluation.checkpoint_id == rejected.id))
    session.delete(rejected)
    session.flush()  # the new row has the same run, step, kind and precision


def _find(session: Session, run: Run, step: int, kind: str, precision: int) -> Checkpoint | None:
    query = select(Checkpoint).where(
        Checkpoint.run_id == run.id,
        Checkpoint.step == step,
        Checkpoint.kind == kind,
        Checkpoint.precision == precision,
    )
    return session.scalar(query)


def get_checkpoint(
    session: Session, run: Run, step: int, kind: str | None = None, precision: int | None = None
) -> Checkpoint:
    """The checkpoint of a run at a step; the pretrained 16-bit one where several stand there.

    Raises:
        NotFound: with the steps that exist.
    """
    query = select(Checkpoint).where(Checkpoint.run_id == run.id, Checkpoint.step == step)
    if kind is not None:
        query = query.where(Checkpoint.kind == kind)
    if precision is not None:
        query = query.where(Checkpoint.precision == precision)
    found = session.scalars(query.order_by(Checkpoint.kind.desc(), Checkpoint.precision.desc())).first()
    if found is None:
        steps = session.scalars(
            select(Checkpoint.step).where(Checkpoint.run_id == run.id).distinct().order_by(Checkpoint.step)
        )
        raise NotFound(
            "Run '%(run)s' has no checkpoint at step %(step)s. Steps: %(known)s.",
            run=run.name,
            step=step,
            known=name_list([str(s) for s in steps]),
        )
    return found


def get_by_id(session: Session, checkpoint_id: int) -> Checkpoint:
    """The checkpoint of that id.

    Raises:
        NotFound: there is none.
    """
    checkpoint = session.get(Checkpoint, checkpoint_id)
    if checkpoint is None:
        raise NotFound(
            "There is no checkpoint with the id %(checkpoint_id)s. /api/v1/runs lists the runs that have some.",
            checkpoint_id=checkpoint_id,
        )
    return checkpoint


def list_checkpoints(
    session: Session, run: Run | None = None, states: Sequence[str] = (READY,), kind: str | None = None
) -> Sequence[Checkpoint]:
    """Checkpoints in the given states, by run and step."""
    query = select(Checkpoint).where(Checkpoint.state.in_(states))
    if run is not None:
        query = query.where(Checkpoint.run_id == run.id)
    if kind is not None:
        query = query.where(Checkpoint.kind == kind)
    return session.scalars(query.order_by(Checkpoint.run_id, Checkpoint.step, Checkpoint.kind, Checkpoint.id)).all()


def newest(session: Session, kind: str | None = None, limit: int = 1) -> Sequence[Checkpoint]:
    """The ready checkpoints that arrived last."""
    query = select(Checkpoint).where(Checkpoint.state == READY)
    if kind is not None:
        query = query.where(Checkpoint.kind == kind)
    return session.scalars(query.order_by(Checkpoint.created_at.desc(), Checkpoint.id.desc()).limit(limit)).all()


def previous(session: Session, checkpoint: Checkpoint) -> Checkpoint | None:
    """The ready checkpoint just before this one in its run, of the same kind and precision."""
    query = select(Checkpoint).where(
        Checkpoint.run_id == checkpoint.run_id,
        Checkpoint.kind == checkpoint.kind,
        Checkpoint.precision == checkpoint.precision,
        Checkpoint.state == READY,
        Checkpoint.step < checkpoint.step,
    )
    return session.scalar(query.order_by(Checkpoint.step.desc()).limit(1))


def unverified(session: Session) -> Sequence[Checkpoint]:
    """Those that wait for a worker's verdict."""
    return session.scalars(select(Checkpoint).where(Checkpoint.state == VERIFYING).order_by(Checkpoint.id)).all()


def count_by_state(session: Session) -> dict[str, int]:
    """How many checkpoints are in each state."""
    rows: Any = session.execute(select(Checkpoint.state, func.count()).group_by(Checkpoint.state)).all()
    return {state: number for state, number in rows}


def path(checkpoint: Checkpoint) -> Path:
    """Where the files are."""
    return get_settings().checkpoints_dir / checkpoint.folder


def mark_ready(session: Session, checkpoint: Checkpoint, num_parameters: int) -> None:
    """Everything may use it now; wakes the workers for the evaluations that waited for this."""
    checkpoint.state, checkpoint.reason, checkpoint.num_parameters = READY, "", num_parameters
    jobs.defer(session, jobs.WORK)


def mark_rejected(session: Session, checkpoint: Checkpoint, reason: str) -> None:
    """Nothing may use it; `reason` is a sentence for whoever made it.

    Its folder steps aside, where one can still look at it, so that a mended one can take the place.
    """
    aside = f"{checkpoint.folder}.rejected-{checkpoint.id}"
    if path(checkpoint).exists():
        path(checkpoint).rename(get_settings().checkpoints_dir / aside)
        checkpoint.folder = aside
    checkpoint.state, checkpoint.reason = REJECTED, reason
