"""Routes of single messages: following, stopping, another answer, another way, thumbs, another checkpoint."""

from typing import Annotated

from fastapi import APIRouter, Form, Request, Response
from fastapi.responses import PlainTextResponse

from registry import chats, checkpoints
from registry.errors import Invalid, RegistryError
from registry.models import Turn
from server import auth, conversations, csrf, knobs, limits, turns
from server.deps import ReadSession, WriteSession
from server.i18n import gettext
from server.knobs import MAX_SEED, Fields

router = APIRouter(prefix="/chat/turns/{turn_id}", route_class=csrf.FormRoute, include_in_schema=False)


@router.get("")
def show_turn(request: Request, session: ReadSession, user: auth.Member, turn_id: int) -> Response:
    """One message with its answer as it stands in the database."""
    return conversations.turn_response(request, chats.own_turn(session, user, turn_id))


@router.get("/events")
def stream_turn(request: Request, session: ReadSession, user: auth.Member, turn_id: int) -> Response:
    """The place in line, then the answer as it is written."""
    chats.own_turn(session, user, turn_id)
    return turns.respond(request, turn_id)


@router.post("/stop")
def stop_turn(request: Request, session: WriteSession, user: auth.Member, turn_id: int) -> Response:
    """Leave the line, or end the answer where it is."""
    turn = chats.own_turn(session, user, turn_id)
    chats.cancel_turn(session, turn)
    return conversations.turn_response(request, turn)


@router.post("/again")
def answer_again(request: Request, session: WriteSession, user: auth.Member, turn_id: int, fields: Fields) -> Response:
    """Another answer to the same question, beside the first, with the settings as they stand now."""
    turn = chats.own_turn(session, user, turn_id)
    kind = turn.chat.checkpoint.kind
    try:
        params = knobs.check(knobs.typed(fields, kind, turn.params), kind)
        if "logprobs" in turn.params:
            params["logprobs"] = turn.params["logprobs"]
        if params.get("seed") is not None and params["seed"] == turn.params.get("seed"):
            params["seed"] = (_last_seed(turn) + 1) % MAX_SEED  # the same seed would write the same answer
        conversations.limit_messages(request, user)
        chats.open_turn(session, turn.chat, turn.prompt, params, after=turn.parent_id)
    except (RegistryError, limits.TooMany) as error:
        if "hx-request" not in request.headers:
            raise
        return PlainTextResponse(*conversations.told(error))
    session.refresh(turn.chat, ["turns"])
    return conversations.turns_response(request, turn.chat)


@router.post("/show")
def show_branch(request: Request, session: WriteSession, user: auth.Member, turn_id: int) -> Response:
    """Go to the way the conversation took through this message."""
    turn = chats.own_turn(session, user, turn_id)
    chats.show_turn(turn.chat, turn)
    return conversations.turns_response(request, turn.chat)


@router.post("/rate")
def rate_turn(
    request: Request, session: WriteSession, user: auth.Member, turn_id: int, rating: Annotated[str, Form()] = ""
) -> Response:
    """Thumbs up, thumbs down, or the same again to take it back."""
    turn = chats.own_turn(session, user, turn_id)
    if rating not in ("1", "-1", "0"):
        raise Invalid(gettext("A rating is 1, -1 or 0."))
    chats.rate_turn(session, turn, int(rating) or None)
    return conversations.turn_response(request, turn, asks_reason=rating != "0")


@router.post("/reason")
def explain_rating(
    request: Request,
    session: WriteSession,
    user: auth.Member,
    turn_id: int,
    reason: Annotated[list[str] | None, Form()] = None,
    note: Annotated[str, Form()] = "",
) -> Response:
    """Why the thumb went up or down: what was picked, and what was written beside it."""
    turn = chats.own_turn(session, user, turn_id)
    known = conversations.GOOD_REASONS + conversations.BAD_REASONS
    picked = [one for one in reason or [] if one in known]
    chats.explain_rating(session, turn, "; ".join([*picked, note.strip()] if note.strip() else picked))
    return conversations.turn_response(request, turn)


@router.post("/fork")
def fork_chat(
    request: Request,
    session: WriteSession,
    user: auth.Member,
    turn_id: int,
    checkpoint: Annotated[str, Form()] = "",
    how: Annotated[str, Form()] = "ask",
) -> Response:
    """Ask another age: the same question put to another checkpoint (`ask`), or a copy to go on from (`go on`)."""
    turn = chats.own_turn(session, user, turn_id)
    chosen = checkpoints.by_label(session, checkpoint)
    before = next((one for one in turn.chat.turns if one.id == turn.parent_id), None)
    last = before if how == "ask" else turn
    copy = chats.fork(session, user, turn.chat, last, chosen)
    if how == "ask":
        params = {name: value for name, value in turn.params.items() if name != "system" or chosen.kind == knobs.CHAT}
        conversations.limit_messages(request, user)
        chats.open_turn(session, copy, turn.prompt, params)
    return conversations.go(request, f"/chat/{copy.public_id}")


def _last_seed(turn: Turn) -> int:
    return max(int(one.params.get("seed") or 0) for one in chats.siblings(turn.chat, turn))
