"""Which checkpoints of a run may lose their files, and taking them away.

A rule names what stays: the newest, the best of each task, milestones. Beside it stays whatever somebody relies on:
released checkpoints, those that an alias, a conversation, a vote or a branch names, parents of what stays, and what
work still waits for. Of the rest only what is evaluated goes, and only its files: scores, samples and curves stay.
"""

import datetime as dt
import os
import shutil
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from sqlalchemy import case, func, or_, select
from sqlalchemy.orm import Session

from registry import aliases, audit, averages, checkpoints, evaluations, joblog, store, suites
from registry.errors import Conflict, Invalid
from registry.models import (
    Alias,
    Chat,
    Checkpoint,
    CheckpointParent,
    Evaluation,
    Job,
    Result,
    RetentionRule,
    Run,
    Task,
    Ticket,
    User,
    Vote,
)
from registry.models.base import FINISHED, QUEUED, READY, REJECTED, RETIRED, RUNNING, VERIFYING, utcnow
from registry.settings import get_settings

RELEASED, MILESTONE, NEWEST, BEST = "released", "milestone", "newest", "best"
ALIAS, CHATS, VOTES, BRANCH, PARENT = "alias", "chats", "votes", "branch", "parent"
OPEN, UNEVALUATED = "open", "unevaluated"
REASONS = (RELEASED, MILESTONE, NEWEST, BEST, ALIAS, CHATS, VOTES, BRANCH, PARENT, OPEN, UNEVALUATED)
"""Why a checkpoint stays, as `Reason.kind` says it."""
MAX_KEPT = 10_000
EVERY = dt.timedelta(days=1)
"""How often a rule that is scheduled is applied."""
_OPEN = (QUEUED, RUNNING)


class Reason(NamedTuple):
    """Why a checkpoint stays."""

    kind: str
    """One of `REASONS`."""
    names: tuple[str, ...] = ()
    """Tasks, aliases, runs or checkpoints that it is about."""
    number: int = 0
    """Of chats or votes."""


class Judgement(NamedTuple):
    """A checkpoint and why it stays; it goes where there is no reason."""

    checkpoint: Checkpoint
    reasons: tuple[Reason, ...]

    @property
    def goes(self) -> bool:
        """Whether nothing keeps it."""
        return not self.reasons


class DryRun(NamedTuple):
    """What a rule would do now."""

    judgements: Sequence[Judgement]
    """Every ready checkpoint of the run, the newest step first."""
    num_bytes: int
    """What the files of those that go take; a file that another checkpoint holds too does not count."""

    @property
    def going(self) -> list[Checkpoint]:
        """Those that nothing keeps."""
        return [one.checkpoint for one in self.judgements if one.goes]


def get_rule(session: Session, run: Run) -> RetentionRule | None:
    """The rule of a run; None: everything stays."""
    return session.get(RetentionRule, run.id)


def set_rule(
    session: Session,
    run: Run,
    *,
    keep_newest: int,
    keep_best: int,
    keep_milestones: bool,
    is_scheduled: bool,
    user: User | None,
) -> RetentionRule:
    """Give a run a rule, or another one. Nothing is deleted by this.

    Raises:
        Invalid: a number out of range, or a rule that does not keep the newest.
    """
    for number in (keep_newest, keep_best):
        if not 0 <= number <= MAX_KEPT:
            raise Invalid("Keep 0 to %(most)s checkpoints.", most=MAX_KEPT)
    if keep_newest == 0:
        raise Invalid("Keep at least the newest checkpoint: training and visitors go on from there.")
    rule = get_rule(session, run)
    before = _figures(rule) if rule is not None else None
    if rule is None:
        rule = RetentionRule(run_id=run.id)
        session.add(rule)
    rule.keep_newest, rule.keep_best, rule.keep_milestones = keep_newest, keep_best, keep_milestones
    rule.is_scheduled, rule.user_id, rule.updated_at = is_scheduled, user.id if user is not None else None, utcnow()
    session.flush()
    audit.note(session, user, "retention-rule", f"run:{run.id}", {"before": before, "after": _figures(rule)})
    return rule


def remove_rule(session: Session, run: Run, user: User | None) -> None:
    """Everything of the run stays from now on."""
    rule = get_rule(session, run)
    if rule is not None:
        audit.note(session, user, "retention-rule", f"run:{run.id}", {"before": _figures(rule), "after": None})
        session.delete(rule)
        session.flush()


def _figures(rule: RetentionRule) -> dict[str, int | bool]:
    return {
        "keep_newest": rule.keep_newest,
        "keep_best": rule.keep_best,
        "keep_milestones": rule.keep_milestones,
        "is_scheduled": rule.is_scheduled,
    }


def dry_run(session: Session, run: Run, rule: RetentionRule | None = None) -> DryRun:
    """What would go under a rule, by default that of the run, and why the rest stays. Changes nothing."""
    judgements = judge(session, run, rule or get_rule(session, run))
    going = {one.checkpoint.id for one in judgements if one.goes}
    return DryRun(judgements, _bytes_freed(session, going))


def judge(session: Session, run: Run, rule: RetentionRule | None) -> list[Judgement]:
    """Every ready checkpoint of a run, the newest step first, with all reasons for which it stays."""
    query = select(Checkpoint).where(Checkpoint.run_id == run.id, Checkpoint.state == READY)
    known = session.scalars(query.order_by(Checkpoint.step.desc(), Checkpoint.id.desc())).all()
    reasons: dict[int, list[Reason]] = {one.id: [] for one in known}
    if rule is None:
        return [Judgement(one, (Reason(NEWEST),)) for one in known]
    for found in (
        _of_the_rule(known, rule),
        _best(session, run, rule.keep_best),
        _of_people(session, run),
        _of_runs(session, run, known),
        _of_work(session, run),
        _unevaluated(session, known),
    ):
        for checkpoint_id, reason in found:
            if checkpoint_id in reasons:
                reasons[checkpoint_id].append(reason)
    _keep_parents(session, run, reasons)
    order = {kind: place for place, kind in enumerate(REASONS)}
    return [Judgement(one, tuple(sorted(reasons[one.id], key=lambda reason: order[reason.kind]))) for one in known]


def plan(session: Session, run: Run, *, only: Collection[int] | None = None, user: User | None = None) -> Job:
    """Ask for a run's rule to be applied; with `only` to these checkpoints, as a dry run has shown them.

    Raises:
        Conflict: the run has no rule.
    """
    rule = get_rule(session, run)
    if rule is None:
        raise Conflict("The run '%(run)s' has no rule: everything stays.", run=run.name)
    rule.applied_at = utcnow()
    args: dict[str, object] = {"run": run.name}
    if only is not None:
        args["only"] = sorted(only)
    return joblog.plan(session, joblog.RETENTION, args=args, user=user)


def plan_due(session: Session) -> list[Job]:
    """Ask for what is scheduled and was not applied for a day."""
    query = select(RetentionRule).where(
        RetentionRule.is_scheduled,
        or_(RetentionRule.applied_at.is_(None), RetentionRule.applied_at < utcnow() - EVERY),
    )
    return [plan(session, session.get_one(Run, rule.run_id)) for rule in session.scalars(query).all()]


def retire(session: Session, run: Run, checkpoint_id: int, job_id: int) -> Checkpoint | None:
    """Retire a checkpoint if nothing keeps it at this moment; its files are then to be deleted by `delete_files`.

    The job notes what it is about to delete, so that whoever does it again goes on there. Returns None where something
    keeps the checkpoint, or where it is not ready any more.
    """
    # Whoever takes it up meanwhile, with a conversation or an alias, waits for the row and finds it retired.
    locked = session.scalar(select(Checkpoint).where(Checkpoint.id == checkpoint_id).with_for_update(of=Checkpoint))
    if locked is None or locked.state != READY or locked.run_id != run.id:
        return None
    judged = {one.checkpoint.id: one for one in judge(session, run, get_rule(session, run))}
    if not judged[checkpoint_id].goes:
        return None
    locked.state = RETIRED
    locked.reason = "Its files were deleted by the rule of its run; its scores stay."
    evaluations.cancel_for(session, locked)
    job = joblog.get_job(session, job_id)
    job.args = {**job.args, "deleting": checkpoint_id}
    actor = session.get(User, job.user_id) if job.user_id is not None else None
    audit.note(session, actor, "retire", f"checkpoint:{locked.id}", {"bytes": locked.size_bytes, "job": job_id})
    return locked


def half_deleted(session: Session, job_id: int) -> Checkpoint | None:
    """The retired checkpoint at whose files a job was when it was killed."""
    checkpoint_id = joblog.get_job(session, job_id).args.get("deleting")
    found = session.get(Checkpoint, checkpoint_id) if checkpoint_id is not None else None
    return found if found is not None and found.state == RETIRED and found.folder else None


def delete_files(checkpoint: Checkpoint) -> None:
    """Delete the folder of a retired checkpoint, its manifest first: what is left of it never counts as whole.

    A file that somebody is reading stays readable to them until they close it. Doing it again goes on with it.

    Raises:
        Conflict: it is not retired.
    """
    if checkpoint.state != RETIRED or not checkpoint.folder:
        raise Conflict("%(checkpoint)s is not retired: its files stay.", checkpoint=checkpoint.label)
    folder = checkpoints.path(checkpoint)
    _check_inside(folder)
    if not folder.is_dir():
        return
    (folder / store.MANIFEST).unlink(missing_ok=True)
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    shutil.rmtree(folder)


def forget_folder(session: Session, checkpoint: Checkpoint, job_id: int) -> None:
    """Note that nothing is left of the files of a retired checkpoint."""
    checkpoint = checkpoints.get_by_id(session, checkpoint.id)
    if checkpoint.state == RETIRED:
        checkpoint.folder = ""
    job = joblog.get_job(session, job_id)
    job.args = {name: value for name, value in job.args.items() if name != "deleting"}


def _check_inside(folder: Path) -> None:
    root = get_settings().checkpoints_dir.resolve()
    if root not in folder.resolve().parents:
        raise Invalid("The folder %(folder)s is outside of the checkpoints.", folder=folder.name)


def _of_the_rule(known: Sequence[Checkpoint], rule: RetentionRule) -> Iterable[tuple[int, Reason]]:
    by_form: dict[tuple[str, int], int] = {}
    for one in known:  # the newest first
        form = (one.kind, one.precision)
        by_form[form] = by_form.get(form, 0) + 1
        if by_form[form] <= rule.keep_newest:
            yield one.id, Reason(NEWEST)
        if one.is_released:
            yield one.id, Reason(RELEASED)
        if one.is_milestone and rule.keep_milestones:
            yield one.id, Reason(MILESTONE)


def _best(session: Session, run: Run, keep: int) -> Iterable[tuple[int, Reason]]:
    """The best by headline metric of each task and form, under each protocol: what cannot be compared stays."""
    query = (
        select(
            Checkpoint.id,
            Checkpoint.kind,
            Checkpoint.precision,
            Evaluation.protocol_key,
            Task.name,
            Task.higher_is_better,
            Result.value,
        )
        .join(Evaluation, Evaluation.checkpoint_id == Checkpoint.id)
        .join(Task, Task.id == Evaluation.task_id)
        .join(Result, (Result.evaluation_id == Evaluation.id) & (Result.metric == Task.metric))
        .where(
            Checkpoint.run_id == run.id,
            Checkpoint.state == READY,
            Evaluation.status == FINISHED,
            Task.retired.is_(False),
            Task.schedule.in_((suites.PANEL, suites.MILESTONE)),
        )
        .order_by(Checkpoint.step)
    )
    lines: dict[tuple[object, ...], list[tuple[float, int]]] = {}
    for row in session.execute(query) if keep else ():
        sign = -1.0 if row.higher_is_better else 1.0
        lines.setdefault((row.name, row.kind, row.precision, row.protocol_key), []).append((sign * row.value, row.id))
    tasks: dict[int, set[str]] = {}
    for (name, *_), scores in lines.items():
        for _, checkpoint_id in sorted(scores, key=lambda one: one[0])[:keep]:  # of equal ones the earlier
            tasks.setdefault(checkpoint_id, set()).add(str(name))
    for checkpoint_id, names in tasks.items():
        yield checkpoint_id, Reason(BEST, tuple(sorted(names)))


def _of_people(session: Session, run: Run) -> Iterable[tuple[int, Reason]]:
    """Conversations that their owners have not deleted, shared ones among them; votes; aliases."""
    own = select(Checkpoint.id).where(Checkpoint.run_id == run.id)
    chats = select(Chat.checkpoint_id, func.count()).where(Chat.cleared_at.is_(None), Chat.checkpoint_id.in_(own))
    for checkpoint_id, number in session.execute(chats.group_by(Chat.checkpoint_id)):
        yield checkpoint_id, Reason(CHATS, number=number)
    votes: dict[int, int] = {}
    for side in (Vote.left_id, Vote.right_id):
        for checkpoint_id, number in session.execute(select(side, func.count()).where(side.in_(own)).group_by(side)):
            votes[checkpoint_id] = votes.get(checkpoint_id, 0) + number
    for checkpoint_id, number in votes.items():
        yield checkpoint_id, Reason(VOTES, number=number)
    names: dict[int, list[str]] = {}
    for name, checkpoint in ((one.name, one.checkpoint) for one in aliases.list_aliases(session, run)):
        names.setdefault(checkpoint.id, []).append(name)
    for alias in session.scalars(select(Alias).where(Alias.checkpoint_id.in_(own), Alias.run_id != run.id)):
        names.setdefault(alias.checkpoint_id, []).append(alias.name)
    for checkpoint_id, found in names.items():
        yield checkpoint_id, Reason(ALIAS, tuple(found))


def _of_runs(session: Session, run: Run, known: Sequence[Checkpoint]) -> Iterable[tuple[int, Reason]]:
    """The steps from which other runs went on."""
    branches: dict[int, list[str]] = {}
    for name, step in session.execute(select(Run.name, Run.parent_step).where(Run.parent_run_id == run.id)):
        branches.setdefault(step or 0, []).append(name)
    for one in known:
        if one.step in branches and (one.kind, one.precision) == ("pretrained", 16):
            yield one.id, Reason(BRANCH, tuple(sorted(branches[one.step])))


def _of_work(session: Session, run: Run) -> Iterable[tuple[int, Reason]]:
    """What an evaluation, a ticket or a job still needs."""
    own = select(Checkpoint.id).where(Checkpoint.run_id == run.id)
    found = averages.wanted_parents(session, run)
    found |= set(session.scalars(select(Job.checkpoint_id).where(Job.status.in_(_OPEN), Job.checkpoint_id.in_(own))))
    for table in (Evaluation, Ticket):
        query = select(table.checkpoint_id).where(table.status.in_(_OPEN), table.checkpoint_id.in_(own))
        found |= set(session.scalars(query.distinct()))
    for checkpoint_id in found:
        yield checkpoint_id, Reason(OPEN)


def _unevaluated(session: Session, known: Sequence[Checkpoint]) -> Iterable[tuple[int, Reason]]:
    """Those without results of the panel, or of which an evaluation of the panel has not been finished."""
    is_finished = func.max(case((Evaluation.status == FINISHED, 1), else_=0))
    query = (
        select(Evaluation.checkpoint_id, Task.name, is_finished)
        .join(Task, Task.id == Evaluation.task_id)
        .where(
            Evaluation.checkpoint_id.in_([one.id for one in known]),
            Task.schedule == suites.PANEL,
            Task.retired.is_(False),
        )
        .group_by(Evaluation.checkpoint_id, Task.name)
    )
    missing: dict[int, list[str]] = {}
    for checkpoint_id, name, has_finished in session.execute(query):
        missing.setdefault(checkpoint_id, [])
        if not has_finished:
            missing[checkpoint_id].append(name)
    for one in known:
        if one.id not in missing or missing[one.id]:
            yield one.id, Reason(UNEVALUATED, tuple(sorted(missing.get(one.id, []))))


def _keep_parents(session: Session, run: Run, reasons: dict[int, list[Reason]]) -> None:
    """What a kept checkpoint was made from stays, and what that was made from, and so on."""
    child = select(Checkpoint.id, Checkpoint.run_id, Checkpoint.state).subquery()
    query = (
        select(CheckpointParent.parent_id, CheckpointParent.child_id, child.c.run_id)
        .join(child, child.c.id == CheckpointParent.child_id)
        .where(CheckpointParent.parent_id.in_(reasons), child.c.state.in_((READY, VERIFYING)))
    )
    links = session.execute(query).all()
    labels = {
        one.id: one.label
        for one in session.scalars(select(Checkpoint).where(Checkpoint.id.in_({link[1] for link in links})))
    }
    while True:
        kept = {checkpoint_id for checkpoint_id, found in reasons.items() if found}
        due: dict[int, list[str]] = {}
        for parent_id, child_id, run_id in links:
            is_noted = any(reason.kind == PARENT for reason in reasons[parent_id])
            if not is_noted and (run_id != run.id or child_id in kept or child_id not in reasons):
                due.setdefault(parent_id, []).append(labels[child_id])
        if not due:
            return
        for parent_id, names in due.items():
            reasons[parent_id].append(Reason(PARENT, tuple(sorted(names))))


def _bytes_freed(session: Session, going: Collection[int]) -> int:
    """Bytes of the distinct contents that only these checkpoints hold."""
    if not going:
        return 0
    query = select(Checkpoint.id, Checkpoint.manifest).where(Checkpoint.state.in_((READY, VERIFYING, REJECTED)))
    leaving: dict[str, int] = {}
    staying: set[str] = set()
    for checkpoint_id, manifest in session.execute(query):
        files: Mapping[str, Mapping[str, object]] = manifest.get("files", {})
        for entry in files.values():
            if checkpoint_id in going:
                leaving[str(entry["sha256"])] = int(str(entry["size"]))
            else:
                staying.add(str(entry["sha256"]))
    return sum(size for sha256, size in leaving.items() if sha256 not in staying)
