"""The worker's Celery jobs. Messages only wake; what there is to do stands in rows.

This is the edge of the worker: whatever goes wrong in a piece of work becomes a failed row with a
sentence here, and the process lives on.
"""

import contextlib
import os
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import Any

import structlog
from celery import Celery
from celery.signals import worker_ready, worker_shutdown, worker_shutting_down
from sqlalchemy.orm import Session

from registry import (
    calls,
    changes,
    checkpoints,
    db,
    evaluations,
    events,
    forecasts,
    heap,
    history,
    hubcommits,
    joblog,
    jobs,
    ledger,
    limits,
    news,
    quantizations,
    quantloss,
    retention,
    suites,
    tickets,
    webhooks,
)
from registry.errors import RegistryError
from registry.models.base import CANCELLED, FINISHED, utcnow
from registry.settings import get_settings
from registry.tickets import Claim
from worker import bell, peaks, questions, runner
from worker.about import about as about_worker
from worker.average import average
from worker.budget import why_too_dear
from worker.calls import answer_call
from worker.desk import Desk
from worker.engine import Engine, make_engine
from worker.evaluate import Stopped, TaskError, record, remove_orphans, run_slice
from worker.importhub import import_hub
from worker.lease import Lease
from worker.line import Residency
from worker.outcomes import MAX_ATTEMPTS, fail, place, settle
from worker.quantize import quantize
from worker.questions import Question, is_streamed
from worker.receive import receive, sweep_uploads
from worker.retention import apply_rule
from worker.tasks import prepare_task
from worker.tidy import tidy_for_ever
from worker.verify import verify_checkpoint
from worker.webhooks import deliver

SWEEP_SECONDS = 5.0
BEAT_SECONDS = 5.0
MEASURE_SECONDS = 30.0
SWITCH_SECONDS = 0.001
"""The desk passes words on in one thread: it does not wait five milliseconds for its turn while others work."""
FORGOTTEN_SECONDS = 15.0
"""A checkpoint that is unverified for this long may have lost its message."""

log = structlog.get_logger(__name__)
stopping = threading.Event()
_queues: set[str] = set()
"""Those that this process listens to."""
_rung = threading.Event()
"""Somebody may have asked, or there may be room again."""
_verifying: set[int] = set()
_verifying_lock = threading.Lock()
_running = threading.Lock()
"""Held while a long job is done: two quantizations side by side would take the memory of both."""


def worker_name() -> str:
    """Names this process in leases and on the board of workers."""
    return f"{socket.gethostname()}:{os.getpid()}"


@lru_cache
def residency() -> Residency:
    """The book of this process."""
    return Residency(worker_name())


@lru_cache
def engine() -> Engine:
    """The engine of this process; made when first needed, started by its first `use`."""
    return make_engine(get_settings())


@lru_cache
def desk() -> Desk:
    """Where this process writes its answers."""
    return Desk(residency(), stopping, on_end=_after_answers)


def work() -> None:
    """Take tickets until none can be claimed. Answers are only begun here; the desk sees them to their end."""
    line = residency()
    while not stopping.is_set() and (taken := line.take(read_question)):
        for claim in _begin_answers(taken):
            _work_and_release(claim)


def answer() -> None:
    """Begin the answers for which there is room; what is not written at the desk gets a thread of its own."""
    line = residency()
    while not stopping.is_set() and (taken := line.take(read_question, lanes=tickets.ANSWERS)):
        for claim in _begin_answers(taken):
            threading.Thread(target=_work_and_release, args=(claim,), name="answer", daemon=True).start()


def _begin_answers(taken: list[tuple[Claim, Question | None]]) -> list[Claim]:
    """Begin what is written at the desk; returns what is left to do."""
    streamed = [(claim, question) for claim, question in taken if question is not None]
    if streamed:
        desk().begin_all(streamed, engine())
    return [claim for claim, question in taken if question is None]


def read_question(session: Session, claim: Claim) -> Question | None:
    """What a ticket asks to be written; None for all that is not written at the desk."""
    return questions.read(session, claim) if claim.attempts <= MAX_ATTEMPTS and is_streamed(session, claim) else None


def _work_and_release(claim: Claim) -> None:
    try:
        _wake_another()
        work_on(claim, engine())
    finally:
        residency().release(claim)


def work_on(claim: Claim, engine: Engine) -> None:
    """Do one piece of work to its end; its outcome is recorded, whatever it is."""
    if claim.attempts > MAX_ATTEMPTS:  # an engine's death is counted when it is met; these were of whole workers
        fail(claim, f"The worker went down {MAX_ATTEMPTS} times at this; it is not tried again.")
        return
    try:
        with Lease(claim, stopping) as lease:
            if claim.call_id is not None:
                answer_call(claim, engine, lease.check)
            else:
                _evaluate(claim, engine, lease)
    except Exception as error:  # the edge of the worker: the process lives on
        settle(claim, error)


def _evaluate(claim: Claim, engine: Engine, lease: Lease) -> None:
    """One slice; the ticket goes back to its place while items are left, so that a chat can come between."""
    assert claim.evaluation_id is not None
    with db.read_session() as session:
        reason = why_too_dear(session, claim.evaluation_id)
    if reason is not None:
        _give_up(claim, reason)
        return
    try:
        outcome = run_slice(engine, claim.evaluation_id, should_stop=lambda: lease.must_end)
    except Stopped:
        lease.check()
        raise
    with db.transaction() as session:
        if outcome.is_last:
            tickets.finish(session, claim.ticket_id, claim.fence, FINISHED)
        else:
            tickets.next_slice(session, claim.ticket_id, claim.fence)
        record(session, claim.evaluation_id, outcome)
    if outcome.is_last:
        remove_orphans(claim.evaluation_id)
        events.publish_board("evaluation", place(claim.evaluation_id))


def _give_up(claim: Claim, reason: str) -> None:
    assert claim.evaluation_id is not None
    with db.transaction() as session:
        tickets.finish(session, claim.ticket_id, claim.fence, CANCELLED, reason)
        evaluations.cancel(session, claim.evaluation_id, reason)
        changes.tell_losses(session, claim.checkpoint_id)
    remove_orphans(claim.evaluation_id)
    events.publish_board("evaluation", place(claim.evaluation_id))


def compare(evaluation_id: int) -> None:
    """Say what an evaluation changed against the checkpoint before, and the next one against it."""
    with db.read_session() as session:
        evaluation = changes.load(session, evaluation_id)
        if evaluation is None:
            return
        pairs = changes.pairs(session, evaluation)
        forms = quantloss.pairs(session, evaluation)
        sources = ledger.sources(session, evaluation) if ledger.is_due(session, evaluation) else []
    found = [(pair, changes.difference(pair)) for pair in pairs]
    lost = [(pair, changes.difference(pair)) for pair in forms]
    if sources:
        with _helpful(evaluation_id):
            history.compact(sources, ledger.folder(evaluation))
    with db.transaction() as session:
        for pair, difference in found:
            changes.record(session, pair, difference)
        for pair, difference in lost:
            quantloss.record(session, pair, difference)
        changes.mark_compared(session, evaluation_id)
    for pair, _ in [*found, *lost]:
        events.publish_board("evaluation", place(pair.after.id))
    foretell(evaluation_id)
    with db.read_session() as session, _helpful(evaluation_id):
        ledger.keep_cells(session, evaluation_id)


@contextlib.contextmanager
def _helpful(evaluation_id: int) -> Iterator[None]:
    """Around files that only make pages faster: where an answer's file is broken, the log says so and work goes on."""
    try:
        yield
    except (RegistryError, OSError) as error:
        log.warning("Answers cannot be gathered in one file.", evaluation_id=evaluation_id, error=str(error))


def foretell(evaluation_id: int) -> None:
    """Score the forecasts that an evaluation decides, and write down where its curve goes from here."""
    with db.read_session() as session:
        evaluation = changes.load(session, evaluation_id)
        made = forecasts.make(session, evaluation) if evaluation is not None else []
    with db.transaction() as session:
        forecasts.keep(session, made)
        evaluation = changes.load(session, evaluation_id)
        if evaluation is not None:
            forecasts.score(session, evaluation)


def close_engine() -> None:
    """End the engine of this process, if it ever had one."""
    if engine.cache_info().currsize:
        engine().close()


def verify(checkpoint_id: int) -> None:
    """Verify one checkpoint, once at a time in this process."""
    with _verifying_lock:
        if checkpoint_id in _verifying:
            return
        _verifying.add(checkpoint_id)
    try:
        verify_checkpoint(checkpoint_id)
    finally:
        with _verifying_lock:
            _verifying.discard(checkpoint_id)


WORK_OF_KIND: dict[str, runner.Work] = {
    joblog.AVERAGE: average,
    joblog.IMPORT_HUB: import_hub,
    joblog.QUANTIZE: quantize,
    joblog.RETENTION: apply_rule,
    joblog.UNPACK: receive,
}
"""What does each kind of long job."""


def run(job_id: int) -> None:
    """Do a long job that people watch, then the others that wait; one at a time in this process."""
    if not _running.acquire(blocking=False):
        return  # whoever has it goes on with this one
    try:
        waiting: int | None = job_id
        while waiting is not None and not stopping.is_set():
            runner.run_job(waiting, worker_name(), WORK_OF_KIND)
            with db.read_session() as session:
                waiting = joblog.next_queued(session)
    finally:
        _running.release()


def sweep() -> None:
    """Take back what silent workers held, and wake workers for whatever lost its message."""
    with db.transaction() as session:
        reclaimed = tickets.reclaim_expired(session)
        joblog.reclaim_expired(session)
        for commit_id in hubcommits.due(session):
            jobs.defer(session, jobs.ADMIT, commit_id)
        quantizations.plan_missing(session)
        appeared = news.announce_due(session)
        retention.plan_due(session)
        calls.empty_delivered(session)
        if tickets.num_queued(session):
            jobs.defer(session, jobs.WORK)
        for evaluation_id in changes.forgotten(session):
            jobs.defer(session, jobs.COMPARE, evaluation_id)
        for webhook_id in webhooks.due(session):
            jobs.defer(session, jobs.DELIVER, webhook_id)
        for checkpoint in checkpoints.unverified(session):
            if (utcnow() - checkpoint.created_at).total_seconds() > FORGOTTEN_SECONDS:
                jobs.defer(session, jobs.VERIFY, checkpoint.id)
    for post_id in appeared:
        events.publish_board("post", {"id": post_id})
    if reclaimed:
        log.warning("Took back tickets of a silent worker.", number=reclaimed)
    sweep_uploads()


def register_jobs(app: Celery) -> Celery:
    """Put the jobs into a Celery app."""
    known: dict[str, Callable[..., None]] = {
        jobs.WORK: work,
        jobs.VERIFY: verify,
        jobs.COMPARE: compare,
        jobs.RUN: run,
        jobs.DELIVER: deliver,
        jobs.SWEEP: sweep,
        jobs.ADMIT: hubcommits.admit_due,
    }
    for name, job in known.items():
        app.task(name=name, shared=False)(_guarded(name, job))
    return app


def start_clock() -> None:
    """Sweep every few seconds in a thread of this process.

    Celery's own clock would send the sweep through the broker; this one also takes back leases
    while the broker is away or all threads are busy.
    """
    threading.Thread(target=_sweep_for_ever, name="clock", daemon=True).start()
    threading.Thread(target=tidy_for_ever, args=(stopping,), name="tidy", daemon=True).start()


def _sweep_for_ever() -> None:
    guarded = _guarded(jobs.SWEEP, sweep)
    while not stopping.wait(SWEEP_SECONDS):
        guarded()


def _guarded(name: str, job: Callable[..., None]) -> Callable[..., None]:
    def run(*args: int) -> None:
        try:
            job(*args)
        except Exception:  # the message is gone either way; the sweep sends another while there is work
            log.exception("A job failed; the sweep will send it again.", job=name, args=args)

    run.__name__ = name.replace(".", "_")
    return run


def _wake_another() -> None:
    with db.read_session() as session:
        more = tickets.num_queued(session)
    if more:
        jobs.send(jobs.WORK)


def _after_answers() -> None:
    """There is room now: for the next answers here, or it may be an evaluation's turn."""
    _rung.set()
    with db.read_session() as session:
        is_due = tickets.has_queued(session, tickets.NO_ANSWERS)
    if is_due:
        jobs.send(jobs.WORK)


def _answer_for_ever() -> None:
    guarded = _guarded("worker.answer", answer)
    while not stopping.is_set():
        if _rung.wait(bell.LISTEN_SECONDS):
            _rung.clear()
            guarded()


def _beat() -> None:
    made = engine() if engine.cache_info().currsize else None
    about = about_worker(residency(), made, sorted(_queues))
    events.worker_beat(worker_name(), residency().describe(), residency().facts(), about)


def _beat_for_ever() -> None:
    while not stopping.wait(BEAT_SECONDS):
        limits.refresh()
        _beat()


def _measure_for_ever() -> None:
    """What the engine holds is looked at now and then; a peak stays, so that none is missed between."""
    guarded = _guarded("worker.peaks", lambda: peaks.record(engine()))
    while not stopping.wait(MEASURE_SECONDS):
        if engine.cache_info().currsize:
            guarded()


def warm_up() -> None:
    """Build the panel's items before the first checkpoint asks for them: twenty seconds, once a process."""
    with db.read_session() as session:
        names = [task.name for task in suites.list_tasks(session) if task.schedule == suites.PANEL]
    for name in names:
        if stopping.is_set():
            return
        with contextlib.suppress(TaskError):  # the evaluation that asks for it says so on its page
            prepare_task(name)
    heap.freeze()


def _on_ready(sender: Any = None, **_: Any) -> None:
    stopping.clear()
    if sender is not None:
        _queues.update(queue.name for queue in sender.task_consumer.queues)
    limits.refresh()
    _beat()
    threading.Thread(target=_beat_for_ever, name="beat", daemon=True).start()
    heap.freeze()
    sys.setswitchinterval(SWITCH_SECONDS)
    if sender is None or jobs.QUEUES[jobs.WORK] in {queue.name for queue in sender.task_consumer.queues}:
        threading.Thread(target=_guarded("worker.warm_up", warm_up), name="warm-up", daemon=True).start()
        threading.Thread(target=_measure_for_ever, name="memory", daemon=True).start()
        threading.Thread(target=bell.listen, args=(_rung, stopping), name="bell", daemon=True).start()
        threading.Thread(target=_answer_for_ever, name="answers", daemon=True).start()


def _on_shutting_down(**_: Any) -> None:
    stopping.set()


def _on_shutdown(**_: Any) -> None:
    close_engine()


worker_ready.connect(_on_ready)
worker_shutting_down.connect(_on_shutting_down)
worker_shutdown.connect(_on_shutdown)
app = register_jobs(jobs.celery_app())
