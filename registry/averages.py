"""Averaged checkpoints: the mean of the weights of the last few of a run, a checkpoint of its own kind.

Averages of neighbouring checkpoints are often better than each of them (Izmailov et al., 2018, arXiv:1803.05407;
Sanyal et al., 2023, arXiv:2306.03241). The mean of five that ends at step 8000 is `run@8000-avg5`.
"""

import re
from collections.abc import Sequence
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from registry import audit, checkpoints, evaluations, joblog
from registry.errors import Conflict, Invalid
from registry.models import Checkpoint, Job, Run, User
from registry.models.base import READY, REJECTED, RETIRED
from registry.models.checkpoints import AVERAGE
from registry.settings import get_settings
from registry.store import Manifest

KIND = re.compile(r"avg([1-9]\d?)")
MIN_LAST, MAX_LAST = 2, 50
_PLAIN = ("pretrained", 16)
"""Kind and precision of what is averaged."""


def kind_of(last: int) -> str:
    """The kind of a mean of so many checkpoints."""
    return f"avg{last}"


def plan(session: Session, run: Run, *, last: int, until: int | None = None, user: User | None = None) -> Job:
    """Ask for the mean of the last so many checkpoints of a run, of those up to the step `until` where given.

    Raises:
        Invalid: too few or too many.
        NotFound: there is no ready checkpoint at that step.
        Conflict: there are not so many; or the mean is there already.
    """
    if not MIN_LAST <= last <= MAX_LAST:
        raise Invalid("An average is of %(least)s to %(most)s checkpoints.", least=MIN_LAST, most=MAX_LAST)
    if until is not None:
        checkpoints.get_checkpoint(session, run, until, "pretrained", 16)  # a sentence with the steps there are
    parents = find_parents(session, run, last, until)
    newest = parents[-1]
    if known := _known(session, newest, last):
        raise Conflict("%(checkpoint)s is there already.", checkpoint=known.label)
    return joblog.plan(session, joblog.AVERAGE, checkpoint=newest, args={"last": last, "until": newest.step}, user=user)


def plan_for_milestone(session: Session, checkpoint: Checkpoint) -> Job | None:
    """The average that the site makes by itself when a milestone is ready; None where there is none to make."""
    last = get_settings().average_last
    is_due = last >= MIN_LAST and checkpoint.is_milestone and (checkpoint.kind, checkpoint.precision) == _PLAIN
    if not is_due or len(_usable(session, checkpoint.run, last, checkpoint.step)) < last:
        return None
    return (
        None if _known(session, checkpoint, last) else plan(session, checkpoint.run, last=last, until=checkpoint.step)
    )


def find_parents(session: Session, run: Run, last: int, until: int | None = None) -> Sequence[Checkpoint]:
    """The ready pretrained checkpoints that an average is made from, by step.

    Raises:
        Conflict: there are not so many.
    """
    found = _usable(session, run, last, until)
    if len(found) < last:
        raise Conflict(
            "'%(run)s' has %(found)s ready checkpoints up to there; an average of %(last)s needs as many.",
            run=run.name,
            found=len(found),
            last=last,
        )
    return found


def wanted_parents(session: Session, run: Run) -> set[int]:
    """Ids of the checkpoints that averages which are still to be made will be made from."""
    found: set[int] = set()
    for job in joblog.list_jobs(session, statuses=joblog.OPEN, kind=joblog.AVERAGE):
        if job.checkpoint is not None and job.checkpoint.run_id == run.id:
            found |= {one.id for one in _usable(session, run, job.args["last"], job.args["until"])}
    return found


def register(
    session: Session,
    run: Run,
    parents: Sequence[Checkpoint],
    *,
    folder: str,
    manifest: Manifest,
    derivation: dict[str, Any],
    user_id: int | None,
) -> Checkpoint:
    """Make a sealed average known, with what it was made from, and queue its evaluations.

    Raises:
        Conflict: there is another one of that name.
    """
    newest = parents[-1]
    checkpoint = checkpoints.register(
        session, run, step=newest.step, folder=folder, manifest=manifest, kind=kind_of(len(parents))
    )
    checkpoint.origin, checkpoint.derivation, checkpoint.user_id = AVERAGE, derivation, user_id
    checkpoints.add_parents(session, checkpoint, parents, "average")
    evaluations.plan(session, checkpoint)
    detail = {"origin": AVERAGE, "parents": [one.step for one in parents], "bytes": checkpoint.size_bytes}
    actor = session.get(User, user_id) if user_id is not None else None
    audit.note(session, actor, "checkpoint", f"checkpoint:{checkpoint.id}", detail)
    return checkpoint


def _usable(session: Session, run: Run, last: int, until: int | None) -> Sequence[Checkpoint]:
    """The last so many by step, the oldest first; of a run that went on from a rewind its own ones alone."""
    kind, precision = _PLAIN
    query = select(Checkpoint).where(
        Checkpoint.run_id == run.id,
        Checkpoint.state == READY,
        Checkpoint.kind == kind,
        Checkpoint.precision == precision,
    )
    if until is not None:
        query = query.where(Checkpoint.step <= until)
    return session.scalars(query.order_by(Checkpoint.step.desc()).limit(last)).all()[::-1]


def _known(session: Session, newest: Checkpoint, last: int) -> Checkpoint | None:
    query = select(Checkpoint).where(
        Checkpoint.run_id == newest.run_id,
        Checkpoint.step == newest.step,
        Checkpoint.kind == kind_of(last),
        Checkpoint.precision == 16,
        Checkpoint.state.not_in((REJECTED, RETIRED)),
    )
    return session.scalar(query)
