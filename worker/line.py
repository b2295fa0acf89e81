"""Which ticket a worker process may take next, given what its one engine is busy with.

All threads of the process share the engine, and the engine holds one checkpoint. Turns on that
checkpoint run side by side; a swap waits until nothing is in flight.
"""

import datetime as dt
import threading
from typing import NamedTuple

from sqlalchemy.orm import Session

from registry import db, tickets
from registry.models.base import utcnow
from registry.tickets import CHAT, EVALUATION, Claim

PATIENCE_SECONDS = 20.0
"""A ticket for another checkpoint that has waited this long stops new work on the resident one."""


class Rule(NamedTuple):
    """What may be claimed now."""

    only_checkpoint_id: int | None
    lanes: tuple[int, ...]
    prefer_checkpoint_id: int | None


class Residency:
    """The process's own book of what is in flight; `claim` and `release` may be called by any thread."""

    def __init__(self, worker: str, *, patience_seconds: float = PATIENCE_SECONDS) -> None:
        self.worker = worker
        self._patience = dt.timedelta(seconds=patience_seconds)
        self._lock = threading.Lock()
        self._checkpoint_id: int | None = None
        self._in_flight: dict[int, Claim] = {}

    @property
    def num_in_flight(self) -> int:
        """Tickets that threads of this process work on."""
        with self._lock:
            return len(self._in_flight)

    def claim(self) -> Claim | None:
        """Take the best ticket that fits to what is in flight; None when there is none for now."""
        # The lock covers the query: between choosing and noting it down no other thread may choose.
        with self._lock, db.transaction() as session:
            rule = self._rule(session)
            claim = tickets.claim(
                session,
                self.worker,
                resident_id=rule.prefer_checkpoint_id,
                only_checkpoint_id=rule.only_checkpoint_id,
                lanes=rule.lanes,
            )
            if claim is not None:
                self._checkpoint_id = claim.checkpoint_id
                self._in_flight[claim.ticket_id] = claim
            return claim

    def release(self, claim: Claim) -> None:
        """The work on a claim is over, however it ended."""
        with self._lock:
            self._in_flight.pop(claim.ticket_id, None)

    def describe(self) -> str:
        """In a few words what this process does."""
        with self._lock:
            lanes = [claim.lane for claim in self._in_flight.values()]
        if not lanes:
            return "idle"
        return f"{lanes.count(CHAT)} answers, {lanes.count(EVALUATION)} evaluations"

    def _rule(self, session: Session) -> Rule:
        if self._checkpoint_id is None:
            return Rule(None, (CHAT, EVALUATION), None)
        if not self._in_flight:
            # The resident checkpoint saves a swap, but not at the price of somebody's patience.
            overdue = self._is_overdue(session, (CHAT, EVALUATION))
            return Rule(None, (CHAT, EVALUATION), None if overdue else self._checkpoint_id)
        lanes = []
        # Evaluations of others may wait behind chats with the resident checkpoint, chats may not.
        if not self._is_overdue(session, (CHAT,)):
            lanes.append(CHAT)
            evaluating = any(claim.lane == EVALUATION for claim in self._in_flight.values())
            if not evaluating and not self._is_overdue(session, (EVALUATION,)):
                lanes.append(EVALUATION)
        return Rule(self._checkpoint_id, tuple(lanes), None)

    def _is_overdue(self, session: Session, lanes: tuple[int, ...]) -> bool:
        assert self._checkpoint_id is not None
        since = tickets.oldest_wait(session, not_checkpoint_id=self._checkpoint_id, lanes=lanes)
        return since is not None and utcnow() - since > self._patience
