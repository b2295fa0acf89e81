"""What becomes of a long job: finished, failed with a sentence, or cancelled; and its log meanwhile."""

from pathlib import Path

import pytest

from registry import db, joblog
from registry.errors import Invalid
from registry.models import Job
from registry.models.base import CANCELLED, FAILED, FINISHED, RUNNING
from worker.runner import Report, Work, run_job


def plan() -> int:
    with db.transaction() as session:
        return joblog.plan(session, joblog.QUANTIZE, args={"bits": 4}).id


def do(work: Work) -> Job:
    """Plan a job, do it, and look at it."""
    job_id = plan()
    run_job(job_id, "here", {joblog.QUANTIZE: work})
    with db.read_session() as session:
        return joblog.get_job(session, job_id)


def test_its_work_gets_the_arguments_and_its_log_is_kept(database: Path) -> None:
    def work(job: Job, report: Report) -> None:
        report(f"{job.args['bits']} bits", progress=0.25)
        report("done")

    job = do(work)
    assert (job.status, job.progress, job.log) == (FINISHED, 1.0, "4 bits\ndone\n")


def test_a_refusal_is_a_failure_with_its_sentence(database: Path) -> None:
    def work(_job: Job, _report: Report) -> None:
        raise Invalid("The layers are no multiples of %(size)s.", size=32)

    job = do(work)
    assert (job.status, job.error) == (FAILED, "The layers are no multiples of 32.")


def test_a_crash_is_a_failure_and_not_the_end_of_the_worker(database: Path) -> None:
    def work(_job: Job, _report: Report) -> None:
        raise ZeroDivisionError("by zero")

    job = do(work)
    assert (job.status, job.error) == (FAILED, "ZeroDivisionError: by zero")


def test_a_cancelled_job_stops_at_its_next_report(database: Path) -> None:
    reached = []

    def work(job: Job, report: Report) -> None:
        with db.transaction() as session:
            joblog.cancel(session, joblog.get_job(session, job.id))
        report("still here")
        reached.append("the line after")

    assert do(work).status == CANCELLED
    assert reached == []


def test_a_job_of_a_kind_that_the_worker_does_not_know_fails(database: Path) -> None:
    job_id = plan()
    run_job(job_id, "here", {})
    with db.read_session() as session:
        assert "does not know" in joblog.get_job(session, job_id).error


def test_a_job_that_somebody_else_has_is_left_alone(database: Path) -> None:
    job_id = plan()
    with db.transaction() as session:
        joblog.claim(session, job_id, "elsewhere")

    def work(_job: Job, _report: Report) -> None:
        pytest.fail("It was done twice.")

    run_job(job_id, "here", {joblog.QUANTIZE: work})
    with db.read_session() as session:
        job = joblog.get_job(session, job_id)
        assert (job.status, job.worker) == (RUNNING, "elsewhere")
