"""Verbs of checkpoints."""

import os
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from sqlalchemy import case, delete, func, select
from sqlalchemy.orm import Session

from registry import aliases, audit, db, jobs, remote, runs, store, webhooks
from registry.errors import Conflict, Invalid, NotFound, name_list
from registry.models import Checkpoint, CheckpointParent, Evaluation, Run, Ticket
from registry.models.base import EXTERNAL, FINISHED, READY, REJECTED, RETIRED, SCORED, VERIFYING
from registry.models.checkpoints import QUANTIZATION
from registry.settings import get_settings
from registry.store import MANIFEST, Manifest

LABEL = re.compile(
    r"(?P<run>[^@]+)@(?:(?P<step>\d{1,18})|(?P<alias>[a-z][a-z0-9._-]*?))"
    r"(?:-(?P<kind>chat|avg\d{1,2}))?(?:-(?P<bits>\d{1,2})bit)?"
)


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
    if known is not None and known.state == REJECTED and not _has_results(session, known):
        _forget(session, known)
        known = None
    is_back = known is not None and known.state == RETIRED and known.digest == manifest.digest
    if known is not None and (known.state in (EXTERNAL, REJECTED) or is_back):
        # Its results came first, now the files do; or files that were deleted come back: the results stay with it.
        _adopt(known, folder, manifest, num_parameters)
        jobs.defer(session, jobs.VERIFY, known.id)
        return known
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
        weights_digest=manifest.weights_digest,
        manifest=manifest.as_json(),
        size_bytes=manifest.size_bytes,
        num_parameters=num_parameters,
    )
    session.add(checkpoint)
    session.flush()  # the job carries the id
    jobs.defer(session, jobs.VERIFY, checkpoint.id)
    return checkpoint


def _has_results(session: Session, checkpoint: Checkpoint) -> bool:
    query = select(Evaluation.id).where(Evaluation.checkpoint_id == checkpoint.id, Evaluation.status == FINISHED)
    return session.scalar(query.limit(1)) is not None


def _adopt(known: Checkpoint, folder: str, manifest: Manifest, num_parameters: int | None) -> None:
    known.tokens_seen = manifest.facts.get("tokens_seen") or known.tokens_seen
    known.flops, known.folder, known.digest = manifest.facts.get("flops"), folder, manifest.digest
    known.weights_digest, known.manifest, known.size_bytes = (
        manifest.weights_digest,
        manifest.as_json(),
        manifest.size_bytes,
    )
    known.num_parameters, known.state = num_parameters, VERIFYING


def register_external(
    session: Session,
    run: Run,
    *,
    step: int,
    tokens_seen: int | None = None,
    kind: str = "pretrained",
    precision: int = 16,
) -> Checkpoint:
    """A checkpoint that is known by its results alone; one that is registered already is given as it is."""
    known = _find(session, run, step, kind, precision)
    if known is not None:
        return known
    checkpoint = Checkpoint(run=run, step=step, kind=kind, precision=precision, tokens_seen=tokens_seen)
    checkpoint.folder, checkpoint.digest, checkpoint.manifest, checkpoint.state = "", "", {}, EXTERNAL
    session.add(checkpoint)
    session.flush()  # evaluations carry the id
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


def by_label(session: Session, label: str) -> Checkpoint:
    """The checkpoint that calls itself so; of `run@step` alone the pretrained one where there are several.

    In place of the step an alias of the run may stand: `run@stable`, `run@latest-4bit`.

    Raises:
        NotFound: it is no label, or there is no such run, step or alias.
    """
    match = LABEL.fullmatch(label)
    if match is None:
        raise NotFound("'%(name)s' names no checkpoint: write run@step.", name=label[:80])
    run = runs.get_run(session, match["run"])
    if match["alias"] is None:
        return get_checkpoint(session, run, int(match["step"]), match["kind"], int(match["bits"] or 16))
    named = aliases.resolve(session, run, match["alias"])
    if match["kind"] is None and match["bits"] is None:
        return named
    bits = int(match["bits"] or named.precision)
    return get_checkpoint(session, run, named.step, match["kind"] or named.kind, bits)


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


class Extent(NamedTuple):
    """How far the checkpoints of a run reach, those that are ready and those known by imported results alone."""

    num: int
    num_ready: int
    step: int
    tokens_seen: int
    newest: Checkpoint | None
    """Of those that are ready, without averages."""


def extent(session: Session, run: Run) -> Extent:
    """Without loading them: a run may have thousands."""
    is_ready = Checkpoint.state == READY
    figures = (func.sum(case((is_ready, 1), else_=0)), func.max(Checkpoint.step), func.max(Checkpoint.tokens_seen))
    query = select(func.count(), *figures).where(Checkpoint.run_id == run.id, Checkpoint.state.in_(SCORED))
    num, num_ready, step, tokens = session.execute(query).one()
    last = select(Checkpoint).where(Checkpoint.run_id == run.id, is_ready, ~Checkpoint.kind.startswith("avg"))
    last = last.where(Checkpoint.origin != QUANTIZATION)
    newest = session.scalar(last.order_by(Checkpoint.step.desc(), Checkpoint.id.desc()).limit(1)) if num_ready else None
    return Extent(num, num_ready or 0, step or 0, tokens or 0, newest)


def newest(session: Session, kind: str | None = None, limit: int = 1) -> Sequence[Checkpoint]:
    """The ready checkpoints that arrived last, without what was made of them by quantization."""
    query = select(Checkpoint).where(Checkpoint.state == READY, Checkpoint.origin != QUANTIZATION)
    if kind is not None:
        query = query.where(Checkpoint.kind == kind)
    return session.scalars(query.order_by(Checkpoint.created_at.desc(), Checkpoint.id.desc()).limit(limit)).all()


def previous(session: Session, checkpoint: Checkpoint) -> Checkpoint | None:
    """The checkpoint just before this one in its run, of the same kind and precision; its files may be deleted."""
    query = select(Checkpoint).where(
        Checkpoint.run_id == checkpoint.run_id,
        Checkpoint.kind == checkpoint.kind,
        Checkpoint.precision == checkpoint.precision,
        Checkpoint.state.in_((READY, RETIRED)),
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


def ensure_local(folder: Path) -> Path:
    """The folder of a checkpoint, fetched from the blob store where it is not on this disk; it may take minutes.

    Opens a session of its own where it has to look, so call it outside of one. Without a store it is what it is.

    Raises:
        NotFound: it is neither here nor in a store.
        NoRoom: the disk has no room for it.
        Invalid: the store gives other bytes than were put there.
        Away: the store does not answer.
    """
    if not remote.is_set() or _is_touched(folder):
        return folder
    with db.read_session() as session:
        known = session.scalar(select(Checkpoint).where(Checkpoint.folder == _relative(folder)).limit(1))
    if known is None:
        raise NotFound("There is no checkpoint in the folder %(file)s.", file=folder.name)
    store.ensure_local(folder, store.parse_manifest(known.manifest))
    return folder


def ensure_file(checkpoint: Checkpoint, name: str) -> Path:
    """One file of a checkpoint, fetched from the blob store where it is not on this disk.

    Raises:
        NotFound: the checkpoint has no such file, or it is neither here nor in a store.
        NoRoom: the disk has no room for it.
        Invalid: the store gives other bytes than were put there.
        Away: the store does not answer.
    """
    file, entry = path(checkpoint) / name, checkpoint.manifest.get("files", {}).get(name)
    if entry is None:
        raise NotFound("%(checkpoint)s has no file %(name)s.", checkpoint=checkpoint.label, name=name[:80])
    return file if file.exists() or not remote.is_set() else remote.fetch(entry["sha256"], entry["size"])


def _is_touched(folder: Path) -> bool:
    """Whether it is here; who was used last leaves last, see `registry.cache`."""
    try:
        os.utime(folder / MANIFEST)
    except FileNotFoundError:
        return False
    return True


def _relative(folder: Path) -> str:
    return folder.absolute().relative_to(get_settings().checkpoints_dir.absolute()).as_posix()


def mark_ready(session: Session, checkpoint: Checkpoint, num_parameters: int, tokenizer: str = "") -> None:
    """Everything may use it now; wakes the workers for the evaluations that waited for this."""
    checkpoint.state, checkpoint.reason, checkpoint.num_parameters = READY, "", num_parameters
    checkpoint.tokenizer = tokenizer
    jobs.defer(session, jobs.WORK)
    if webhooks.wants(session, webhooks.CHECKPOINT_READY):
        about = webhooks.about_checkpoint(checkpoint)
        webhooks.tell(session, webhooks.CHECKPOINT_READY, about, once=f"checkpoint:{checkpoint.id}")


def mark_rejected(session: Session, checkpoint: Checkpoint, reason: str) -> None:
    """Nothing may use it; `reason` is a sentence for whoever made it.

    Its folder steps aside, where one can still look at it, so that a mended one can take the place.
    """
    aside = f"{checkpoint.folder}.rejected-{checkpoint.id}"
    if path(checkpoint).exists():
        path(checkpoint).rename(get_settings().checkpoints_dir / aside)
        checkpoint.folder = aside
    checkpoint.state, checkpoint.reason = REJECTED, reason
    audit.note(session, None, "reject", f"checkpoint:{checkpoint.id}", {"label": checkpoint.label, "reason": reason})


def release(session: Session, checkpoint: Checkpoint, *, is_released: bool = True) -> None:
    """Offer a checkpoint to the public, or no longer.

    Raises:
        Conflict: it is not ready.
    """
    if is_released and checkpoint.state != READY:
        raise Conflict("%(checkpoint)s is not ready, so it cannot be released.", checkpoint=checkpoint.label)
    checkpoint.is_released = is_released
    forms = select(CheckpointParent.child_id).where(
        CheckpointParent.parent_id == checkpoint.id, CheckpointParent.role == QUANTIZATION
    )
    for form in session.scalars(select(Checkpoint).where(Checkpoint.id.in_(forms))):
        form.is_released = is_released


def add_parents(session: Session, child: Checkpoint, parents: Iterable[Checkpoint], role: str) -> None:
    """Note what a checkpoint was made from, and how: `quantization`, `average` or `fine-tune`."""
    known = set(session.scalars(select(CheckpointParent.parent_id).where(CheckpointParent.child_id == child.id)))
    for parent in parents:
        if parent.id not in known:
            session.add(CheckpointParent(child_id=child.id, parent_id=parent.id, role=role))


def check_files(checkpoint: Checkpoint) -> None:
    """Whether its files were deleted.

    Raises:
        NotFound: they were; the checkpoint is known by its results.
    """
    if checkpoint.state == RETIRED:
        raise NotFound(
            "The files of %(checkpoint)s were deleted. Its scores stay; choose another checkpoint.",
            checkpoint=checkpoint.label,
        )


def check_usable(checkpoint: Checkpoint) -> None:
    """Whether an engine can be asked with it.

    Raises:
        Conflict: it is not ready.
    """
    if checkpoint.state == RETIRED:
        raise Conflict(
            "The files of %(checkpoint)s were deleted, so it can no longer answer. Choose another checkpoint.",
            checkpoint=checkpoint.label,
        )
    if checkpoint.state != READY:
        raise Conflict(
            "%(checkpoint)s is %(state)s and cannot answer. Choose another checkpoint.",
            checkpoint=checkpoint.label,
            state=checkpoint.state,
        )


def check_tokenizer(session: Session, checkpoint: Checkpoint) -> None:
    """Whether a checkpoint reads text as the others of its run do.

    Raises:
        Invalid: its tokenizer is another one than that of the first checkpoint of its run and kind.
    """
    query = select(Checkpoint).where(
        Checkpoint.run_id == checkpoint.run_id,
        Checkpoint.kind == checkpoint.kind,
        Checkpoint.state == READY,
        Checkpoint.tokenizer != "",
    )
    first = session.scalars(query.order_by(Checkpoint.id).limit(1)).first()
    if first is not None and checkpoint.tokenizer and first.tokenizer != checkpoint.tokenizer:
        raise Invalid(
            "The tokenizer of %(checkpoint)s (%(own)s) is not the one of %(first)s (%(other)s): scores of one run "
            "must come from one tokenizer. Push this checkpoint into a run of its own.",
            checkpoint=checkpoint.label,
            own=checkpoint.tokenizer,
            first=first.label,
            other=first.tokenizer,
        )
