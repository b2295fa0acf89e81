"""Verbs of quantized checkpoints: which are made, and that they are made; each is a checkpoint of its own.

`run@8000-4bit` stands beside `run@8000`: of the same step, verified and evaluated like any other, never in its place.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from sqlalchemy import select
from sqlalchemy.orm import Session

from registry import audit, checkpoints, evaluations, joblog, quantized
from registry.errors import Conflict, Invalid
from registry.models import Checkpoint, Job, User
from registry.models.base import READY, REJECTED, RETIRED
from registry.models.checkpoints import QUANTIZATION
from registry.settings import get_settings
from registry.store import Manifest

PRECISIONS = (8, 4)
"""Bits that a released checkpoint is also offered in."""
ROLE = "quantization"
MAX_LOSS = {8: 0.1, 4: 0.5}
"""Nats a token that a form may lose on text of the training corpus; more is no rounding error but a broken model."""


class Form(NamedTuple):
    """A precision of a checkpoint, and how far it is."""

    bits: int
    checkpoint: Checkpoint | None
    """Not one that was retired."""
    job: Job | None
    """The last one that was asked to make it."""


def plan(session: Session, checkpoint: Checkpoint, bits: int, user: User | None = None) -> Job:
    """Ask for a checkpoint in fewer bits.

    Raises:
        Invalid: there is no such precision.
        Conflict: it is not ready, is quantized itself, or is there in this precision already.
    """
    if bits not in PRECISIONS:
        raise Invalid(
            "There is no %(bits)s bit here; possible are %(known)s.",
            bits=bits,
            known=", ".join(map(str, PRECISIONS)),
        )
    if checkpoint.precision != quantized.PLAIN_BITS:
        raise Conflict("%(checkpoint)s is quantized already.", checkpoint=checkpoint.label)
    if checkpoint.state != READY:
        raise Conflict("%(checkpoint)s is not ready, so it cannot be quantized.", checkpoint=checkpoint.label)
    known = made(session, checkpoint).get(bits)
    if known is not None:
        raise Conflict("%(checkpoint)s is there already.", checkpoint=known.label)
    return joblog.plan(session, joblog.QUANTIZE, checkpoint=checkpoint, args={"bits": bits}, user=user)


def release_if_due(session: Session, checkpoint: Checkpoint) -> bool:
    """Release a checkpoint that has become ready, where `Settings.release` says so; True where it was."""
    rule = get_settings().release
    if rule == "none" or checkpoint.state != READY or checkpoint.origin == QUANTIZATION:
        return False
    last = checkpoint.run.max_steps is not None and checkpoint.step >= checkpoint.run.max_steps
    if rule == "milestones" and not (checkpoint.is_milestone or last):
        return False
    checkpoints.release(session, checkpoint)
    plan_missing(session, [checkpoint])
    return True


def plan_missing(session: Session, of: Sequence[Checkpoint] | None = None) -> list[Job]:
    """Ask for every form of released checkpoints that was never asked for; whoever released them, and however.

    What failed or was cancelled waits for somebody to try again.
    """
    query = select(Checkpoint).where(
        Checkpoint.is_released, Checkpoint.state == READY, Checkpoint.precision == quantized.PLAIN_BITS
    )
    if of is not None:
        session.flush()  # they may have been released a moment ago
        query = query.where(Checkpoint.id.in_([one.id for one in of]))
    found = session.scalars(query.order_by(Checkpoint.id)).all()
    if not found:
        return []
    asked = {
        (job.checkpoint_id, job.args.get("bits"))
        for job in session.scalars(
            select(Job).where(Job.kind == joblog.QUANTIZE, Job.checkpoint_id.in_([one.id for one in found]))
        )
    }
    planned = []
    for checkpoint in found:
        missing = [bits for bits in PRECISIONS if (checkpoint.id, bits) not in asked]
        known = made(session, checkpoint, without=(RETIRED,)) if missing else {}
        planned += [plan(session, checkpoint, bits) for bits in missing if bits not in known]
    return planned


def forms(session: Session, checkpoint: Checkpoint) -> list[Form]:
    """The other precisions of a 16-bit checkpoint: made, being made, or failed; not those that nobody asked for."""
    known = made(session, checkpoint, without=(RETIRED,))
    jobs: dict[int, Job] = {}
    for job in joblog.list_jobs(session, kind=joblog.QUANTIZE, checkpoint=checkpoint):
        jobs.setdefault(int(job.args.get("bits", 0)), job)
    return [Form(bits, known.get(bits), jobs.get(bits)) for bits in PRECISIONS if bits in known or bits in jobs]


def parent_of(session: Session, checkpoint: Checkpoint) -> Checkpoint | None:
    """The 16-bit checkpoint that a quantized one stands beside: of the same run, step and kind."""
    if checkpoint.precision == quantized.PLAIN_BITS:
        return None
    query = select(Checkpoint).where(
        Checkpoint.run_id == checkpoint.run_id,
        Checkpoint.step == checkpoint.step,
        Checkpoint.kind == checkpoint.kind,
        Checkpoint.precision == quantized.PLAIN_BITS,
    )
    return session.scalar(query)


def folder_of(checkpoint: Checkpoint, bits: int) -> str:
    """Where its form in so many bits will lie, relative to `Settings.checkpoints_dir`."""
    return f"{checkpoint.run.name}/step-{checkpoint.step}{_suffix(checkpoint.kind)}-{bits}bit"


def _suffix(kind: str) -> str:
    return "" if kind == "pretrained" else f"-{kind}"


def keep(
    session: Session,
    parent: Checkpoint,
    bits: int,
    *,
    folder: str,
    manifest: Manifest,
    derivation: Mapping[str, Any],
    user_id: int | None,
) -> Checkpoint:
    """Register a sealed form of a checkpoint, with where it came from and its evaluations.

    Raises:
        Conflict: it is there already with other files.
    """
    child = checkpoints.register(
        session,
        parent.run,
        step=parent.step,
        folder=folder,
        manifest=manifest,
        kind=parent.kind,
        precision=bits,
        num_parameters=parent.num_parameters,
    )
    child.origin, child.user_id, child.derivation = QUANTIZATION, user_id, dict(derivation)
    child.is_released = parent.is_released
    checkpoints.add_parents(session, child, [parent], ROLE)
    evaluations.plan(session, child)
    user = session.get(User, user_id) if user_id is not None else None
    detail = {"origin": QUANTIZATION, "of": parent.label, "bytes": child.size_bytes}
    audit.note(session, user, "checkpoint", f"checkpoint:{child.id}", detail)
    return child


def made(
    session: Session, checkpoint: Checkpoint, *, without: Sequence[str] = (REJECTED, RETIRED)
) -> dict[int, Checkpoint]:
    """The forms of a 16-bit checkpoint that a job need not make, by their bits; one that was rejected is made anew."""
    query = select(Checkpoint).where(
        Checkpoint.run_id == checkpoint.run_id,
        Checkpoint.step == checkpoint.step,
        Checkpoint.kind == checkpoint.kind,
        Checkpoint.precision.in_(PRECISIONS),
        Checkpoint.state.not_in(without),
    )
    return {one.precision: one for one in session.scalars(query)}
