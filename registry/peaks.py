"""Verbs of measured memory: what a worker saw an engine hold, by architecture."""

from collections.abc import Sequence

from sqlalchemy import select
from sqlalchemy.orm import Session

from registry.models import Checkpoint, MemoryPeak
from registry.models.base import utcnow


def note(session: Session, seen: MemoryPeak) -> None:
    """Keep a figure where it is the highest of its architecture, engine, number format and device."""
    known = session.scalar(
        select(MemoryPeak).where(
            MemoryPeak.architecture == seen.architecture,
            MemoryPeak.engine == seen.engine,
            MemoryPeak.dtype == seen.dtype,
            MemoryPeak.device == seen.device,
        )
    )
    if known is None:
        session.add(seen)
    elif known.num_bytes < seen.num_bytes:
        known.num_bytes, known.kv_tokens, known.step_tokens = seen.num_bytes, seen.kv_tokens, seen.step_tokens
        known.checkpoint_id, known.measured_at = seen.checkpoint_id, utcnow()


def of_architecture(session: Session, architecture: str) -> Sequence[MemoryPeak]:
    """Every figure of an architecture, the newest first."""
    query = select(MemoryPeak).where(MemoryPeak.architecture == architecture)
    return session.scalars(query.order_by(MemoryPeak.measured_at.desc(), MemoryPeak.id.desc())).all()


def checkpoint_in(session: Session, folder: str) -> Checkpoint | None:
    """The checkpoint whose files are in a folder, relative to `Settings.checkpoints_dir`."""
    return session.scalar(select(Checkpoint).where(Checkpoint.folder == folder).limit(1))
