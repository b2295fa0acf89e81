"""Verbs of those who look after checkpoints: finding some among thousands, and what is done to them by hand."""

import re
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import structlog
from sqlalchemy import Select, and_, delete, func, or_, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session, defer

from registry import audit, checkpoints, evaluations, jobs
from registry.errors import Conflict, Invalid, RegistryError
from registry.models import Checkpoint, Evaluation, Run, Ticket, User
from registry.models.base import (
    CANCELLED,
    FAILED,
    FINISHED,
    QUEUED,
    READY,
    REJECTED,
    RUNNING,
    VERIFYING,
)
from registry.models.checkpoints import ORIGINS
from registry.settings import get_settings

PAGE_SIZE = 50
MAX_AT_ONCE = 200
RELEASE, UNRELEASE, VERIFY, REQUEUE, CANCEL, DELETE = "release", "unrelease", "verify", "requeue", "cancel", "delete"
ACTIONS = (RELEASE, UNRELEASE, VERIFY, REQUEUE, CANCEL, DELETE)
ORDERS: Mapping[str, Any] = {
    "newest": (Checkpoint.id.desc(),),
    "oldest": (Checkpoint.id,),
    "largest": (Checkpoint.size_bytes.desc(), Checkpoint.id.desc()),
    "step": (Run.name, Checkpoint.step.desc(), Checkpoint.id),
}
_ASIDE = re.compile(r"\.rejected-\d+$")
_OPEN = (QUEUED, RUNNING)

log = structlog.get_logger(__name__)


class Wanted(NamedTuple):
    """What is looked for; what is empty does not matter."""

    search: str = ""
    """Part of a run's name, `run@step`, a step, or what a person is called who brought it."""
    state: str = ""
    origin: str = ""
    kind: str = ""
    precision: int = 0
    released: bool | None = None
    run: str = ""
    """A run's whole name."""
    order: str = "newest"


class Row(NamedTuple):
    """A checkpoint, who brought it, and how its evaluations stand."""

    checkpoint: Checkpoint
    user_name: str
    """Empty: the site itself, or somebody who has left."""
    counts: Mapping[str, int]
    """Evaluations by status."""


class Page(NamedTuple):
    """Some of what was found."""

    rows: Sequence[Row]
    total: int
    number: int
    size_bytes: int
    """Of all that was found."""

    @property
    def num_pages(self) -> int:
        """At least one."""
        return max(1, -(-self.total // PAGE_SIZE))


class Done(NamedTuple):
    """What came of an action on several checkpoints."""

    num: int
    refused: Sequence[tuple[str, RegistryError]]
    """What each one that was left out is called, and why."""


def find(session: Session, wanted: Wanted, page: int = 1) -> Page:
    """One page of the checkpoints that are looked for; three queries, however many there are."""
    chosen = _where(wanted)
    totals = select(func.count(), func.coalesce(func.sum(Checkpoint.size_bytes), 0)).select_from(Checkpoint)
    total, size = session.execute(chosen(totals.join(Checkpoint.run) if wanted.search or wanted.run else totals)).one()
    number = min(max(1, page), max(1, -(-total // PAGE_SIZE)))
    # What only the page of one checkpoint needs is long, and left where it is.
    long = (Checkpoint.manifest, Checkpoint.fingerprint, Checkpoint.warnings, Checkpoint.derivation)
    query = select(Checkpoint, User.name).join(Checkpoint.run).outerjoin(User, User.id == Checkpoint.user_id)
    query = chosen(query, joined=True).options(*map(defer, long)).order_by(*ORDERS.get(wanted.order, ORDERS["newest"]))
    found = session.execute(query.limit(PAGE_SIZE).offset((number - 1) * PAGE_SIZE)).all()
    counts = _counts(session, [checkpoint.id for checkpoint, _ in found])
    rows = [Row(checkpoint, name or "", counts.get(checkpoint.id, {})) for checkpoint, name in found]
    return Page(rows, total, number, int(size))


def known_values(session: Session) -> dict[str, list[Any]]:
    """The states, kinds and precisions that occur, and all origins, for the filter."""
    # These three stand in indexes; origins do not, and all that there can be are few.
    columns = {"state": Checkpoint.state, "kind": Checkpoint.kind, "precision": Checkpoint.precision}
    found: dict[str, list[Any]] = {
        name: list(session.scalars(select(column).distinct().order_by(column))) for name, column in columns.items()
    }
    return {**found, "origin": list(ORIGINS)}


def act(session: Session, admin: User, action: str, ids: Sequence[int]) -> Done:
    """Do one thing to several checkpoints; those of which it cannot be done are left out, and say why.

    Raises:
        Invalid: there is no such action, or too many or no checkpoints are chosen.
    """
    if action not in ACTIONS:
        raise Invalid("There is no action '%(name)s'.", name=action[:40])
    if not 1 <= len(ids) <= MAX_AT_ONCE:
        raise Invalid("Choose 1 to %(limit)s checkpoints.", limit=MAX_AT_ONCE)
    chosen = session.scalars(select(Checkpoint).where(Checkpoint.id.in_(ids)).order_by(Checkpoint.id)).all()
    done, refused = 0, []
    for checkpoint in chosen:
        label = checkpoint.label
        try:
            with session.begin_nested():
                _VERBS[action](session, admin, checkpoint)
            done += 1
        except RegistryError as error:
            refused.append((label, error))
    return Done(done, refused)


def verify_again(session: Session, admin: User, checkpoint: Checkpoint) -> None:
    """Have a worker look at every byte again; until it has, nothing uses the checkpoint.

    Raises:
        Conflict: its files are gone, or it is being verified.
    """
    if checkpoint.state not in (READY, REJECTED) or not checkpoints.path(checkpoint).is_dir():
        raise Conflict("Only a checkpoint that is ready or rejected, and whose files are here, can be verified again.")
    if checkpoint.state == REJECTED:
        _step_back(checkpoint)
        for evaluation_id in session.scalars(_cancelled_by_rejection(checkpoint)).all():
            evaluations.retry(session, evaluation_id)
    _note(session, admin, "checkpoint_verified_again", checkpoint)
    checkpoint.state, checkpoint.reason = VERIFYING, ""
    jobs.defer(session, jobs.VERIFY, checkpoint.id)


def requeue_failed(session: Session, admin: User, checkpoint: Checkpoint) -> int:
    """Put every failed and cancelled evaluation back in line; returns how many.

    Raises:
        Conflict: there is none.
    """
    query = select(Evaluation.id).where(
        Evaluation.checkpoint_id == checkpoint.id, Evaluation.status.in_((FAILED, CANCELLED))
    )
    ids = session.scalars(query.order_by(Evaluation.id)).all()
    if not ids:
        raise Conflict("No evaluation of it has failed or was cancelled.")
    for evaluation_id in ids:
        evaluations.retry(session, evaluation_id)
    _note(session, admin, "evaluations_requeued", checkpoint, number=len(ids))
    return len(ids)


def cancel_open(session: Session, admin: User, checkpoint: Checkpoint) -> int:
    """Take every open evaluation out of the line; returns how many.

    Raises:
        Conflict: there is none.
    """
    query = select(func.count()).where(Evaluation.checkpoint_id == checkpoint.id, Evaluation.status.in_(_OPEN))
    number = session.scalar(query) or 0
    if not number:
        raise Conflict("No evaluation of it is open.")
    evaluations.cancel_for(session, checkpoint)
    _note(session, admin, "evaluations_cancelled", checkpoint, number=number)
    return number


def delete_rejected(session: Session, admin: User, checkpoint: Checkpoint) -> None:
    """Delete a rejected checkpoint for good: its row now, its files once the transaction is committed.

    Raises:
        Conflict: it is not rejected, or something was asked of it while it was ready.
    """
    if checkpoint.state != REJECTED:
        raise Conflict(
            "%(checkpoint)s is not rejected: only rejected ones are deleted here.", checkpoint=checkpoint.label
        )
    _note(session, admin, "checkpoint_deleted", checkpoint, reason=checkpoint.reason[:300])
    folder = checkpoints.path(checkpoint)
    unasked = and_(Evaluation.checkpoint_id == checkpoint.id, Evaluation.status != FINISHED)
    try:
        session.execute(delete(Ticket).where(Ticket.checkpoint_id == checkpoint.id, Ticket.evaluation_id.is_not(None)))
        session.execute(delete(Evaluation).where(unasked))
        session.delete(checkpoint)
        session.flush()
    except IntegrityError:
        raise Conflict(
            "%(checkpoint)s has results or conversations of the time when it was ready: it is kept.",
            checkpoint=checkpoint.label,
        ) from None
    session.info.setdefault("folders_to_delete", []).append(folder)


def delete_folders(session: Session) -> None:
    """Delete the files of what `delete_rejected` has deleted; call it after the commit."""
    root = get_settings().checkpoints_dir.resolve()
    for folder in session.info.pop("folders_to_delete", []):
        if root in folder.resolve().parents:
            _delete_folder(folder)


def _delete_folder(folder: Path) -> None:
    if not folder.is_dir():
        return
    try:
        (folder / "manifest.json").unlink(missing_ok=True)  # without it the rest is no checkpoint, whatever comes next
        shutil.rmtree(folder)
    except OSError as error:
        log.warning("A deleted checkpoint's files are still here.", folder=folder.name, error=str(error))


def _release(session: Session, admin: User, checkpoint: Checkpoint) -> None:
    checkpoints.release(session, checkpoint)
    _note(session, admin, "checkpoint_released", checkpoint)


def _unrelease(session: Session, admin: User, checkpoint: Checkpoint) -> None:
    if not checkpoint.is_released:
        raise Conflict("%(checkpoint)s is not released.", checkpoint=checkpoint.label)
    checkpoints.release(session, checkpoint, is_released=False)
    _note(session, admin, "checkpoint_unreleased", checkpoint)


_VERBS: Mapping[str, Any] = {
    RELEASE: _release,
    UNRELEASE: _unrelease,
    VERIFY: verify_again,
    REQUEUE: requeue_failed,
    CANCEL: cancel_open,
    DELETE: delete_rejected,
}


def _note(session: Session, admin: User, deed: str, checkpoint: Checkpoint, **detail: Any) -> None:
    audit.note(session, admin, deed, f"checkpoint:{checkpoint.id}", {"checkpoint": checkpoint.label, **detail})


def _step_back(checkpoint: Checkpoint) -> None:
    """A rejected one's folder stepped aside; it takes its old place again where nobody else has it."""
    old = get_settings().checkpoints_dir / _ASIDE.sub("", checkpoint.folder)
    if _ASIDE.search(checkpoint.folder) and not old.exists():
        checkpoints.path(checkpoint).rename(old)
        checkpoint.folder = _ASIDE.sub("", checkpoint.folder)


def _cancelled_by_rejection(checkpoint: Checkpoint) -> Select[Any]:
    """Those have no reason of their own."""
    own = (Evaluation.checkpoint_id == checkpoint.id) & (Evaluation.status == CANCELLED) & (Evaluation.error == "")
    return select(Evaluation.id).where(own).order_by(Evaluation.id)


def _counts(session: Session, ids: Sequence[int]) -> dict[int, dict[str, int]]:
    query = select(Evaluation.checkpoint_id, Evaluation.status, func.count()).where(Evaluation.checkpoint_id.in_(ids))
    counts: dict[int, dict[str, int]] = {}
    for checkpoint_id, status, number in session.execute(query.group_by(Evaluation.checkpoint_id, Evaluation.status)):
        counts.setdefault(checkpoint_id, {})[status] = number
    return counts


def _where(wanted: Wanted) -> Any:
    conditions = [
        *([Checkpoint.state == wanted.state] if wanted.state else []),
        *([Checkpoint.origin == wanted.origin] if wanted.origin else []),
        *([Checkpoint.kind == wanted.kind] if wanted.kind else []),
        *([Checkpoint.precision == wanted.precision] if wanted.precision else []),
        *([Checkpoint.is_released.is_(wanted.released)] if wanted.released is not None else []),
        *([Run.name == wanted.run] if wanted.run else []),
        *([_matches(wanted.search)] if wanted.search.strip() else []),
    ]

    def apply(query: Select[Any], *, joined: bool = False) -> Select[Any]:
        if wanted.search.strip() and not joined:
            query = query.outerjoin(User, User.id == Checkpoint.user_id)
        return query.where(*conditions)

    return apply


def _matches(search: str) -> Any:
    text = search.strip().casefold()[:100]
    name, _, step = text.partition("@")
    if step.isdecimal() and len(step) <= 15:
        return and_(Run.name.contains(name, autoescape=True), Checkpoint.step == int(step))
    found = [Run.name.contains(text, autoescape=True), User.name_key.contains(text, autoescape=True)]
    if text.isdecimal() and len(text) <= 15:
        found.append(Checkpoint.step == int(text))
    return or_(*found)
