"""Routes of conversations shared by link: reading one without a login, and going on with a copy of it."""

from collections.abc import Sequence
from dataclasses import dataclass

from fastapi import APIRouter, Request, Response
from fastapi.responses import RedirectResponse

from registry import chats, conversations
from registry.models import Chat, Turn
from registry.models.base import READY
from server import auth, csrf, render
from server.deps import ReadSession, WriteSession

router = APIRouter(prefix="/shared/{token}", route_class=csrf.FormRoute, include_in_schema=False)
NO_INDEX = {"X-Robots-Tag": "noindex"}
"""Whoever shares a link shows it to those who have it, not to search engines."""


@dataclass(frozen=True)
class SharedPage:
    """Context of chats/shared.html."""

    chat: Chat
    turns: Sequence[Turn]
    token: str
    can_continue: bool


@router.get("")
def shared_page(request: Request, session: ReadSession, token: str) -> Response:
    """The branch that was shared, to read."""
    chat, turns = conversations.shared(session, token)
    context = SharedPage(chat, turns, token, can_continue=chat.checkpoint.state == READY)
    return render.page(request, "chats/shared.html", context, headers=NO_INDEX)


@router.post("/continue")
def continue_shared(session: WriteSession, user: auth.Member, token: str) -> Response:
    """Copy it into one's own history and go on there."""
    chat, turns = conversations.shared(session, token)
    copy = chats.fork(session, user, chat, turns[-1] if turns else None, chat.checkpoint)
    return RedirectResponse(f"/chat/{copy.public_id}", 303)
