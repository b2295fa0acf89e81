"""The administrator's page of the prompts that visitors propose."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, NamedTuple

from fastapi import APIRouter, Form, Request, Response
from fastapi.responses import HTMLResponse, RedirectResponse
from sqlalchemy.orm import Session

from registry import db, events, prompts
from registry.errors import RegistryError
from registry.models import ProposedPrompt
from registry.models.base import FAILED, FINISHED
from registry.models.prompts import ACCEPTED, DECLINED, WAITING, WITHDRAWN
from server import auth, csrf, render
from server.deps import ReadSession
from server.i18n import error_text

router = APIRouter(route_class=csrf.FormRoute, include_in_schema=False)

MAX_DECIDED = 50


class Progress(NamedTuple):
    """How far an accepted prompt is."""

    done: int
    failed: int
    planned: int


@dataclass(frozen=True)
class PromptsPage:
    """Context of admin/prompts.html."""

    waiting: Sequence[ProposedPrompt]
    accepted: Sequence[tuple[ProposedPrompt, Progress]]
    decided: Sequence[ProposedPrompt]
    """Those that were declined or withdrawn, the latest first."""
    max_accepted: int
    max_reason: int
    max_chars: int = prompts.MAX_CHARS
    done: str = ""
    planned: int = 0
    error: str = ""


@router.get("/admin/prompts")
def show_prompts(
    request: Request, session: ReadSession, _admin: auth.Admin, done: str = "", planned: int = 0
) -> HTMLResponse:
    """What waits for a decision, and what was decided."""
    return render.page(request, "admin/prompts.html", _page(session, done=done, planned=planned))


@router.post("/admin/prompts")
def add(request: Request, admin: auth.Admin, text: Annotated[str, Form()] = "") -> Response:
    """A prompt of the administrator's own, accepted at once."""
    try:
        with db.transaction() as session:
            prompt = prompts.propose(session, admin, text)
            planned = prompts.accept(session, prompt.id, admin)
    except RegistryError as error:
        return _refused(request, error)
    events.publish_board("prompt", {"id": prompt.id})
    return RedirectResponse(f"/admin/prompts?done=accepted&planned={planned}", 303)


@router.post("/admin/prompts/{prompt_id}/accept")
def accept(request: Request, admin: auth.Admin, prompt_id: int) -> Response:
    """Ask a prompt of every checkpoint."""
    try:
        with db.transaction() as session:
            planned = prompts.accept(session, prompt_id, admin)
    except RegistryError as error:
        return _refused(request, error)
    events.publish_board("prompt", {"id": prompt_id})
    return RedirectResponse(f"/admin/prompts?done=accepted&planned={planned}", 303)


@router.post("/admin/prompts/{prompt_id}/decline")
def decline(request: Request, admin: auth.Admin, prompt_id: int, reason: Annotated[str, Form()] = "") -> Response:
    """Say no, with a reason."""
    try:
        with db.transaction() as session:
            prompts.decline(session, prompt_id, admin, reason)
    except RegistryError as error:
        return _refused(request, error)
    events.publish_board("prompt", {"id": prompt_id})
    return RedirectResponse("/admin/prompts?done=declined", 303)


@router.post("/admin/prompts/{prompt_id}/withdraw")
def withdraw(request: Request, admin: auth.Admin, prompt_id: int, reason: Annotated[str, Form()] = "") -> Response:
    """Take an accepted prompt back."""
    try:
        with db.transaction() as session:
            prompts.withdraw(session, prompt_id, admin, reason)
    except RegistryError as error:
        return _refused(request, error)
    events.publish_board("prompt", {"id": prompt_id})
    return RedirectResponse("/admin/prompts?done=withdrawn", 303)


def _refused(request: Request, error: RegistryError) -> Response:
    with db.read_session() as session:
        context = _page(session, error=error_text(error))
        return render.page(request, "admin/prompts.html", context, status_code=422)


def _page(session: Session, *, done: str = "", planned: int = 0, error: str = "") -> PromptsPage:
    counts = prompts.progress(session)
    return PromptsPage(
        waiting=prompts.list_prompts(session, WAITING),
        accepted=[
            (prompt, _progress(counts.get(prompt.task_id or 0, {})))
            for prompt in prompts.list_prompts(session, ACCEPTED)
        ],
        decided=prompts.list_prompts(session, DECLINED, WITHDRAWN, limit=MAX_DECIDED),
        max_accepted=prompts.MAX_ACCEPTED,
        max_reason=prompts.MAX_REASON_CHARS,
        done=done,
        planned=planned,
        error=error,
    )


def _progress(counts: Mapping[str, int]) -> Progress:
    return Progress(counts.get(FINISHED, 0), counts.get(FAILED, 0), sum(counts.values()))
