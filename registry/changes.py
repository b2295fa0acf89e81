"""What each evaluation says against the checkpoint before it: gain, loss, or within noise.

Only evaluations of one task under one protocol are compared. The verdicts of two checkpoints are one
family: their p-values are corrected over the tasks (Benjamini-Hochberg), so that among sixty tasks
three do not "improve" by chance.
"""

import hashlib
from collections.abc import Sequence
from typing import NamedTuple

import structlog
from sqlalchemy import Select, delete, select
from sqlalchemy.orm import Session, joinedload, selectinload

from analysis import compare
from registry import columns, evaluations, samples, suites, webhooks
from registry.errors import RegistryError
from registry.models import Change, Checkpoint, Evaluation, Result, Task
from registry.models.base import FINISHED, QUEUED, RUNNING, SCORED

log = structlog.get_logger(__name__)


class Pair(NamedTuple):
    """An evaluation and the one of the checkpoint before."""

    before: Evaluation
    after: Evaluation


class Found(NamedTuple):
    """What a comparison came to; interval and error are missing where only two results were compared."""

    value: float
    stderr: float | None
    low: float | None
    high: float | None
    p_value: float | None
    n: int
    is_paired: bool


def pairs(session: Session, evaluation: Evaluation) -> list[Pair]:
    """The comparisons that an evaluation takes part in: with the one before it, and the next one with it."""
    before, after = _neighbour(session, evaluation, earlier=True), _neighbour(session, evaluation, earlier=False)
    found = [Pair(before, evaluation)] if before is not None else []
    return found + ([Pair(evaluation, after)] if after is not None else [])


def load(session: Session, evaluation_id: int) -> Evaluation | None:
    """An evaluation as the comparison needs it; None while it is not finished."""
    query = _comparable().where(Evaluation.id == evaluation_id)
    return session.scalar(query)


def difference(pair: Pair) -> Found | None:
    """After minus before on the headline metric; None where a result is missing.

    Reads sample files, so call it outside a writing transaction.
    """
    paired = _paired(pair)
    if paired is not None:
        return Found(*paired, is_paired=True)
    metric = pair.after.task.metric
    then, now = _result(pair.before, metric), _result(pair.after, metric)
    if then is None or now is None:
        return None
    change = compare.unpaired_change(then, now)
    return Found(change.value, None, None, None, change.p_value, now.n, is_paired=False)


def record(session: Session, pair: Pair, found: Found | None) -> None:
    """Keep a comparison and judge its family anew."""
    after_id = pair.after.id
    session.execute(delete(Change).where(Change.evaluation_id == after_id))
    if found is not None:
        row = Change(evaluation_id=after_id, against_id=pair.before.id, verdict="within noise", **found._asdict())
        session.add(row)
    session.flush()  # the family is judged with it
    judge(session, pair.after.checkpoint_id)
    tell_losses(session, pair.after.checkpoint_id)


def mark_compared(session: Session, evaluation_id: int) -> None:
    """Its comparisons are up to date."""
    evaluation = session.get_one(Evaluation, evaluation_id)
    evaluation.is_compared = True
    tell_losses(session, evaluation.checkpoint_id)


def tell_losses(session: Session, checkpoint_id: int) -> None:
    """Tell whoever wants it what a checkpoint has lost, once its verdicts stand.

    That is when nothing of it is open or still to be compared: a verdict is corrected over all tasks, so a loss that
    the first of them seems to show may be none in the end.
    """
    if not webhooks.wants(session, webhooks.VERDICT_LOSS):
        return
    session.flush()
    is_open = Evaluation.status.in_((QUEUED, RUNNING))
    to_compare = (Evaluation.status == FINISHED) & Evaluation.is_compared.is_(False)
    own = select(Evaluation.id).join(Evaluation.task).where(Evaluation.checkpoint_id == checkpoint_id)
    pending = own.where(Task.schedule != suites.IDLE, is_open | to_compare)
    if session.scalar(pending.limit(1)) is not None:
        return
    losses = (
        select(Change, Evaluation, Task)
        .join(Evaluation, Evaluation.id == Change.evaluation_id)
        .join(Task, Task.id == Evaluation.task_id)
        .where(Evaluation.checkpoint_id == checkpoint_id, Change.verdict == "loss")
        .order_by(Change.against_id, Task.position, Task.name)
    )
    families: dict[str, list[dict[str, object]]] = {}
    for change, evaluation, task in session.execute(losses):
        against = evaluations.get_evaluation(session, change.against_id).checkpoint.label
        figures = {name: getattr(change, name) for name in ("value", "low", "high", "p_value", "n")}
        lost = {"task": task.name, "title": task.title, "metric": task.metric, **figures}
        families.setdefault(against, []).append({**lost, "evaluation_id": evaluation.id})
    for against, lost_tasks in families.items():
        about = webhooks.about_checkpoint(session.get_one(Checkpoint, checkpoint_id))
        names = ",".join(sorted(str(one["evaluation_id"]) for one in lost_tasks))
        once = f"loss:{checkpoint_id}:{hashlib.sha256(names.encode()).hexdigest()[:32]}"
        data = {**about, "against": against, "losses": lost_tasks}
        webhooks.tell(session, webhooks.VERDICT_LOSS, data, once=once)


def forgotten(session: Session) -> Sequence[int]:
    """Finished evaluations whose comparing job was lost."""
    query = select(Evaluation.id).where(Evaluation.is_compared.is_(False), Evaluation.status == FINISHED)
    return session.scalars(query.order_by(Evaluation.id).limit(100)).all()


def judge(session: Session, checkpoint_id: int) -> None:
    """Give each change of a checkpoint its verdict; those against one and the same checkpoint are one family."""
    against = select(Evaluation.id, Evaluation.checkpoint_id).subquery()
    query = (
        select(Change, against.c.checkpoint_id, Evaluation)
        .join(Evaluation, Evaluation.id == Change.evaluation_id)
        .join(against, against.c.id == Change.against_id)
        .where(Evaluation.checkpoint_id == checkpoint_id)
        .options(joinedload(Evaluation.task))
    )
    families: dict[int, list[tuple[Change, compare.Change]]] = {}
    for change, other_id, evaluation in session.execute(query):
        tested = compare.Change(change.value, change.p_value, evaluation.task.higher_is_better)
        families.setdefault(other_id, []).append((change, tested))
    for family in families.values():
        words = compare.verdicts([tested for _, tested in family])
        for (change, _), word in zip(family, words, strict=True):
            change.verdict = word
    columns.write(session, checkpoint_id)


def _comparable() -> Select[Evaluation]:
    return (
        select(Evaluation)
        .join(Evaluation.checkpoint)
        .where(Evaluation.status == FINISHED)
        .options(
            joinedload(Evaluation.task),
            joinedload(Evaluation.checkpoint),
            selectinload(Evaluation.results),
            selectinload(Evaluation.slices),
        )
    )


def _neighbour(session: Session, evaluation: Evaluation, *, earlier: bool) -> Evaluation | None:
    own = evaluation.checkpoint
    query = _comparable().where(
        Checkpoint.run_id == own.run_id,
        Checkpoint.kind == own.kind,
        Checkpoint.precision == own.precision,
        Checkpoint.state.in_(SCORED),
        Evaluation.task_id == evaluation.task_id,
        Evaluation.protocol_key == evaluation.protocol_key,
    )
    if earlier:
        query = query.where(Checkpoint.step < own.step).order_by(Checkpoint.step.desc())
    else:
        query = query.where(Checkpoint.step > own.step).order_by(Checkpoint.step)
    return session.scalars(query.limit(1)).first()


def _result(evaluation: Evaluation, metric: str) -> Result | None:
    return next((result for result in evaluation.results if result.metric == metric), None)


def _paired(pair: Pair) -> compare.Difference | None:
    if not pair.before.slices or not pair.after.slices or not pair.after.task.metric:
        return None
    try:
        return samples.compare(
            evaluations.sample_paths(pair.before),
            evaluations.sample_paths(pair.after),
            pair.after.task.metric,
            evaluations.items_path(pair.after) if pair.after.items_file else None,
        )
    except RegistryError as error:
        log.warning("Sample files cannot be paired.", evaluation_id=pair.after.id, error=str(error))
        return None
