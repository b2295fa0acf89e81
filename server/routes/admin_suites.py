"""The administrators' page of suites: which tasks are run when, what they cost, how far they cover the checkpoints."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated

from fastapi import APIRouter, Form, Request, Response
from fastapi.responses import HTMLResponse, RedirectResponse
from sqlalchemy.orm import Session

from registry import coverage, db, suites
from registry.coverage import Coverage
from registry.errors import NotFound, RegistryError
from server import auth, csrf, render
from server.deps import ReadSession
from server.i18n import error_text

router = APIRouter(prefix="/admin/suites", route_class=csrf.FormRoute, include_in_schema=False)
SCHEDULES = (suites.PANEL, suites.MILESTONE, suites.ASKED)


@dataclass(frozen=True)
class SuitesPage:
    """Context of admin/suites.html."""

    groups: Mapping[str, Sequence[Coverage]]
    """Tasks that are run, by suite."""
    retired: Sequence[Coverage]
    num_checkpoints: int
    panel_seconds: float
    """What the panel costs for one checkpoint, of tasks that were measured."""
    schedules: Sequence[str]
    impossible: Sequence[int]
    """Ids of tasks that need what this site does not have."""
    done: str = ""
    error: str = ""


@router.get("")
def show_suites(request: Request, session: ReadSession, _admin: auth.Admin, done: str = "") -> HTMLResponse:
    """Every task with its state."""
    return render.page(request, "admin/suites.html", _page(session, done=done))


@router.post("/{task_id}/schedule")
def reschedule(request: Request, admin: auth.Admin, task_id: int, schedule: Annotated[str, Form()] = "") -> Response:
    """Say when a task is run."""
    try:
        with db.transaction() as session:
            suites.reschedule(session, admin, suites.get_by_id(session, task_id), schedule)
    except NotFound:
        raise
    except RegistryError as error:
        return _refused(request, error)
    return RedirectResponse("/admin/suites?done=rescheduled", 303)


@router.post("/{task_id}/retire")
def retire(request: Request, admin: auth.Admin, task_id: int) -> Response:
    """Run a task no more."""
    return _shelve(request, admin, task_id, is_shelved=True)


@router.post("/{task_id}/restore")
def restore(request: Request, admin: auth.Admin, task_id: int) -> Response:
    """Run it again."""
    return _shelve(request, admin, task_id, is_shelved=False)


def _shelve(request: Request, admin: auth.Admin, task_id: int, *, is_shelved: bool) -> Response:
    try:
        with db.transaction() as session:
            suites.shelve(session, admin, suites.get_by_id(session, task_id), is_shelved=is_shelved)
    except NotFound:
        raise
    except RegistryError as error:
        return _refused(request, error)
    return RedirectResponse(f"/admin/suites?done={'retired' if is_shelved else 'restored'}", 303)


def _refused(request: Request, error: RegistryError) -> HTMLResponse:
    with db.read_session() as session:
        return render.page(request, "admin/suites.html", _page(session, error=error_text(error)), status_code=409)


def _page(session: Session, *, done: str = "", error: str = "") -> SuitesPage:
    known = coverage.of_tasks(session)
    groups: dict[str, list[Coverage]] = {}
    for one in known:
        if not one.task.retired:
            groups.setdefault(one.task.suite.name, []).append(one)
    panel = (one.seconds or 0.0 for one in known if not one.task.retired and one.task.schedule == suites.PANEL)
    return SuitesPage(
        groups=groups,
        retired=[one for one in known if one.task.retired],
        num_checkpoints=coverage.num_checkpoints(session),
        panel_seconds=sum(panel),
        schedules=SCHEDULES,
        impossible=[one.task.id for one in known if not suites.is_possible(one.task)],
        done=done,
        error=error,
    )
