"""Doing long jobs that people watch: claimed by id, kept by a lease, ended with a sentence."""

import threading
from collections.abc import Callable, Mapping
from typing import Any

import structlog
from sqlalchemy.exc import DBAPIError

from registry import db, events, joblog
from registry.errors import RegistryError
from registry.models import Job
from registry.models.base import CANCELLED, FAILED, FINISHED

RENEW_SECONDS = 15.0

log = structlog.get_logger(__name__)


class Cancelled(Exception):
    """Nobody wants the job any more, or another worker has it."""


class Report:
    """What a job calls to say how far it is."""

    def __init__(self, job_id: int, fence: int) -> None:
        self._job_id, self._fence = job_id, fence
        self._lost, self._over = threading.Event(), threading.Event()

    def __call__(self, line: str = "", progress: float | None = None) -> None:
        """Keep a line in the job's log and move its progress, from 0 to 1.

        Raises:
            Cancelled: stop now and leave nothing behind.
        """
        with db.transaction() as session:
            wanted = joblog.report(session, self._job_id, self._fence, progress=progress, line=line)
        if not wanted:
            self._lost.set()
        self.check()
        events.publish_board("job", {"id": self._job_id})

    def check(self) -> None:
        """Call between steps of the work; costs nothing.

        Raises:
            Cancelled: stop now and leave nothing behind.
        """
        if self._lost.is_set():
            raise Cancelled

    @property
    def is_lost(self) -> bool:
        """Whether `check` would raise."""
        return self._lost.is_set()

    def keep(self) -> None:
        """Renew the lease until `release`; run in a thread of its own."""
        while not self._over.wait(RENEW_SECONDS):
            try:
                with db.transaction() as session:
                    if not joblog.report(session, self._job_id, self._fence):
                        self._lost.set()
                        return
            except DBAPIError as error:
                log.warning("A job's lease could not be renewed.", job_id=self._job_id, error=str(error))

    def release(self) -> None:
        """End `keep`."""
        self._over.set()


Work = Callable[[Job, Report], None]
"""Does one job; raises RegistryError with a sentence where it cannot, `Cancelled` where it should not."""


def run_job(job_id: int, worker: str, work: Mapping[str, Work]) -> None:
    """Do one job to its end; its outcome is recorded, whatever it is."""
    with db.transaction() as session:
        fence = joblog.claim(session, job_id, worker)
        if fence is None:
            return
        job = joblog.get_job(session, job_id)
    report = Report(job_id, fence)
    keeper = threading.Thread(target=report.keep, name=f"job-{job_id}", daemon=True)
    keeper.start()
    try:
        status, error = _outcome(job, report, work)
    finally:
        report.release()
        keeper.join()
    with db.transaction() as session:
        joblog.finish(session, job_id, fence, status, error)
    events.publish_board("job", {"id": job_id, "status": status})


def _outcome(job: Job, report: Report, work: Mapping[str, Any]) -> tuple[str, str]:
    try:
        if job.kind not in work:
            return FAILED, f"This worker does not know jobs of the kind '{job.kind}'."
        work[job.kind](job, report)
    except Cancelled:
        return CANCELLED, ""
    except RegistryError as error:
        return FAILED, str(error)
    except Exception as error:  # the edge of the worker: the process lives on
        log.exception("A job failed.", job_id=job.id, kind=job.kind)
        return FAILED, f"{type(error).__name__}: {error}"[:500]
    return FINISHED, ""
