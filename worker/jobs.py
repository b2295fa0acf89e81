"""The worker's Celery jobs. Messages only wake; what there is to do stands in rows.

This is the edge of the worker: whatever goes wrong in a piece of work becomes a failed row with a
sentence here, and the process lives on.
"""

import os
import socket
import threading
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import structlog
from celery import Celery
from celery.signals import worker_ready, worker_shutdown, worker_shutting_down

from registry import chats, checkpoints, db, evaluations, events, jobs, tickets
from registry.errors import Conflict
from registry.models.base import FAILED, FINISHED, utcnow
from registry.settings import get_settings
from registry.tickets import CHAT, Claim
from worker.answer import answer_turn, fail_turn
from worker.engine import Engine, EngineDown, EngineError, make_engine
from worker.evaluate import Stopped, record, run_slice
from worker.lease import Lease, LeaseLost, Stopping
from worker.line import Residency
from worker.verify import verify_checkpoint

NUM_THREADS = 8
MAX_ATTEMPTS = 5
"""A ticket whose work took the engine down this often is not tried again."""
SWEEP_SECONDS = 5.0
BEAT_SECONDS = 5.0
FORGOTTEN_SECONDS = 15.0
"""A checkpoint that is unverified for this long may have lost its message."""

log = structlog.get_logger(__name__)
stopping = threading.Event()
_verifying: set[int] = set()
_verifying_lock = threading.Lock()


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


def work() -> None:
    """Take tickets until none can be claimed."""
    line = residency()
    while not stopping.is_set() and (claim := line.claim()) is not None:
        try:
            if line.num_in_flight < NUM_THREADS:
                _wake_another()
            work_on(claim, engine())
        finally:
            line.release(claim)


def work_on(claim: Claim, engine: Engine) -> None:
    """Do one piece of work; its outcome is recorded, whatever it is."""
    try:
        with Lease(claim, stopping) as lease:
            if claim.lane == CHAT:
                answer_turn(claim, engine, lease.check)
            else:
                _evaluate(claim, engine, lease)
    except (LeaseLost, Conflict) as error:
        log.info("A ticket was taken away; its result is dropped.", ticket_id=claim.ticket_id, reason=str(error))
    except Stopping:
        _give_back(claim)
    except EngineDown as error:
        log.warning("The engine went down.", ticket_id=claim.ticket_id, attempt=claim.fence, error=str(error))
        if claim.fence >= MAX_ATTEMPTS:
            _fail(claim, f"The engine went down {claim.fence} times at this; it is not tried again. Last: {error}")
        else:
            _give_back(claim)
    except EngineError as error:
        _fail(claim, str(error))
    except Exception as error:
        log.exception("A piece of work failed.", ticket_id=claim.ticket_id)
        _fail(claim, f"The worker met an unexpected error ({type(error).__name__}); its log has the details.")


def _evaluate(claim: Claim, engine: Engine, lease: Lease) -> None:
    assert claim.evaluation_id is not None
    with db.transaction() as session:
        evaluations.start(session, claim.evaluation_id)
    try:
        outcome = run_slice(engine, claim.evaluation_id, should_stop=lambda: lease.must_end)
    except Stopped:
        lease.check()
        raise
    with db.transaction() as session:
        tickets.finish(session, claim.ticket_id, claim.fence, FINISHED)
        record(session, claim.evaluation_id, outcome)
    events.publish_board("evaluation", _place(claim.evaluation_id))


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


def sweep() -> None:
    """Take back what silent workers held, and wake workers for whatever lost its message."""
    with db.transaction() as session:
        reclaimed = tickets.reclaim_expired(session)
        if tickets.num_queued(session):
            jobs.defer(session, jobs.WORK)
        for checkpoint in checkpoints.unverified(session):
            if (utcnow() - checkpoint.created_at).total_seconds() > FORGOTTEN_SECONDS:
                jobs.defer(session, jobs.VERIFY, checkpoint.id)
    if reclaimed:
        log.warning("Took back tickets of a silent worker.", number=reclaimed)


def register_jobs(app: Celery) -> Celery:
    """Put the jobs into a Celery app."""
    for name, job in ((jobs.WORK, work), (jobs.VERIFY, verify), (jobs.SWEEP, sweep)):
        app.task(name=name, shared=False)(_guarded(name, job))
    return app


def start_clock() -> None:
    """Sweep every few seconds in a thread of this process.

    Celery's own clock would send the sweep through the broker; this one also takes back leases
    while the broker is away or all threads are busy.
    """
    threading.Thread(target=_sweep_for_ever, name="clock", daemon=True).start()


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


def _give_back(claim: Claim) -> None:
    with db.transaction() as session:
        tickets.give_back(session, claim.ticket_id, claim.fence)
        if claim.turn_id is not None:
            chats.requeue_turn(session, claim.turn_id)
        if claim.evaluation_id is not None:
            evaluations.requeue(session, claim.evaluation_id)


def _fail(claim: Claim, error: str) -> None:
    try:
        if claim.turn_id is not None:
            fail_turn(claim, error)
        elif claim.evaluation_id is not None:
            with db.transaction() as session:
                tickets.finish(session, claim.ticket_id, claim.fence, FAILED, error)
                evaluations.fail(session, claim.evaluation_id, error)
            events.publish_board("evaluation", _place(claim.evaluation_id))
    except Conflict as conflict:
        log.info("A failure came too late to count.", ticket_id=claim.ticket_id, reason=str(conflict))


def _place(evaluation_id: int) -> dict[str, Any]:
    with db.read_session() as session:
        evaluation = evaluations.get_evaluation(session, evaluation_id)
        checkpoint = evaluation.checkpoint
        return {
            "run": checkpoint.run.name,
            "step": checkpoint.step,
            "task": evaluation.task.name,
            "checkpoint_id": checkpoint.id,
        }


def _beat_for_ever() -> None:
    while not stopping.wait(BEAT_SECONDS):
        events.worker_beat(worker_name(), residency().describe())


def _on_ready(**_: Any) -> None:
    stopping.clear()
    events.worker_beat(worker_name(), "idle")
    threading.Thread(target=_beat_for_ever, name="beat", daemon=True).start()


def _on_shutting_down(**_: Any) -> None:
    stopping.set()


def _on_shutdown(**_: Any) -> None:
    close_engine()


worker_ready.connect(_on_ready)
worker_shutting_down.connect(_on_shutting_down)
worker_shutdown.connect(_on_shutdown)
app = register_jobs(jobs.celery_app())
