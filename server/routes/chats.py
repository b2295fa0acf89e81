"""Routes of conversations with checkpoints: opening one, reading it, asking."""

from functools import partial
from typing import Annotated

from fastapi import APIRouter, Form, Request, Response
from fastapi.responses import RedirectResponse

from registry import chats
from registry.errors import NotFound, RegistryError
from registry.models.base import READY, RETIRED
from server import auth, conversations, csrf, knobs, limits
from server.conversations import Composer
from server.deps import ReadSession, WriteSession
from server.i18n import gettext
from server.knobs import Fields
from server.render import label

router = APIRouter(route_class=csrf.FormRoute, include_in_schema=False)


@router.get("/chat")
def new_chat_page(request: Request, session: ReadSession, viewer: auth.Viewer, checkpoint: str = "") -> Response:
    """A fresh conversation, with the checkpoint of the address or the newest one."""
    chosen = conversations.find_checkpoint(session, checkpoint)
    error = ""
    if chosen is not None and chosen.state != READY:
        error = gettext(
            "%(checkpoint)s is %(state)s and cannot answer. Choose another checkpoint.",
            checkpoint=chosen.label,
            state=label(chosen.state),
        )
        if chosen.state == RETIRED:
            error = gettext(
                "The files of %(checkpoint)s were deleted, so it can no longer answer. Choose another checkpoint.",
                checkpoint=chosen.label,
            )
    composer = Composer(knobs.defaults(chosen.kind if chosen is not None else ""), error=error)
    return conversations.page(request, session, viewer, None, chosen, composer)


@router.post("/chat")
def open_chat(
    request: Request,
    session: WriteSession,
    user: auth.Member,
    fields: Fields,
    checkpoint: Annotated[str, Form()] = "",
    prompt: Annotated[str, Form()] = "",
) -> Response:
    """The first message of a conversation."""
    chosen = conversations.find_checkpoint(session, checkpoint)
    kind = chosen.kind if chosen is not None else ""
    typed = knobs.typed(fields, kind)
    if chosen is None:
        message = gettext("There is no checkpoint yet.")
        whole = partial(conversations.page, request, session, user, None, None, Composer(typed, prompt, message))
        return conversations.refuse(request, message, 409, whole)
    try:
        params = knobs.check(typed, kind)
        conversations.limit_messages(request, user)
        chat = chats.open_chat(session, user, chosen)
        chats.open_turn(session, chat, prompt, params)
    except (RegistryError, limits.TooMany) as error:
        session.rollback()  # a refused message leaves no empty conversation behind
        message, status = conversations.told(error)
        whole = partial(conversations.page, request, session, user, None, chosen, Composer(typed, prompt, message))
        return conversations.refuse(request, message, status, whole)
    return conversations.go(request, f"/chat/{chat.public_id}")


@router.get("/chat/{public_id}")
def chat_page(request: Request, session: ReadSession, user: auth.Member, public_id: str, view: str = "") -> Response:
    """A conversation as it is stored; what is being written attaches itself to its stream."""
    chat = chats.get_chat(session, user, public_id)
    is_notebook = chat.checkpoint.kind != knobs.CHAT and any(turn.params.get("logprobs") for turn in chat.turns)
    if is_notebook and view != "turns":
        return RedirectResponse(f"/chat/notebook/{public_id}", 303)
    return conversations.page(request, session, user, chat, chat.checkpoint, conversations.composer_of(chat))


@router.post("/chat/{public_id}")
def post_turn(
    request: Request,
    session: WriteSession,
    user: auth.Member,
    public_id: str,
    fields: Fields,
    prompt: Annotated[str, Form()] = "",
    after: Annotated[str, Form()] = "",
) -> Response:
    """One more message: after the branch that is shown or, where `after` names a turn or 0, beside another one."""
    chat = chats.get_chat(session, user, public_id)
    kind = chat.checkpoint.kind
    branch = chats.branch(chat)
    typed = knobs.typed(fields, kind, branch[-1].params if branch else None)
    try:
        params = knobs.check(typed, kind)
        conversations.limit_messages(request, user)
        turn = chats.open_turn(session, chat, prompt, params, after=_place(after))
    except (RegistryError, limits.TooMany) as error:
        message, status = conversations.told(error)
        composer = Composer(typed, prompt, message)
        whole = partial(conversations.page, request, session, user, chat, chat.checkpoint, composer)
        return conversations.refuse(request, message, status, whole)
    session.refresh(chat, ["turns"])
    if after:
        return conversations.turns_response(request, chat)
    return conversations.turn_response(request, chats.get_turn(session, turn.id))


def _place(after: str) -> int | None:
    if not after:
        return chats.LEAF
    if not after.isdecimal() or len(after) > 15:
        raise NotFound("There is no message with the id %(turn_id)s.", turn_id=after[:40])
    return int(after) or None
