"""Keeping a ticket while working on it."""

import threading
from types import TracebackType
from typing import Self

import structlog
from sqlalchemy.exc import DBAPIError

from registry import db, tickets
from registry.tickets import Claim

RENEW_SECONDS = 8.0

log = structlog.get_logger(__name__)


class LeaseLost(Exception):
    """The ticket was cancelled or went to another worker: what was computed must not be recorded."""


class Stopping(Exception):
    """This worker is shutting down: the ticket goes back to the line."""


class Lease:
    """Renews in a thread of its own, so that a long batch in the engine does not cost the ticket."""

    def __init__(self, claim: Claim, stopping: threading.Event, *, renew_seconds: float = RENEW_SECONDS) -> None:
        self.claim = claim
        self._stopping = stopping
        self._renew_seconds = renew_seconds
        self._lost = threading.Event()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._renew, name=f"lease-{claim.ticket_id}", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        self._thread.join()

    @property
    def must_end(self) -> bool:
        """Whether `check` would raise."""
        return self._lost.is_set() or self._stopping.is_set()

    def check(self) -> None:
        """Call between steps of the work; costs nothing.

        Raises:
            LeaseLost: somebody else has the ticket, or nobody wants it any more.
            Stopping: the worker was asked to end.
        """
        if self._lost.is_set():
            raise LeaseLost(f"Ticket {self.claim.ticket_id} is no longer held under number {self.claim.fence}.")
        if self._stopping.is_set():
            raise Stopping("The worker is shutting down.")

    def _renew(self) -> None:
        while not self._over.wait(self._renew_seconds):
            try:
                with db.transaction() as session:
                    held = tickets.renew(session, self.claim.ticket_id, self.claim.fence)
            except DBAPIError as error:
                # The lease lasts for several of these attempts; the fence decides in the end.
                log.warning("A lease could not be renewed.", ticket_id=self.claim.ticket_id, error=str(error))
                continue
            if not held:
                self._lost.set()
                return
