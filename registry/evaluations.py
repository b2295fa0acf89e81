"""Verbs of evaluations: planning them for a checkpoint, recording slices and results, and what failed."""

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, delete, func, select
from sqlalchemy.orm import Session, joinedload, load_only, selectinload

from registry import columns, jobs, suites, tickets, webhooks
from registry.errors import Conflict, Invalid, NotFound
from registry.models import Checkpoint, Evaluation, Result, Run, Slice, Task
from registry.models.base import CANCELLED, FAILED, FINISHED, QUEUED, RUNNING, SCORED, utcnow
from registry.models.checkpoints import QUANTIZATION
from registry.protocol import protocol_key
from registry.settings import get_settings

MAX_LOG_CHARS = 8_000


class Score(NamedTuple):
    """A number to record: its 95% interval is [low, high], `n` the items it is made of."""

    metric: str
    value: float
    stderr: float | None
    low: float | None
    high: float | None
    n: int


class NewSlice(NamedTuple):
    """Answers to the items from `start` to before `stop`, in a file relative to `Settings.samples_dir`."""

    start: int
    stop: int
    file: str
    engine_seconds: float = 0.0
    num_truncated: int = 0


def plan(session: Session, checkpoint: Checkpoint) -> list[Evaluation]:
    """Queue the panel, for a milestone the full suites, and visitors' prompts, as far as they were not planned yet.

    What was made by quantization gets the panel alone: that is what its loss is read from.
    """
    if checkpoint.origin == QUANTIZATION:
        return plan_tasks(session, checkpoint, _live(session, {suites.PANEL}))
    checkpoint.is_milestone = checkpoint.is_milestone or _is_milestone(session, checkpoint)
    schedules = {suites.PANEL, suites.MILESTONE} if checkpoint.is_milestone else {suites.PANEL}
    if suites.is_asked_idly(checkpoint.kind, checkpoint.precision):
        schedules.add(suites.IDLE)
    return plan_tasks(session, checkpoint, _live(session, schedules))


def _live(session: Session, schedules: Collection[str]) -> list[Task]:
    return [task for task in suites.list_tasks(session) if task.schedule in schedules and suites.is_possible(task)]


def plan_tasks(
    session: Session, checkpoint: Checkpoint, tasks: Sequence[Task], *, again: bool = False, by_hand: bool = False
) -> list[Evaluation]:
    """Queue these tasks. Without `again` those that were ever planned are left out, with it only the open ones.

    What is asked for `by_hand`, and what visitors proposed, does not count against the budget.
    """
    query = select(Evaluation.task_id).where(Evaluation.checkpoint_id == checkpoint.id)
    if again:
        query = query.where(Evaluation.status.in_((QUEUED, RUNNING)))
    known = set(session.scalars(query))
    planned = [
        Evaluation(checkpoint_id=checkpoint.id, task_id=task.id, ignore_budget=by_hand or task.schedule == suites.IDLE)
        for task in tasks
        if task.id not in known
    ]
    _queue(session, planned, {task.id: _lane(task, checkpoint) for task in tasks})
    return planned


def plan_everywhere(session: Session, task: Task, known: Sequence[Checkpoint]) -> int:
    """Queue one task of visitors for these checkpoints, and again where it was cancelled; returns how many."""
    query = select(Evaluation).where(Evaluation.task_id == task.id)
    asked = {evaluation.checkpoint_id: evaluation for evaluation in session.scalars(query)}
    planned = [
        Evaluation(checkpoint_id=checkpoint.id, task_id=task.id, ignore_budget=True)
        for checkpoint in known
        if checkpoint.id not in asked
    ]
    _queue(session, planned, {task.id: _schedule_lane(task)})
    wanted = {checkpoint.id: checkpoint for checkpoint in known}
    again = [one for one in asked.values() if one.status == CANCELLED and one.checkpoint_id in wanted]
    for evaluation in again:
        _reopen(session, evaluation, wanted[evaluation.checkpoint_id], task)
    return len(planned) + len(again)


def _queue(session: Session, planned: Sequence[Evaluation], lanes: Mapping[int, int]) -> None:
    session.add_all(planned)
    session.flush()  # tickets carry the ids
    for one in planned:
        tickets.issue(session, lane=lanes[one.task_id], checkpoint_id=one.checkpoint_id, evaluation_id=one.id)


def _lane(task: Task, checkpoint: Checkpoint) -> int:
    if checkpoint.origin == QUANTIZATION:
        return tickets.QUANTIZATION
    return _schedule_lane(task)


def _schedule_lane(task: Task) -> int:
    return {suites.PANEL: tickets.EVALUATION, suites.IDLE: tickets.IDLE}.get(task.schedule, tickets.MILESTONE)


def _reopen(session: Session, evaluation: Evaluation, checkpoint: Checkpoint, task: Task) -> None:
    evaluation.status, evaluation.error, evaluation.log, evaluation.finished_at = QUEUED, "", "", None
    tickets.reissue(session, lane=_lane(task, checkpoint), checkpoint_id=checkpoint.id, evaluation_id=evaluation.id)


def _is_milestone(session: Session, checkpoint: Checkpoint) -> bool:
    """The last step of a run, and every so many checkpoints since the last milestone."""
    every = get_settings().milestone_every
    if every >= 0 and checkpoint.run.max_steps is not None and checkpoint.step >= checkpoint.run.max_steps:
        return True
    if every < 1 or checkpoint.kind != "pretrained":
        return False
    same = (Checkpoint.run_id == checkpoint.run_id) & (Checkpoint.kind == checkpoint.kind)
    same &= Checkpoint.origin != QUANTIZATION  # stands at a step that counts already
    last = session.scalar(
        select(func.max(Checkpoint.step)).where(same, Checkpoint.is_milestone, Checkpoint.step < checkpoint.step)
    )
    between = select(func.count()).where(same, Checkpoint.step <= checkpoint.step)
    if last is not None:
        between = between.where(Checkpoint.step > last)
    return (session.scalar(between) or 0) >= every


def get_evaluation(session: Session, evaluation_id: int) -> Evaluation:
    """An evaluation with its checkpoint, task and slices.

    Raises:
        NotFound: there is none of that id.
    """
    options = (joinedload(Evaluation.checkpoint), joinedload(Evaluation.task), selectinload(Evaluation.slices))
    evaluation = session.scalar(select(Evaluation).where(Evaluation.id == evaluation_id).options(*options))
    if evaluation is None:
        raise NotFound("There is no evaluation with the id %(evaluation_id)s.", evaluation_id=evaluation_id)
    return evaluation


def shown_evaluation(session: Session, evaluation_id: int) -> Evaluation:
    """An evaluation as `get_evaluation` gives it, for pages.

    Raises:
        NotFound: there is none of that id, or its prompt was withdrawn.
    """
    evaluation = get_evaluation(session, evaluation_id)
    if evaluation.task.retired and evaluation.task.schedule == suites.IDLE:
        raise NotFound("The prompt of evaluation %(evaluation_id)s was withdrawn.", evaluation_id=evaluation_id)
    return evaluation


def sample_paths(evaluation: Evaluation) -> list[Path]:
    """The files of its answers, in the order of the items; needs `slices` loaded."""
    return [get_settings().samples_dir / part.file for part in evaluation.slices]


def items_path(evaluation: Evaluation) -> Path:
    """The file of its items."""
    return get_settings().samples_dir / evaluation.items_file


def start(session: Session, evaluation_id: int, num_items: int, protocol: Mapping[str, Any]) -> None:
    """A worker has begun, and knows how many items there are and how they are asked."""
    evaluation = session.get_one(Evaluation, evaluation_id)
    if evaluation.status == FINISHED:
        return
    evaluation.status, evaluation.num_items, evaluation.protocol = RUNNING, num_items, dict(protocol)


def begin_again(session: Session, evaluation_id: int) -> None:
    """Drop the slices of an open evaluation: they were answered under another protocol."""
    evaluation = session.get_one(Evaluation, evaluation_id)
    if evaluation.status in (QUEUED, RUNNING):
        session.execute(delete(Slice).where(Slice.evaluation_id == evaluation_id))
        evaluation.num_done, evaluation.num_truncated, evaluation.protocol = 0, 0, {}


def add_slice(session: Session, evaluation_id: int, part: NewSlice) -> None:
    """Record the answers of the next stretch of items.

    Raises:
        Conflict: another worker recorded that stretch; its answers are the ones that count.
    """
    evaluation = session.get_one(Evaluation, evaluation_id)
    if part.start != evaluation.num_done or evaluation.status not in (QUEUED, RUNNING):
        raise Conflict(
            "Evaluation %(evaluation_id)s stands at item %(done)s; a slice from %(start)s is dropped.",
            evaluation_id=evaluation_id,
            done=evaluation.num_done,
            start=part.start,
        )
    session.add(
        Slice(
            evaluation_id=evaluation_id,
            start=part.start,
            stop=part.stop,
            file=part.file,
            engine_seconds=part.engine_seconds,
        )
    )
    evaluation.num_done = part.stop
    evaluation.num_truncated += part.num_truncated
    evaluation.engine_seconds = (evaluation.engine_seconds or 0.0) + part.engine_seconds


def finish(
    session: Session,
    evaluation_id: int,
    *,
    results: Sequence[Score],
    protocol: Mapping[str, Any],
    items_file: str = "",
) -> None:
    """Record the results; a finished evaluation stays as it is.

    A second evaluation under a protocol that the checkpoint has results of changes nothing: it is
    cancelled with a sentence.
    """
    evaluation = session.get_one(Evaluation, evaluation_id)
    if evaluation.status == FINISHED:
        return
    evaluation.finished_at, evaluation.items_file = utcnow(), items_file
    evaluation.protocol = dict(protocol)
    key = protocol_key(protocol)
    if _twin(session, evaluation, key) is not None:
        evaluation.status = CANCELLED
        evaluation.error = "There are results of this task under the same protocol already; they stand."
        return
    session.add_all(Result(evaluation_id=evaluation_id, **score._asdict()) for score in results)
    evaluation.status, evaluation.error, evaluation.log = FINISHED, "", ""
    evaluation.protocol_key = key
    columns.write(session, evaluation.checkpoint_id)
    jobs.defer(session, jobs.COMPARE, evaluation_id)
    _tell_suite(session, evaluation)


def _twin(session: Session, evaluation: Evaluation, key: str) -> Evaluation | None:
    query = select(Evaluation).where(
        Evaluation.checkpoint_id == evaluation.checkpoint_id,
        Evaluation.task_id == evaluation.task_id,
        Evaluation.protocol_key == key,
        Evaluation.id != evaluation.id,
    )
    return session.scalar(query)


def record_imported(
    session: Session,
    checkpoint: Checkpoint,
    task: Task,
    *,
    protocol: Mapping[str, Any],
    results: Sequence[Score],
    num_items: int,
    slices: Sequence[NewSlice] = (),
    items_file: str = "",
) -> Evaluation | None:
    """Results that were measured elsewhere; None where the same are here already."""
    key = protocol_key(protocol)
    evaluation = Evaluation(checkpoint_id=checkpoint.id, task_id=task.id, num_items=num_items, status=RUNNING)
    session.add(evaluation)
    session.flush()  # slices and results carry the id
    if _twin(session, evaluation, key) is not None:
        session.delete(evaluation)
        session.flush()
        return None
    for part in slices:
        add_slice(session, evaluation.id, part)
    finish(session, evaluation.id, results=results, protocol=protocol, items_file=items_file)
    return evaluation


def rescore(session: Session, evaluation_id: int, results: Sequence[Score]) -> list[str]:
    """Put results that were derived again in place of the old ones; returns the metrics whose number changed.

    Raises:
        Invalid: it is not finished.
    """
    evaluation = session.get_one(Evaluation, evaluation_id)
    if evaluation.status != FINISHED:
        raise Invalid("Evaluation %(evaluation_id)s is not finished.", evaluation_id=evaluation_id)
    old = {row.metric: row for row in session.scalars(select(Result).where(Result.evaluation_id == evaluation_id))}
    changed = []
    for score in results:
        row = old.get(score.metric)
        if row is None:
            session.add(Result(evaluation_id=evaluation_id, **score._asdict()))
            changed.append(score.metric)
        elif tuple(score) != (row.metric, row.value, row.stderr, row.low, row.high, row.n):
            row.value, row.stderr, row.low, row.high, row.n = score[1:]
            changed.append(score.metric)
    if changed:
        evaluation.is_compared = False
        columns.write(session, evaluation.checkpoint_id)
        jobs.defer(session, jobs.COMPARE, evaluation_id)
    return changed


def fail(session: Session, evaluation_id: int, error: str, log: str = "") -> None:
    """Record why it cannot be done: `error` is a sentence, `log` what the engine said last."""
    evaluation = session.get_one(Evaluation, evaluation_id)
    evaluation.status, evaluation.error, evaluation.finished_at = FAILED, error, utcnow()
    evaluation.log = log[-MAX_LOG_CHARS:]
    _tell_failure(session, evaluation_id)
    _tell_suite(session, evaluation)


def cancel(session: Session, evaluation_id: int, reason: str) -> None:
    """Give up what is open, for a reason that is nobody's fault: the budget is spent."""
    evaluation = session.get_one(Evaluation, evaluation_id)
    evaluation.status, evaluation.error, evaluation.finished_at = CANCELLED, reason, utcnow()
    _tell_suite(session, evaluation)


def _tell_failure(session: Session, evaluation_id: int) -> None:
    if webhooks.wants(session, webhooks.JOB_FAILED):
        failed = get_evaluation(session, evaluation_id)
        about = {**webhooks.about_checkpoint(failed.checkpoint), "path": f"/evaluations/{evaluation_id}"}
        data = {**about, "kind": "evaluation", "task": failed.task.title, "error": failed.error}
        webhooks.tell(session, webhooks.JOB_FAILED, data)


def _tell_suite(session: Session, evaluation: Evaluation) -> None:
    """Tell whoever wants it, where this was the last open evaluation of its suite at its checkpoint."""
    if not webhooks.wants(session, webhooks.SUITE_FINISHED):
        return
    # Of two that end at once the second one waits here, and sees that the first has ended.
    checkpoint_id = evaluation.checkpoint_id
    session.execute(select(Checkpoint.id).where(Checkpoint.id == checkpoint_id).with_for_update(key_share=True))
    session.flush()
    suite = session.get_one(Task, evaluation.task_id).suite
    query = select(Evaluation).join(Evaluation.task).where(Evaluation.checkpoint_id == checkpoint_id)
    query = query.where(Task.suite_id == suite.id, Task.schedule != suites.IDLE).order_by(Evaluation.id)
    known = (selectinload(Evaluation.results), joinedload(Evaluation.task), joinedload(Evaluation.checkpoint))
    own = session.scalars(query.options(*known).execution_options(populate_existing=True)).all()
    if not own or any(one.status in (QUEUED, RUNNING) for one in own):
        return
    scores = [_headline(one, result) for one in own for result in one.results if result.metric == one.task.metric]
    counts = {f"num_{status}": sum(one.status == status for one in own) for status in (FINISHED, FAILED, CANCELLED)}
    about = webhooks.about_checkpoint(own[0].checkpoint)
    webhooks.tell(session, webhooks.SUITE_FINISHED, {**about, "suite": suite.name, **counts, "results": scores})


def _headline(evaluation: Evaluation, result: Result) -> dict[str, Any]:
    figures = {name: getattr(result, name) for name in ("metric", "value", "stderr", "low", "high", "n")}
    return {"task": evaluation.task.name, "title": evaluation.task.title, **figures}


def retry(session: Session, evaluation_id: int) -> Evaluation:
    """Queue a failed or cancelled evaluation again, from the slice where it stopped and whatever it costs.

    Raises:
        Conflict: it is open or finished.
    """
    evaluation = get_evaluation(session, evaluation_id)
    if evaluation.status not in (FAILED, CANCELLED):
        raise Conflict(
            "Evaluation %(evaluation_id)s is %(status)s: only what failed or was cancelled can be run again.",
            evaluation_id=evaluation_id,
            status=evaluation.status,
        )
    evaluation.ignore_budget = True
    _reopen(session, evaluation, evaluation.checkpoint, evaluation.task)
    return evaluation


def requeue(session: Session, evaluation_id: int) -> None:
    """The worker gave it back."""
    session.get_one(Evaluation, evaluation_id).status = QUEUED


def cancel_for(session: Session, checkpoint: Checkpoint) -> None:
    """Drop what is still open for a checkpoint that was rejected or retired."""
    query = select(Evaluation).where(
        Evaluation.checkpoint_id == checkpoint.id, Evaluation.status.in_((QUEUED, RUNNING))
    )
    for evaluation in session.scalars(query):
        evaluation.status = CANCELLED
        tickets.cancel(session, evaluation_id=evaluation.id)


def cancel_task(session: Session, task: Task, reason: str) -> None:
    """Drop what is still open of a task."""
    query = select(Evaluation).where(Evaluation.task_id == task.id, Evaluation.status.in_((QUEUED, RUNNING)))
    for evaluation in session.scalars(query).all():
        evaluation.status, evaluation.error, evaluation.finished_at = CANCELLED, reason, utcnow()
        tickets.cancel(session, evaluation_id=evaluation.id)


def seconds_spent(session: Session, checkpoint_id: int) -> float:
    """Engine seconds of a checkpoint's evaluations so far, without those that somebody asked for by hand."""
    query = select(func.sum(Evaluation.engine_seconds)).where(
        Evaluation.checkpoint_id == checkpoint_id, Evaluation.ignore_budget.is_(False)
    )
    return session.scalar(query) or 0.0


def expected_seconds(session: Session, evaluation: Evaluation) -> float:
    """What the task cost the last time it was finished in this run; 0 where it never was."""
    query = (
        select(Evaluation.engine_seconds)
        .join(Evaluation.checkpoint)
        .where(
            Checkpoint.run_id == evaluation.checkpoint.run_id,
            Evaluation.task_id == evaluation.task_id,
            Evaluation.status == FINISHED,
        )
        .order_by(Evaluation.finished_at.desc())
    )
    return session.scalar(query.limit(1)) or 0.0


def for_checkpoint(session: Session, checkpoint: Checkpoint) -> Sequence[Evaluation]:
    """Its evaluations with tasks, results, slices and changes, in the tasks' order, the newest of a task first.

    Without those of prompts that were withdrawn.
    """
    query = (
        select(Evaluation)
        .join(Evaluation.task)
        .where(Evaluation.checkpoint_id == checkpoint.id, (Task.schedule != suites.IDLE) | Task.retired.is_(False))
        .options(
            joinedload(Evaluation.task),
            selectinload(Evaluation.results),
            selectinload(Evaluation.slices),
            joinedload(Evaluation.change),
        )
        .order_by(Task.suite_id, Task.position, Task.name, Evaluation.id.desc())
    )
    return session.scalars(query).all()


def progress(session: Session, run: Run) -> dict[int, dict[str, int]]:
    """For each checkpoint id of a run, how many evaluations are in each status; visitors' prompts are none of them."""
    query = (
        select(Evaluation.checkpoint_id, Evaluation.status, func.count())
        .join(Evaluation.checkpoint)
        .join(Evaluation.task)
        .where(Checkpoint.run_id == run.id, Task.schedule != suites.IDLE)
        .group_by(Evaluation.checkpoint_id, Evaluation.status)
    )
    counts: dict[int, dict[str, int]] = {}
    for checkpoint_id, status, number in session.execute(query).all():
        counts.setdefault(checkpoint_id, {})[status] = number
    return counts


def totals(session: Session, run: Run) -> dict[str, int]:
    """How many evaluations of a run are in each status; visitors' prompts are none of them."""
    idle = select(Task.id).where(Task.schedule == suites.IDLE)
    query = (
        select(Evaluation.status, func.count())
        .join(Evaluation.checkpoint)
        .where(Checkpoint.run_id == run.id, Evaluation.task_id.not_in(idle))
        .group_by(Evaluation.status)
    )
    return {status: number for status, number in session.execute(query)}


def list_failed(session: Session, limit: int) -> tuple[Sequence[Evaluation], int]:
    """Evaluations that failed, the latest first, with checkpoint and task; and how many there are in all."""
    query = select(Evaluation).join(Evaluation.task).where(Evaluation.status == FAILED, _is_not_withdrawn())
    total = session.scalar(select(func.count()).select_from(query.subquery())) or 0
    known = (joinedload(Evaluation.checkpoint), joinedload(Evaluation.task))
    return session.scalars(query.options(*known).order_by(Evaluation.id.desc()).limit(limit)).all(), total


def _is_not_withdrawn() -> ColumnElement[bool]:
    return (Task.schedule != suites.IDLE) | Task.retired.is_(False)


def probe_evaluations(session: Session, run: Run) -> Sequence[Evaluation]:
    """Finished probe evaluations of a run's pretrained checkpoints by step, with checkpoint and task.

    Of the site's own prompts, not of those that visitors proposed.
    """
    query = (
        select(Evaluation)
        .join(Evaluation.checkpoint)
        .join(Evaluation.task)
        .where(
            Checkpoint.run_id == run.id,
            Checkpoint.kind == "pretrained",
            Checkpoint.state.in_(SCORED),
            Task.is_probe,
            Task.schedule != suites.IDLE,
            Evaluation.status == FINISHED,
        )
        .options(joinedload(Evaluation.checkpoint), joinedload(Evaluation.task), selectinload(Evaluation.slices))
        .order_by(Checkpoint.step)
    )
    return session.scalars(query).all()


def items_files(session: Session, run: Run) -> list[tuple[int, str, str]]:
    """Task, its name and items file of every set of probe prompts that a run was asked, the latest first.

    Not those of visitors.
    """
    query = (
        select(Evaluation.task_id, Task.name, Evaluation.items_file)
        .join(Evaluation.checkpoint)
        .join(Evaluation.task)
        .where(
            Checkpoint.run_id == run.id,
            Task.is_probe,
            Task.schedule != suites.IDLE,
            Evaluation.status == FINISHED,
            Evaluation.items_file != "",
        )
        .group_by(Evaluation.task_id, Task.name, Evaluation.items_file)
        .order_by(func.max(Evaluation.id).desc())
    )
    return [(task_id, name, file) for task_id, name, file in session.execute(query)]


def of_tasks(session: Session, run: Run, task_ids: Collection[int]) -> Sequence[Evaluation]:
    """A run's evaluations of some tasks at its pretrained 16-bit checkpoints, the oldest first.

    Of each only what leads to its answers is loaded: the status, and the files of the slices.
    """
    query = (
        select(Evaluation)
        .join(Evaluation.checkpoint)
        .where(
            Checkpoint.run_id == run.id,
            Checkpoint.kind == "pretrained",
            Checkpoint.precision == 16,
            Evaluation.task_id.in_(task_ids),
        )
        .options(
            load_only(Evaluation.checkpoint_id, Evaluation.status),
            selectinload(Evaluation.slices).load_only(Slice.evaluation_id, Slice.file),
        )
        .order_by(Evaluation.id)
    )
    return session.scalars(query).all()
