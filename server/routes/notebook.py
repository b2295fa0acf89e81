"""Routes of the notebook: a text that a base model goes on with, each token with its probability."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any

from fastapi import APIRouter, Form, Request, Response
from fastapi.responses import RedirectResponse
from sqlalchemy.orm import Session

from registry import chats
from registry.errors import Invalid, RegistryError
from registry.models import Chat, Checkpoint, User
from registry.models.base import QUEUED, RUNNING
from server import auth, conversations, csrf, knobs, limits, notebooks, render
from server.conversations import ChatPage, Composer, Shown
from server.deps import ReadSession, WriteSession
from server.i18n import gettext
from server.knobs import Fields
from server.notebooks import Piece

router = APIRouter(prefix="/chat/notebook", route_class=csrf.FormRoute, include_in_schema=False)

ALTERNATIVES = 5
"""So many likeliest tokens are told with each token."""


@dataclass(frozen=True)
class Paper:
    """Context of chats/_paper.html."""

    chat: Chat | None
    text: str
    pieces: Sequence[Piece]
    last: Shown | None
    is_open: bool
    is_editing: bool


@dataclass(frozen=True)
class NotebookPage(ChatPage):
    """Context of chats/notebook.html."""

    paper: Paper | None = None


@router.get("")
def new_notebook_page(request: Request, session: ReadSession, user: auth.Member, checkpoint: str = "") -> Response:
    """An empty sheet with the checkpoint of the address, or the newest base model."""
    chosen = conversations.find_checkpoint(session, checkpoint, "pretrained")
    if chosen is not None and chosen.kind == knobs.CHAT:
        raise Invalid(gettext("A chat model answers; only base models go on with a text. Choose a base model."))
    composer = Composer(knobs.defaults("pretrained"))
    return _page(request, session, user, None, chosen, composer, "")


@router.post("")
def open_notebook(
    request: Request,
    session: WriteSession,
    user: auth.Member,
    fields: Fields,
    checkpoint: Annotated[str, Form()] = "",
    prompt: Annotated[str, Form()] = "",
) -> Response:
    """Let the model go on with a new text."""
    chosen = conversations.find_checkpoint(session, checkpoint, "pretrained")
    typed = knobs.typed(fields, "pretrained")
    try:
        if chosen is None or chosen.kind == knobs.CHAT:
            raise Invalid(gettext("A chat model answers; only base models go on with a text. Choose a base model."))
        params = _params(request, user, typed)
        chat = chats.open_chat(session, user, chosen)
        chats.open_turn(session, chat, _normal(prompt), params)
    except (RegistryError, limits.TooMany) as error:
        session.rollback()  # a refused text leaves no empty conversation behind
        message, status = conversations.told(error)
        whole = partial(_page, request, session, user, None, chosen, Composer(typed, prompt, message), prompt)
        return conversations.refuse(request, message, status, whole)
    return conversations.go(request, f"/chat/notebook/{chat.public_id}")


@router.get("/{public_id}")
def notebook_page(request: Request, session: ReadSession, user: auth.Member, public_id: str) -> Response:
    """The text as it stands."""
    chat = chats.get_chat(session, user, public_id)
    if chat.checkpoint.kind == knobs.CHAT:
        return RedirectResponse(f"/chat/{public_id}", 303)
    return _page(request, session, user, chat, chat.checkpoint, conversations.composer_of(chat), None)


@router.get("/{public_id}/paper")
def show_paper(request: Request, session: ReadSession, user: auth.Member, public_id: str) -> Response:
    """The sheet alone, as it stands in the database."""
    return _sheet(request, chats.get_chat(session, user, public_id))


@router.post("/{public_id}")
def continue_text(
    request: Request,
    session: WriteSession,
    user: auth.Member,
    public_id: str,
    fields: Fields,
    prompt: Annotated[str, Form()] = "",
) -> Response:
    """Go on from exactly this text."""
    chat = chats.get_chat(session, user, public_id)
    branch = chats.branch(chat)
    typed = knobs.typed(fields, "pretrained", branch[-1].params if branch else None)
    try:
        chats.open_turn(session, chat, _normal(prompt), _params(request, user, typed))
    except (RegistryError, limits.TooMany) as error:
        message, status = conversations.told(error)
        composer = Composer(typed, prompt, message)
        whole = partial(_page, request, session, user, chat, chat.checkpoint, composer, prompt)
        return conversations.refuse(request, message, status, whole)
    session.refresh(chat, ["turns"])
    return _sheet(request, chat)


@router.post("/{public_id}/undo")
def undo(request: Request, session: WriteSession, user: auth.Member, public_id: str) -> Response:
    """Take the last continuation back; it stays among the other ways, and the text before it can be edited."""
    chat = chats.get_chat(session, user, public_id)
    undone = chats.step_back(chat)
    if undone is not None:
        chats.cancel_turn(session, undone)
    return _sheet(request, chat, undone.prompt if undone is not None else "")


@router.post("/{public_id}/again/{turn_id}")
def again(
    request: Request, session: WriteSession, user: auth.Member, public_id: str, turn_id: int, fields: Fields
) -> Response:
    """Another continuation of the same text, beside the first."""
    turn = chats.own_turn(session, user, turn_id)
    try:
        params = _params(request, user, knobs.typed(fields, "pretrained", turn.params))
        if params.get("seed") is not None:
            params["seed"] = (params["seed"] + len(chats.siblings(turn.chat, turn))) % knobs.MAX_SEED
        chats.open_turn(session, turn.chat, turn.prompt, params, after=turn.parent_id)
    except (RegistryError, limits.TooMany) as error:
        if "hx-request" not in request.headers:
            raise
        message, status = conversations.told(error)
        return Response(message, status, media_type="text/plain")
    session.refresh(turn.chat, ["turns"])
    return _sheet(request, turn.chat)


@router.post("/{public_id}/show/{turn_id}")
def show(request: Request, session: WriteSession, user: auth.Member, public_id: str, turn_id: int) -> Response:
    """Go to another continuation."""
    turn = chats.own_turn(session, user, turn_id)
    chats.show_turn(turn.chat, turn)
    return _sheet(request, turn.chat)


def _params(request: Request, user: User, typed: knobs.Knobs) -> dict[str, Any]:
    params = knobs.check(typed, "pretrained")
    conversations.limit_messages(request, user)
    return {**params, "logprobs": ALTERNATIVES}


def _normal(text: str) -> str:
    return text.replace("\r\n", "\n")  # forms send line ends so; the model has never read them


def _sheet(request: Request, chat: Chat, text: str | None = None) -> Response:
    if "hx-request" not in request.headers:
        return RedirectResponse(f"/chat/notebook/{chat.public_id}", 303)
    return render.page(request, "chats/_paper.html", _paper(chat, text))


def _paper(chat: Chat | None, text: str | None) -> Paper:
    branch = chats.branch(chat) if chat is not None else []
    last = conversations.shown_turns(chat)[-1] if chat is not None and branch else None
    is_open = last is not None and last.turn.status in (QUEUED, RUNNING)
    shown = notebooks.text_of(branch) if text is None else text
    return Paper(chat, shown, notebooks.pieces(branch), last, is_open, is_editing=text is not None or last is None)


def _page(
    request: Request,
    session: Session,
    user: User,
    chat: Chat | None,
    checkpoint: Checkpoint | None,
    composer: Composer,
    text: str | None,
    *,
    status: int = 200,
) -> Response:
    context = conversations.page_context(request, session, user, chat, checkpoint, composer, kind="pretrained")
    whole = NotebookPage(**{**vars(context), "paper": _paper(chat, text)})
    return render.page(request, "chats/notebook.html", whole, status_code=status)
