"""Routes of reports: saying that an answer should not stand."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated
from urllib.parse import urlencode

from fastapi import APIRouter, Form, Request, Response
from fastapi.responses import RedirectResponse
from sqlalchemy.orm import Session

from registry import reports
from registry.errors import Conflict, Invalid
from registry.models import Turn, User
from registry.settings import get_settings
from server import auth, csrf, limits, render
from server.deps import ReadSession, WriteSession
from server.i18n import error_text

router = APIRouter(prefix="/report/{turn_id}", route_class=csrf.FormRoute, include_in_schema=False)


@dataclass(frozen=True)
class ReportPage:
    """Context of reports/page.html and reports/_button.html."""

    turn: Turn
    token: str
    """Of the shared conversation that the answer stands in; empty in one's own."""
    picked: str = ""
    note: str = ""
    error: str = ""
    done: bool = False
    is_open: bool = True
    reasons: Sequence[str] = reports.REASONS


@router.get("")
def report_page(
    request: Request, session: ReadSession, user: auth.Member, turn_id: int, token: str = "", done: bool = False
) -> Response:
    """The form on a page of its own, with what one has said already; or thanks."""
    turn = reports.readable_turn(session, user, turn_id, token)
    before = reports.said(session, user, turn)
    picked, note = (before.reason, before.note) if before is not None else ("", "")
    return render.page(request, "reports/page.html", ReportPage(turn, token, picked, note, done=done))


@router.post("")
def report(
    request: Request,
    session: WriteSession,
    user: auth.Member,
    turn_id: int,
    reason: Annotated[str, Form()] = "",
    note: Annotated[str, Form()] = "",
    token: Annotated[str, Form()] = "",
) -> Response:
    """Report an answer that one may read."""
    turn = reports.readable_turn(session, user, turn_id, token)
    error, status = _report(session, user, turn, reason, note)
    is_script = "hx-request" in request.headers
    if error:
        context = ReportPage(turn, token, reason, note[: reports.MAX_NOTE_CHARS], error)
        # htmx puts nothing but good answers into the page, and the form with its sentence belongs there.
        template = "reports/_button.html" if is_script else "reports/page.html"
        return render.page(request, template, context, status_code=200 if is_script else status)
    if is_script:
        return render.page(request, "reports/_thanks.html", ReportPage(turn, token))
    return RedirectResponse(f"/report/{turn_id}?{urlencode({'token': token, 'done': 'true'})}", 303)


def _report(session: Session, user: User, turn: Turn, reason: str, note: str) -> tuple[str, int]:
    """A sentence and a status where it was not taken."""
    try:
        limits.hit("report", get_settings().report_limit, str(user.id))
        reports.report(session, user, turn, reason, note)
    except limits.TooMany as error:
        return error.detail, 429
    except (Invalid, Conflict) as error:
        return error_text(error), 409 if isinstance(error, Conflict) else 422
    return "", 200
