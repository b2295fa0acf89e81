"""Routes of administrators about mirrors: other web servers that offer the checkpoints' files too."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated

from fastapi import APIRouter, Form, Request, Response
from fastapi.responses import RedirectResponse

from registry import db, mirrors
from registry.errors import Conflict, Invalid
from registry.mirrors import MAX_LABEL, MAX_URL
from registry.models import Mirror
from registry.models.base import utcnow
from server import auth, csrf, mirroring, render
from server.deps import ReadSession
from server.i18n import error_text

router = APIRouter(prefix="/admin/mirrors", route_class=csrf.FormRoute, include_in_schema=False)


@dataclass(frozen=True)
class MirrorsPage:
    """Context of admin/mirrors.html."""

    mirrors: Sequence[Mirror]
    max_label: int = MAX_LABEL
    max_url: int = MAX_URL
    typed: Mapping[str, str] = field(default_factory=dict)
    error: str = ""
    done: str = ""


@router.get("")
def show_mirrors(request: Request, session: ReadSession, _admin: auth.Admin, done: str = "") -> Response:
    """The mirrors, and a form for more."""
    return render.page(request, "admin/mirrors.html", MirrorsPage(mirrors.list_mirrors(session), done=done))


@router.post("")
def add_mirror(
    request: Request,
    admin: auth.Admin,
    label: Annotated[str, Form()] = "",
    base_url: Annotated[str, Form()] = "",
) -> Response:
    """Offer one more."""
    try:
        with db.transaction() as session:
            mirrors.add(session, label, base_url, admin)
    except (Invalid, Conflict) as error:
        typed = {"label": label, "base_url": base_url}
        return _refused(request, error, typed)
    return RedirectResponse("/admin/mirrors?done=added", 303)


@router.post("/{mirror_id}/check")
def check_mirror(request: Request, _admin: auth.Admin, mirror_id: int) -> Response:
    """Ask a mirror now whether it has the newest checkpoint; one that has not is offered no longer until it has."""
    try:
        with db.read_session() as session:
            sample = mirrors.sample(session, mirrors.get_mirror(session, mirror_id))
    except Conflict as error:
        return _refused(request, error, {})
    try:
        mirroring.check(sample)
        problem = ""
    except Invalid as error:
        problem = error_text(error)
    with db.transaction() as session:
        mirrors.note_check(session, mirror_id, problem, utcnow())
    return RedirectResponse("/admin/mirrors?done=checked", 303)


@router.post("/{mirror_id}/remove")
def remove_mirror(admin: auth.Admin, mirror_id: int) -> Response:
    """Offer one no longer."""
    with db.transaction() as session:
        mirrors.remove(session, mirror_id, admin)
    return RedirectResponse("/admin/mirrors?done=removed", 303)


def _refused(request: Request, error: Invalid | Conflict, typed: Mapping[str, str]) -> Response:
    with db.read_session() as session:
        context = MirrorsPage(mirrors.list_mirrors(session), typed=typed, error=error_text(error))
        return render.page(request, "admin/mirrors.html", context, status_code=422)
