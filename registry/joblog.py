"""Verbs of long jobs that people watch: quantizing, averaging, importing.

Their rows are the truth; a Celery message (`jobs.RUN`) carries one id and only wakes a worker. A worker holds a job by
a lease that it keeps renewing, and `fence` grows with each claim: what a worker reports after it was given up for lost
is refused.
"""

import datetime as dt
from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import func, select, update
from sqlalchemy.orm import Session

from registry import jobs, webhooks
from registry.errors import Conflict, NotFound
from registry.models import Checkpoint, Job, User
from registry.models.base import CANCELLED, FAILED, FINISHED, QUEUED, RUNNING, utcnow

QUANTIZE, AVERAGE, IMPORT_HUB, RETENTION = "quantize", "average", "import-hub", "retention"
UNPACK = "unpack"
"""Make a checkpoint of an upload whose files are all here."""
KINDS = (QUANTIZE, AVERAGE, IMPORT_HUB, RETENTION, UNPACK)
LEASE_SECONDS = 60
MAX_ATTEMPTS = 3
LOG_CHARS = 20_000
OPEN = (QUEUED, RUNNING)


def plan(
    session: Session,
    kind: str,
    *,
    checkpoint: Checkpoint | None = None,
    args: Mapping[str, Any] | None = None,
    user: User | None = None,
) -> Job:
    """Ask for a job; the same one that is still open is given instead of a second."""
    wanted = dict(args or {})
    same = select(Job).where(Job.kind == kind, Job.status.in_(OPEN))
    same = same.where(Job.checkpoint_id == (checkpoint.id if checkpoint is not None else None))
    for known in session.scalars(same):
        if known.args == wanted:
            return known
    job = Job(kind=kind, checkpoint=checkpoint, args=wanted, user_id=user.id if user is not None else None)
    session.add(job)
    session.flush()  # the message carries the id
    jobs.defer(session, jobs.RUN, job.id)
    return job


def get_job(session: Session, job_id: int) -> Job:
    """The job of that id.

    Raises:
        NotFound: there is none.
    """
    job = session.get(Job, job_id)
    if job is None:
        raise NotFound("There is no such job.")
    return job


def list_jobs(
    session: Session,
    *,
    statuses: Sequence[str] = (),
    kind: str = "",
    checkpoint: Checkpoint | None = None,
    limit: int = 100,
) -> Sequence[Job]:
    """Jobs, the newest first."""
    query = select(Job)
    if statuses:
        query = query.where(Job.status.in_(statuses))
    if kind:
        query = query.where(Job.kind == kind)
    if checkpoint is not None:
        query = query.where(Job.checkpoint_id == checkpoint.id)
    return session.scalars(query.order_by(Job.id.desc()).limit(limit)).all()


def count(session: Session) -> dict[str, int]:
    """How many jobs are in each status."""
    return {status: number for status, number in session.execute(select(Job.status, func.count()).group_by(Job.status))}


def claim(session: Session, job_id: int, worker: str) -> int | None:
    """Take a queued job; returns the fence that proves it, None where there is nothing to take."""
    now = utcnow()
    taken = session.execute(
        update(Job)
        .where(Job.id == job_id, Job.status == QUEUED)
        .values(
            status=RUNNING,
            worker=worker,
            fence=Job.fence + 1,
            attempts=Job.attempts + 1,
            started_at=now,
            lease_until=now + dt.timedelta(seconds=LEASE_SECONDS),
        )
        .returning(Job.fence)
    )
    return taken.scalar_one_or_none()


def report(session: Session, job_id: int, fence: int, *, progress: float | None = None, line: str = "") -> bool:
    """Renew the lease, and say how far the work is. False: it was cancelled or given to another worker; stop."""
    job = _held(session, job_id, fence)
    if job is None or job.is_cancel_asked:
        return False
    job.lease_until = utcnow() + dt.timedelta(seconds=LEASE_SECONDS)
    if progress is not None:
        job.progress = min(1.0, max(0.0, progress))
    if line:
        job.log = (job.log + line.rstrip("\n") + "\n")[-LOG_CHARS:]
    return True


def finish(session: Session, job_id: int, fence: int, status: str, error: str = "") -> bool:
    """Close a job as finished, failed or cancelled. False: this worker no longer holds it."""
    job = _held(session, job_id, fence)
    if job is None:
        return False
    job.status, job.error, job.finished_at, job.lease_until = status, error, utcnow(), None
    if status == FINISHED:
        job.progress = 1.0
    if status == FAILED:
        _tell_failure(session, job)
    return True


def cancel(session: Session, job: Job) -> None:
    """Nobody wants it any more: a waiting one ends now, a running one at its next report.

    Raises:
        Conflict: it has ended.
    """
    if job.status not in OPEN:
        raise Conflict("This job has ended.")
    job.is_cancel_asked = True
    if job.status == QUEUED:
        job.status, job.finished_at = CANCELLED, utcnow()


def retry(session: Session, job: Job) -> None:
    """Queue a failed or cancelled job again.

    Raises:
        Conflict: it waits, runs, or was finished.
    """
    if job.status not in (FAILED, CANCELLED):
        raise Conflict("Only a job that failed or was cancelled can be tried again.")
    job.status, job.error, job.progress, job.attempts = QUEUED, "", 0.0, 0
    job.is_cancel_asked, job.started_at, job.finished_at = False, None, None
    jobs.defer(session, jobs.RUN, job.id)


def reclaim_expired(session: Session) -> int:
    """Put back what silent workers held, or fail it after `MAX_ATTEMPTS`; wake a worker where something waits."""
    expired = session.scalars(select(Job).where(Job.status == RUNNING, Job.lease_until < utcnow())).all()
    for job in expired:
        job.lease_until = None
        if job.is_cancel_asked:
            job.status, job.finished_at = CANCELLED, utcnow()
        elif job.attempts >= MAX_ATTEMPTS:
            job.status, job.finished_at = FAILED, utcnow()
            job.error = f"The worker went down {MAX_ATTEMPTS} times at this; it is not tried again."
            _tell_failure(session, job)
        else:
            job.status = QUEUED
    session.flush()
    if (job_id := next_queued(session)) is not None:
        jobs.defer(session, jobs.RUN, job_id)
    return len(expired)


def next_queued(session: Session) -> int | None:
    """The id of the job that has waited longest."""
    return session.scalar(select(Job.id).where(Job.status == QUEUED).order_by(Job.id).limit(1))


def _tell_failure(session: Session, job: Job) -> None:
    about = webhooks.about_checkpoint(job.checkpoint) if job.checkpoint is not None else {}
    data = {**about, "job_id": job.id, "kind": job.kind, "error": job.error, "path": f"/admin/jobs/{job.id}"}
    webhooks.tell(session, webhooks.JOB_FAILED, data)


def _held(session: Session, job_id: int, fence: int) -> Job | None:
    query = select(Job).where(Job.id == job_id, Job.fence == fence, Job.status == RUNNING)
    return session.scalar(query.execution_options(populate_existing=True))
