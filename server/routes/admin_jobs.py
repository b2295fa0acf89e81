"""Routes of administrators about work: long jobs with their logs, evaluations that failed, and the line for the GPU."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, NamedTuple

from fastapi import APIRouter, Form, Request, Response
from fastapi.responses import HTMLResponse, RedirectResponse
from sqlalchemy import select
from sqlalchemy.orm import Session

from registry import audit, db, evaluations, events, joblog, tickets
from registry.errors import RegistryError
from registry.models import Evaluation, Job, Ticket, User
from registry.models.base import CANCELLED, FAILED, FINISHED, QUEUED, RUNNING
from server import auth, csrf, growth, render
from server.deps import ReadSession
from server.i18n import error_text

router = APIRouter(prefix="/admin/jobs", route_class=csrf.FormRoute, include_in_schema=False)
STATUSES = (QUEUED, RUNNING, FINISHED, FAILED, CANCELLED)
MAX_JOBS = 50
MAX_FAILED = 30
MAX_LINE = 40


class Waiting(NamedTuple):
    """A place in the line."""

    ticket: Ticket
    lane: str
    checkpoint: str


@dataclass(frozen=True)
class JobsPage:
    """Context of admin/jobs.html and admin/_jobs.html."""

    jobs: Sequence[Job]
    counts: Mapping[str, int]
    names: Mapping[int, str]
    """Of those who asked for them."""
    statuses: Sequence[str]
    status: str
    failed: Sequence[Evaluation]
    num_failed: int
    line: Sequence[Waiting]
    lanes: Mapping[str, Mapping[str, int]]
    """Tickets by lane and status."""
    done: str = ""
    error: str = ""


@dataclass(frozen=True)
class JobPage:
    """Context of admin/job.html and admin/_job.html."""

    job: Job
    user_name: str
    checkpoint_href: str
    can_cancel: bool
    can_retry: bool
    error: str = ""


@router.get("")
def show_jobs(
    request: Request, session: ReadSession, _admin: auth.Admin, status: str = "", done: str = ""
) -> HTMLResponse:
    """What is done now, what waits, and what went wrong."""
    return render.page(request, "admin/jobs.html", _jobs(session, status, done=done))


@router.get("/list")
def show_jobs_fragment(request: Request, session: ReadSession, _admin: auth.Admin, status: str = "") -> HTMLResponse:
    """The part of that page which changes."""
    return render.page(request, "admin/_jobs.html", _jobs(session, status))


@router.post("/evaluations")
def run_again(request: Request, _admin: auth.Admin, one: Annotated[list[int] | None, Form()] = None) -> Response:
    """Put failed evaluations back in line."""
    try:
        with db.transaction() as session:
            again = [evaluations.retry(session, evaluation_id) for evaluation_id in (one or [])[:MAX_FAILED]]
            places = [_place(evaluation) for evaluation in again]
    except RegistryError as error:
        with db.read_session() as session:
            context = _jobs(session, "", error=error_text(error))
            return render.page(request, "admin/jobs.html", context, status_code=422)
    for place in places:
        events.publish_board("evaluation", place)
    return RedirectResponse("/admin/jobs?done=again", 303)


@router.get("/{job_id}")
def show_job(request: Request, session: ReadSession, _admin: auth.Admin, job_id: int) -> HTMLResponse:
    """One job with its log."""
    return render.page(request, "admin/job.html", _job(session, job_id))


@router.get("/{job_id}/state")
def show_job_fragment(request: Request, session: ReadSession, _admin: auth.Admin, job_id: int) -> HTMLResponse:
    """The part of that page which changes."""
    return render.page(request, "admin/_job.html", _job(session, job_id))


@router.post("/{job_id}/cancel")
def cancel(request: Request, admin: auth.Admin, job_id: int) -> Response:
    """Ask a job to stop."""
    return _decide(request, admin, job_id, "job_cancelled")


@router.post("/{job_id}/retry")
def retry(request: Request, admin: auth.Admin, job_id: int) -> Response:
    """Do a failed or cancelled job again."""
    return _decide(request, admin, job_id, "job_retried")


def _decide(request: Request, admin: User, job_id: int, deed: str) -> Response:
    try:
        with db.transaction() as session:
            job = joblog.get_job(session, job_id)
            {"job_cancelled": joblog.cancel, "job_retried": joblog.retry}[deed](session, job)
            audit.note(session, admin, deed, f"job:{job.id}", {"kind": job.kind})
    except RegistryError as error:
        with db.read_session() as session:
            return render.page(request, "admin/job.html", _job(session, job_id, error_text(error)), status_code=409)
    events.publish_board("job", {"id": job_id, "status": job.status})
    return RedirectResponse(f"/admin/jobs/{job_id}", 303)


def _jobs(session: Session, status: str, *, done: str = "", error: str = "") -> JobsPage:
    wanted = (status,) if status in STATUSES else ()
    jobs = joblog.list_jobs(session, statuses=wanted, limit=MAX_JOBS)
    failed, num_failed = evaluations.list_failed(session, MAX_FAILED)
    lanes: dict[str, dict[str, int]] = {}
    for (lane, state), number in tickets.count_by_lane(session).items():
        if state in (QUEUED, RUNNING):
            lanes.setdefault(lane, {})[state] = number
    return JobsPage(
        jobs=jobs,
        counts=joblog.count(session),
        names=_names(session, [job.user_id for job in jobs if job.user_id is not None]),
        statuses=STATUSES,
        status=status if status in STATUSES else "",
        failed=failed,
        num_failed=num_failed,
        line=[
            Waiting(ticket, tickets.LANES[ticket.lane], label) for ticket, label in tickets.list_open(session, MAX_LINE)
        ],
        lanes={lane: lanes[lane] for lane in tickets.LANES.values() if lane in lanes},
        done=done,
        error=error,
    )


def _job(session: Session, job_id: int, error: str = "") -> JobPage:
    job = joblog.get_job(session, job_id)
    names = _names(session, [job.user_id] if job.user_id is not None else [])
    return JobPage(
        job=job,
        user_name=names.get(job.user_id or 0, ""),
        checkpoint_href=growth.checkpoint_href(job.checkpoint) if job.checkpoint is not None else "",
        can_cancel=job.status in joblog.OPEN and not job.is_cancel_asked,
        can_retry=job.status in (FAILED, CANCELLED),
        error=error,
    )


def _names(session: Session, ids: Sequence[int]) -> dict[int, str]:
    rows = session.execute(select(User.id, User.name).where(User.id.in_(ids))).all() if ids else []
    return {number: name for number, name in rows}


def _place(evaluation: Evaluation) -> dict[str, Any]:
    checkpoint, task = evaluation.checkpoint, evaluation.task.name
    return {"run": checkpoint.run.name, "step": checkpoint.step, "task": task, "checkpoint_id": checkpoint.id}
