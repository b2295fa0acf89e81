"""Routes of administrators about people: who is here, who is banned, and who did what."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated
from urllib.parse import urlencode

from fastapi import APIRouter, Form, Request, Response
from fastapi.responses import RedirectResponse
from sqlalchemy.orm import Session

from registry import accounts, audit, bans, db, reports
from registry.audit import Page
from registry.errors import NotFound, RegistryError
from registry.models import User
from registry.reports import Tally
from server import auth, csrf, render
from server.deps import ReadSession, WriteSession
from server.i18n import error_text

router = APIRouter(prefix="/admin", route_class=csrf.FormRoute, include_in_schema=False)
PAGE_SIZE = 50


@dataclass(frozen=True)
class PeoplePage:
    """Context of admin/people.html."""

    people: Sequence[User]
    tallies: Mapping[int, Tally]
    """What was reported of the answers to each one's questions."""
    total: int
    search: str
    page: int
    num_pages: int
    role: str = ""
    roles: Sequence[str] = accounts.ROLES
    max_reason: int = bans.MAX_REASON_CHARS
    done: str = ""
    error: str = ""


@dataclass(frozen=True)
class AuditPage:
    """Context of admin/audit.html."""

    trail: Page
    names: Mapping[str, str]
    """Of the people that entries are about, by subject."""
    actions: Sequence[str]
    action: str
    actor: str
    query: str
    """The filter, for the addresses of other pages."""
    gone: str = audit.DELETED


@router.get("/people")
def show_people(
    request: Request,
    session: ReadSession,
    _admin: auth.Admin,
    search: str = "",
    role: str = "",
    page: int = 1,
    done: str = "",
) -> Response:
    """Who registered, the newest first."""
    return render.page(request, "admin/people.html", _people(session, search, page, role=role, done=done))


@router.post("/people/{user_id}/role")
def change_role(
    request: Request,
    admin: auth.Admin,
    user_id: int,
    role: Annotated[str, Form()] = "",
    search: Annotated[str, Form()] = "",
) -> Response:
    """Make somebody a member, a publisher or an administrator."""
    try:
        with db.transaction() as session:
            accounts.set_role(session, admin, accounts.get_user(session, user_id), role)
    except NotFound:
        raise
    except RegistryError as error:
        return _refused(request, search, error)
    return RedirectResponse(f"/admin/people?{urlencode({'search': search, 'done': 'role'})}", 303)


@router.post("/people/{user_id}/ban")
def ban(
    request: Request,
    admin: auth.Admin,
    user_id: int,
    reason: Annotated[str, Form()] = "",
    search: Annotated[str, Form()] = "",
) -> Response:
    """Take somebody's asking away."""
    try:
        with db.transaction() as session:
            bans.ban(session, admin, accounts.get_user(session, user_id), reason)
    except NotFound:
        raise
    except RegistryError as error:
        return _refused(request, search, error)
    return RedirectResponse(f"/admin/people?{urlencode({'search': search, 'done': 'banned'})}", 303)


@router.post("/people/{user_id}/unban")
def unban(session: WriteSession, admin: auth.Admin, user_id: int, search: Annotated[str, Form()] = "") -> Response:
    """Let somebody ask again."""
    bans.unban(session, admin, accounts.get_user(session, user_id))
    return RedirectResponse(f"/admin/people?{urlencode({'search': search, 'done': 'unbanned'})}", 303)


@router.get("/audit")
def show_audit(
    request: Request, session: ReadSession, _admin: auth.Admin, action: str = "", actor: str = "", page: int = 1
) -> Response:
    """Who did what, the newest first."""
    trail = audit.list_entries(session, action=action, actor=actor, page=page)
    names = audit.names(session, trail.entries)
    query = urlencode({"action": action, "actor": actor})
    context = AuditPage(trail, names, audit.actions(session), action, actor, query)
    return render.page(request, "admin/audit.html", context)


def _refused(request: Request, search: str, error: RegistryError) -> Response:
    with db.read_session() as session:
        context = _people(session, search, 1, error=error_text(error))
        return render.page(request, "admin/people.html", context, status_code=422)


def _people(session: Session, search: str, page: int, *, role: str = "", done: str = "", error: str = "") -> PeoplePage:
    role = role if role in accounts.ROLES else ""
    people, total = accounts.find_users(session, search, role=role, page=page, size=PAGE_SIZE)
    tallies = reports.tallies(session, [one.id for one in people])
    num_pages = max(1, -(-total // PAGE_SIZE))
    return PeoplePage(people, tallies, total, search, max(1, page), num_pages, role, done=done, error=error)
