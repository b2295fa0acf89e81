"""Routes of administrators about texts: what was reported, and what is blocked."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated

from fastapi import APIRouter, Form, Request, Response
from fastapi.responses import RedirectResponse

from registry import blocklist, db, reports
from registry.errors import NotFound, RegistryError
from registry.models import BlockedPattern
from registry.reports import Docket
from server import auth, csrf, render
from server.deps import ReadSession, WriteSession
from server.i18n import error_text

router = APIRouter(prefix="/admin", route_class=csrf.FormRoute, include_in_schema=False)
MAX_TRIED_CHARS = 8_000


@dataclass(frozen=True)
class ReportsPage:
    """Context of admin/reports.html."""

    docket: Docket
    done: str = ""
    error: str = ""
    typed: Mapping[str, str] = field(default_factory=dict)
    """What was sent and could not be done, with the turn's number as `turn`."""


@dataclass(frozen=True)
class BlocklistPage:
    """Context of admin/blocklist.html."""

    patterns: Sequence[BlockedPattern]
    directions: Sequence[str] = blocklist.DIRECTIONS
    max_chars: int = blocklist.MAX_CHARS
    typed: Mapping[str, str] = field(default_factory=dict)
    error: str = ""
    done: str = ""
    tried: str = ""
    found: Sequence[BlockedPattern] = ()
    """Which patterns occur in the text that was tried."""


@router.get("/reports")
def show_reports(request: Request, session: ReadSession, _admin: auth.Admin, page: int = 1, done: str = "") -> Response:
    """Answers that wait for a decision, with what led to them."""
    return render.page(request, "admin/reports.html", ReportsPage(reports.docket(session, page=page), done))


@router.post("/reports/{turn_id}/uphold")
def uphold(
    request: Request,
    admin: auth.Admin,
    turn_id: int,
    hide: Annotated[str, Form()] = "",
    ban: Annotated[str, Form()] = "",
    ban_reason: Annotated[str, Form()] = "",
    pattern: Annotated[str, Form()] = "",
) -> Response:
    """The reports are right: do what was chosen about it."""
    try:
        with db.transaction() as session:
            reason = ban_reason if ban else None
            reports.uphold(session, admin, turn_id, hide=bool(hide), ban_reason=reason, pattern=pattern)
    except NotFound:
        raise
    except RegistryError as error:
        typed = {"turn": str(turn_id), "hide": hide, "ban": ban, "ban_reason": ban_reason, "pattern": pattern}
        with db.read_session() as reading:
            context = ReportsPage(reports.docket(reading), error=error_text(error), typed=typed)
            return render.page(request, "admin/reports.html", context, status_code=422)
    return RedirectResponse("/admin/reports?done=upheld", 303)


@router.post("/reports/{turn_id}/dismiss")
def dismiss(session: WriteSession, admin: auth.Admin, turn_id: int) -> Response:
    """The answer may stand."""
    reports.dismiss(session, admin, turn_id)
    return RedirectResponse("/admin/reports?done=dismissed", 303)


@router.get("/blocklist")
def show_blocklist(request: Request, session: ReadSession, _admin: auth.Admin, done: str = "") -> Response:
    """What is blocked, and a form for more."""
    return render.page(request, "admin/blocklist.html", BlocklistPage(blocklist.list_patterns(session), done=done))


@router.post("/blocklist")
def add_pattern(
    request: Request,
    admin: auth.Admin,
    pattern: Annotated[str, Form()] = "",
    is_regex: Annotated[str, Form()] = "",
    direction: Annotated[str, Form()] = "both",
    note: Annotated[str, Form()] = "",
) -> Response:
    """Block one more."""
    try:
        with db.transaction() as session:
            blocklist.add(session, admin, pattern, is_regex=bool(is_regex), direction=direction, note=note)
    except RegistryError as error:
        typed = {"pattern": pattern, "is_regex": is_regex, "direction": direction, "note": note}
        with db.read_session() as reading:
            context = BlocklistPage(blocklist.list_patterns(reading), typed=typed, error=error_text(error))
            return render.page(request, "admin/blocklist.html", context, status_code=422)
    return RedirectResponse("/admin/blocklist?done=added", 303)


@router.post("/blocklist/try")
def try_text(request: Request, session: ReadSession, _admin: auth.Admin, text: Annotated[str, Form()] = "") -> Response:
    """Which patterns occur in a text."""
    text = text[:MAX_TRIED_CHARS]
    patterns = blocklist.list_patterns(session)
    found = _found(patterns, text)
    return render.page(request, "admin/blocklist.html", BlocklistPage(patterns, tried=text, found=found))


@router.post("/blocklist/{pattern_id}/remove")
def remove_pattern(session: WriteSession, admin: auth.Admin, pattern_id: int) -> Response:
    """Block it no longer."""
    blocklist.remove(session, admin, pattern_id)
    return RedirectResponse("/admin/blocklist?done=removed", 303)


def _found(patterns: Sequence[BlockedPattern], text: str) -> list[BlockedPattern]:
    return [one for one in patterns if blocklist.Scanner([one]).find(text) is not None]
