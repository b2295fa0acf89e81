"""Long jobs that people watch: claimed once, kept by a lease, cancelled, tried again."""

import datetime as dt

import pytest
from sqlalchemy.orm import Session

from registry import joblog
from registry.errors import Conflict, NotFound
from registry.models import Job
from registry.models.base import CANCELLED, FAILED, FINISHED, QUEUED, RUNNING, utcnow
from tests.factories import make_checkpoint, make_run, make_user


def plan(session: Session) -> Job:
    """A job of eight bits."""
    return joblog.plan(session, joblog.QUANTIZE, args={"bits": 8})


def begin(session: Session, job: Job, worker: str = "one") -> int:
    """Claim it; returns the fence."""
    fence = joblog.claim(session, job.id, worker)
    assert fence is not None
    session.refresh(job)
    return fence


def fall_silent(session: Session, job: Job) -> None:
    """Its worker has not been heard from for a minute."""
    job.lease_until = utcnow() - dt.timedelta(seconds=1)
    session.flush()


def test_the_same_job_that_is_still_open_is_not_planned_twice(session: Session) -> None:
    checkpoint = make_checkpoint(session, make_run(session))
    first = joblog.plan(session, joblog.QUANTIZE, checkpoint=checkpoint, args={"bits": 8})
    assert joblog.plan(session, joblog.QUANTIZE, checkpoint=checkpoint, args={"bits": 8}) is first
    assert joblog.plan(session, joblog.QUANTIZE, checkpoint=checkpoint, args={"bits": 4}) is not first
    first.status = FAILED
    session.flush()
    assert joblog.plan(session, joblog.QUANTIZE, checkpoint=checkpoint, args={"bits": 8}) is not first


def test_who_asked_is_kept(session: Session) -> None:
    user = make_user(session)
    assert joblog.plan(session, joblog.AVERAGE, user=user).user_id == user.id


def test_a_job_is_claimed_by_one_worker(session: Session) -> None:
    job = plan(session)
    assert begin(session, job) == 1
    assert joblog.claim(session, job.id, "two") is None
    assert (job.status, job.worker) == (RUNNING, "one")


def test_reports_move_the_progress_and_keep_the_newest_lines(session: Session) -> None:
    job = plan(session)
    fence = begin(session, job)
    assert joblog.report(session, job.id, fence, progress=0.5, line="Half of the layers.")
    assert joblog.report(session, job.id, fence, line="x" * joblog.LOG_CHARS)
    assert job.progress == 0.5
    assert len(job.log) == joblog.LOG_CHARS
    assert "Half" not in job.log


def test_a_finished_job_is_whole(session: Session) -> None:
    job = plan(session)
    assert joblog.finish(session, job.id, begin(session, job), FINISHED)
    assert (job.status, job.progress) == (FINISHED, 1.0)


def test_a_silent_workers_job_goes_to_another_and_its_late_report_is_refused(session: Session) -> None:
    job = plan(session)
    old = begin(session, job)
    fall_silent(session, job)
    assert joblog.reclaim_expired(session) == 1
    new = begin(session, job, "two")
    assert not joblog.report(session, job.id, old, progress=0.9)
    assert not joblog.finish(session, job.id, old, FINISHED)
    assert joblog.finish(session, job.id, new, FINISHED)


def test_a_lease_that_is_kept_is_not_taken_back(session: Session) -> None:
    job = plan(session)
    begin(session, job)
    assert joblog.reclaim_expired(session) == 0
    assert job.status == RUNNING


def test_what_brings_workers_down_is_not_tried_for_ever(session: Session) -> None:
    job = plan(session)
    for _ in range(joblog.MAX_ATTEMPTS):
        begin(session, job)
        fall_silent(session, job)
        joblog.reclaim_expired(session)
    assert job.status == FAILED
    assert "went down" in job.error


def test_cancelling_a_waiting_job_ends_it(session: Session) -> None:
    job = plan(session)
    joblog.cancel(session, job)
    assert job.status == CANCELLED
    with pytest.raises(Conflict, match="ended"):
        joblog.cancel(session, job)


def test_cancelling_a_running_job_stops_it_at_its_next_report(session: Session) -> None:
    job = plan(session)
    fence = begin(session, job)
    joblog.cancel(session, job)
    session.flush()
    assert not joblog.report(session, job.id, fence)
    assert joblog.finish(session, job.id, fence, CANCELLED)


def test_a_cancelled_job_of_a_silent_worker_ends(session: Session) -> None:
    job = plan(session)
    begin(session, job)
    joblog.cancel(session, job)
    fall_silent(session, job)
    joblog.reclaim_expired(session)
    assert job.status == CANCELLED


def test_a_failed_job_can_be_tried_again_and_a_finished_one_cannot(session: Session) -> None:
    job = plan(session)
    joblog.finish(session, job.id, begin(session, job), FAILED, "The disk is full.")
    joblog.retry(session, job)
    assert (job.status, job.error, job.attempts) == (QUEUED, "", 0)
    session.flush()
    joblog.finish(session, job.id, begin(session, job), FINISHED)
    with pytest.raises(Conflict):
        joblog.retry(session, job)


def test_jobs_are_listed_the_newest_first_by_status_and_kind(session: Session) -> None:
    first, second = plan(session), joblog.plan(session, joblog.AVERAGE)
    joblog.cancel(session, first)
    session.flush()
    assert list(joblog.list_jobs(session)) == [second, first]
    assert list(joblog.list_jobs(session, statuses=joblog.OPEN)) == [second]
    assert list(joblog.list_jobs(session, kind=joblog.QUANTIZE)) == [first]


def test_an_unknown_job_is_said_to_be_unknown(session: Session) -> None:
    with pytest.raises(NotFound):
        joblog.get_job(session, 9)
