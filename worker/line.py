"""Which ticket a worker process may take next, given what its one engine is busy with.

All threads of the process share the engine, and the engine holds one checkpoint. Answers of that
checkpoint are written side by side; a swap waits until nothing is in flight.
"""

import datetime as dt
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeVar

from sqlalchemy.orm import Session

from registry import db, tickets
from registry.models.base import utcnow
from registry.schedule import MIN_SHARE_OF_PATIENCE
from registry.settings import get_settings
from registry.tickets import ANSWERS, IDLE, LANES, QUANTIZATION, Claim

IDLE_AFTER_SECONDS = 20.0
"""Visitors' prompts and the scores of quantized checkpoints wait until nobody has written to a model for this long:
whoever chats keeps their checkpoint."""
FIRST_GUESS_TOKENS_PER_SECOND = 20.0
"""What one answer gets before any was measured."""
SMOOTHING = 0.2
QUIET = (IDLE, QUANTIZATION)
"""Lanes that wait for quiet; that of quantized checkpoints not for ever: it is served at least every so often."""
SLICED = tuple(lane for lane in LANES if lane not in (*ANSWERS, *QUIET))
"""Lanes whose work goes slice by slice beside the answers of its checkpoint."""

MOST_AT_ONCE = 16
"""Taken in one transaction: whoever sends meanwhile waits for its end."""

T = TypeVar("T")


class Rule(NamedTuple):
    """What may be claimed now; no lanes: nothing."""

    only_checkpoint_id: int | None
    lanes: tuple[int, ...]
    prefer_checkpoint_id: int | None


class InFlight(NamedTuple):
    """A claim that threads of this process work on, since when by the process's clock."""

    claim: Claim
    since: float


class Residency:
    """The process's own book of what is in flight; `claim` and `release` may be called by any thread."""

    def __init__(
        self,
        worker: str,
        *,
        patience_seconds: float | None = None,
        idle_after_seconds: float = IDLE_AFTER_SECONDS,
        max_answers: int | None = None,
    ) -> None:
        settings = get_settings()
        self.worker = worker
        self._patience = settings.swap_wait_seconds if patience_seconds is None else patience_seconds
        self._idle_after = dt.timedelta(seconds=idle_after_seconds)
        self._max_answers = max_answers or settings.answers_at_once
        self._lock = threading.Lock()
        self._checkpoint_id: int | None = None
        self._left: dict[int, dt.datetime] = {}
        """When each checkpoint was last resident: nobody waits for a swap before that."""
        self._in_flight: dict[int, InFlight] = {}
        self._tokens_per_second = FIRST_GUESS_TOKENS_PER_SECOND
        self._load_seconds: float | None = None

    def claim(self) -> Claim | None:
        """Take the best ticket that fits to what is in flight; None when there is none for now."""
        taken = self.take(lambda session, claim: None, limit=1)
        return taken[0][0] if taken else None

    def take(
        self,
        read: Callable[[Session, Claim], T],
        *,
        limit: int | None = None,
        lanes: Sequence[int] = tuple(LANES),
    ) -> list[tuple[Claim, T]]:
        """Take the best tickets that fit to what is in flight and to each other, and read what they ask.

        Args:
            read: called for each in the transaction that takes it.
            limit: take at most so many; without, as many answers as the engine has room for, up to `MOST_AT_ONCE`.
            lanes: take from these alone; where it is another lane's turn, nothing.
        """
        # The lock covers the query: between choosing and noting it down no other thread may choose.
        with self._lock:
            with db.transaction() as session:
                rule = self._rule(session)
                allowed = tuple(lane for lane in rule.lanes if lane in lanes)
                if not allowed:
                    return []
                room = max(1, self._max_answers - self._num_answers())
                claims = tickets.claim_some(
                    session,
                    self.worker,
                    limit or min(room, MOST_AT_ONCE),
                    resident_id=rule.prefer_checkpoint_id,
                    only_checkpoint_id=rule.only_checkpoint_id,
                    lanes=allowed,
                )
                taken = [(claim, read(session, claim)) for claim in claims]
            for claim, _ in taken:
                self._note(claim)
            return taken

    def _note(self, claim: Claim) -> None:
        if self._checkpoint_id is not None and self._checkpoint_id != claim.checkpoint_id:
            self._left[self._checkpoint_id] = utcnow()
        self._checkpoint_id = claim.checkpoint_id
        self._in_flight[claim.ticket_id] = InFlight(claim, time.monotonic())

    def release(self, claim: Claim, *, tokens: int | None = None, seconds: float | None = None) -> None:
        """The work on a claim is over, however it ended; so many tokens came in so many seconds after the first."""
        with self._lock:
            self._in_flight.pop(claim.ticket_id, None)
            if tokens and tokens > 1 and seconds:
                self._tokens_per_second += SMOOTHING * ((tokens - 1) / seconds - self._tokens_per_second)

    def note_load(self, seconds: float) -> None:
        """Putting a checkpoint into the engine took so long."""
        with self._lock:
            self._load_seconds = seconds

    @property
    def num_in_flight(self) -> int:
        """Tickets that threads of this process work on."""
        with self._lock:
            return len(self._in_flight)

    def describe(self) -> str:
        """In a few words what this process does."""
        with self._lock:
            answers, others = self._num_answers(), len(self._in_flight) - self._num_answers()
        return f"{answers} answers, {others} evaluations" if answers or others else "idle"

    def facts(self) -> dict[str, Any]:
        """What the waiting times of others are worked out from."""
        with self._lock:
            return {
                "checkpoint_id": self._checkpoint_id,
                "max_answers": self._max_answers,
                "patience": self._patience,
                "load_seconds": self._load_seconds,
            }

    def holdings(self) -> dict[str, Any]:
        """The resident checkpoint, the tickets in hand and the speed, for whoever looks after the workers."""
        now = time.monotonic()
        with self._lock:
            held = [
                {
                    "ticket_id": one.claim.ticket_id,
                    "lane": LANES[one.claim.lane],
                    "evaluation_id": one.claim.evaluation_id,
                    "seconds": round(now - one.since, 1),
                }
                for one in self._in_flight.values()
            ]
            speed = self._tokens_per_second
            is_measured = speed != FIRST_GUESS_TOKENS_PER_SECOND
            return {
                "checkpoint_id": self._checkpoint_id,
                "tickets": held,
                "tokens_per_second": round(speed, 1) if is_measured else None,
            }

    def _num_answers(self) -> int:
        return sum(one.claim.is_answer for one in self._in_flight.values())

    def _rule(self, session: Session) -> Rule:
        if not self._in_flight:
            return self._free_choice(session)
        nothing = Rule(self._checkpoint_id, (), None)
        if self._impatient(session) is not None:
            return nothing  # somebody who waits for another checkpoint has waited enough
        beside: tuple[int, ...] = ()
        answers = self._num_answers()
        if answers < self._max_answers:
            beside += ANSWERS
        if answers == len(self._in_flight):  # one evaluation at a time
            beside += SLICED
        starving = tickets.starving_lane(session, ANSWERS + SLICED)
        if starving is None:
            return Rule(self._checkpoint_id, beside, None)
        if starving in beside and tickets.has_waiting(session, starving, self._checkpoint_id):
            return Rule(self._checkpoint_id, (starving,), None)
        return nothing

    def _free_choice(self, session: Session) -> Rule:
        lanes = tuple(LANES) if self._is_quiet(session) else ANSWERS + SLICED
        starving = tickets.starving_lane(session, tuple({*lanes, QUANTIZATION}))
        if starving is not None:
            return Rule(None, (starving,), self._checkpoint_id)
        impatient = self._impatient(session)
        if impatient is not None:
            return Rule(impatient, ANSWERS, None)
        # The resident checkpoint saves a swap, but not at the price of somebody's patience.
        # A backlog of evaluations has no patience to lose: it goes checkpoint by checkpoint.
        return Rule(None, lanes, self._checkpoint_id)

    def _is_quiet(self, session: Session) -> bool:
        return not tickets.somebody_chats(session, utcnow() - self._idle_after)

    def _impatient(self, session: Session) -> int | None:
        """The checkpoint whose people have waited longest for it, where that is as long as anybody should."""
        if self._checkpoint_id is None:
            return None
        since = tickets.waiting_since(session, ANSWERS)
        since.pop(self._checkpoint_id, None)
        now = utcnow()
        waits = {one: now - max(began, self._left.get(one, began)) for one, began in since.items()}
        longest = max(waits, key=lambda one: waits[one], default=None)
        if longest is None:
            return None
        enough = max(self._patience - self._drain_seconds(), MIN_SHARE_OF_PATIENCE * self._patience)
        return longest if waits[longest].total_seconds() >= enough else None

    def _drain_seconds(self) -> float:
        """How long the answers in flight may go on."""
        now = time.monotonic()
        left = [
            one.claim.size / self._tokens_per_second - (now - one.since)
            for one in self._in_flight.values()
            if one.claim.is_answer
        ]
        return max(left, default=0.0)
