"""How a piece of work ends when it does not end well: back to its place in the line, or failed with a sentence."""

from typing import Any

import structlog

from registry import calls, changes, chats, db, evaluations, events, tickets
from registry.errors import Conflict, RegistryError
from registry.models.base import FAILED
from registry.tickets import Claim
from worker.engine import EngineDown, EngineError
from worker.evaluate import TaskError, remove_orphans
from worker.lease import LeaseLost, Stopping

MAX_ATTEMPTS = 5
"""A ticket whose work took the engine, or the whole worker, down this often is not tried again."""

log = structlog.get_logger(__name__)


def settle(claim: Claim, error: BaseException) -> None:
    """Record what became of a claim whose work raised `error`."""
    if isinstance(error, LeaseLost | Conflict):
        log.info("A ticket was taken away; its result is dropped.", ticket_id=claim.ticket_id, reason=str(error))
    elif isinstance(error, Stopping):
        give_back(claim, blameless=True)
    elif isinstance(error, EngineDown):
        _settle_death(claim, error)
    elif isinstance(error, EngineError | TaskError | RegistryError):
        fail(claim, str(error))
    else:
        log.error("A piece of work failed.", ticket_id=claim.ticket_id, exc_info=error)
        fail(claim, f"The worker met an unexpected error ({type(error).__name__}); its log has the details.")


def _settle_death(claim: Claim, error: EngineDown) -> None:
    log.warning("The engine went down.", ticket_id=claim.ticket_id, attempt=claim.attempts, error=str(error))
    if claim.attempts >= MAX_ATTEMPTS:
        sentence = f"The engine went down {claim.attempts} times at this; it is not tried again. Last: {error}"
        fail(claim, sentence, error.log)
    else:
        give_back(claim)


def give_back(claim: Claim, *, blameless: bool = False) -> None:
    """Put a ticket and what it stands for back to their old place."""
    with db.transaction() as session:
        if not tickets.give_back(session, claim.ticket_id, claim.fence, blameless=blameless):
            return
        if claim.turn_id is not None:
            chats.requeue_turn(session, claim.turn_id)
        elif claim.call_id is not None:
            calls.requeue(session, claim.call_id)
        elif claim.evaluation_id is not None:
            evaluations.requeue(session, claim.evaluation_id)


def fail(claim: Claim, error: str, log_lines: str = "") -> None:
    """Record a failure, unless somebody else has the ticket by now; `error` is a sentence for whoever asked."""
    try:
        with db.transaction() as session:
            tickets.finish(session, claim.ticket_id, claim.fence, FAILED, error)
            if claim.evaluation_id is not None:
                evaluations.fail(session, claim.evaluation_id, error, log_lines)
                changes.tell_losses(session, claim.checkpoint_id)
            else:
                _fail_answer(session, claim, error)
        if claim.evaluation_id is not None:
            remove_orphans(claim.evaluation_id)
            events.publish_board("evaluation", place(claim.evaluation_id))
    except Conflict as conflict:
        log.info("A failure came too late to count.", ticket_id=claim.ticket_id, reason=str(conflict))


def _fail_answer(session: Any, claim: Claim, error: str) -> None:
    end: dict[str, Any] = {"status": FAILED, "finish_reason": "error", "error": error}
    if claim.turn_id is not None:
        chats.close_turn(session, claim.turn_id, **end)
    elif claim.call_id is not None:
        calls.close_call(session, claim.call_id, result=None, **end)
    events.announce(session, events.subject_of(turn_id=claim.turn_id, call_id=claim.call_id), "done", end)


def place(evaluation_id: int) -> dict[str, Any]:
    """What the board's event of an evaluation says."""
    with db.read_session() as session:
        evaluation = evaluations.get_evaluation(session, evaluation_id)
        checkpoint = evaluation.checkpoint
        return {
            "run": checkpoint.run.name,
            "step": checkpoint.step,
            "task": evaluation.task.name,
            "checkpoint_id": checkpoint.id,
        }
