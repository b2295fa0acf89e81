"""Routes of asking two to four checkpoints side by side."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

from fastapi import APIRouter, Form, Query, Request, Response
from fastapi.responses import RedirectResponse
from sqlalchemy.orm import Session

from registry import ages as verbs
from registry import chats, checkpoints, tickets
from registry.errors import RegistryError
from registry.models import Chat, ChatGroup, Checkpoint, User
from registry.models.chats import SIDE
from registry.settings import get_settings
from server import ages, auth, conversations, csrf, knobs, limits, render, series, strips
from server.conversations import Composer, OptionGroup
from server.deps import ReadSession, WriteSession
from server.knobs import Fields, Knobs

router = APIRouter(prefix="/chat/side", route_class=csrf.FormRoute, include_in_schema=False)


@dataclass(frozen=True)
class NewSidePage:
    """Context of ages/side_new.html."""

    groups: Sequence[OptionGroup]
    """What each column can be."""
    chosen: Sequence[str]
    """Labels, one a column."""
    composer: Composer
    defaults: str
    is_chat: bool
    """Whether there is a chat model, which can be told a system prompt."""
    keeps_probabilities: bool
    max_chars: int
    num_columns: int = verbs.MAX_COLUMNS


@router.get("")
def new_page(
    request: Request,
    session: ReadSession,
    user: auth.Member,
    checkpoint: Annotated[list[str] | None, Query()] = None,
    prompt: str = "",
    turn: int | None = None,
) -> Response:
    """Choose two to four checkpoints and a question: that of a `turn`, with its checkpoint, where one is given."""
    chosen = list(checkpoint or [])
    params: Mapping[str, Any] = {}
    if turn is not None:
        asked = chats.own_turn(session, user, turn)
        chosen, prompt, params = [asked.chat.checkpoint.label], asked.prompt, asked.params
    first = checkpoints.by_label(session, chosen[0]) if chosen else None
    if len(chosen) < verbs.MIN_COLUMNS:
        chosen = series.ends(series.all_series(session), first)
    kind = first.kind if first is not None else _kind(session, chosen)
    composer = Composer(knobs.of_params(params, kind), prompt)
    return _new(request, session, chosen, composer, keeps=bool(params.get("logprobs")))


@router.get("/wait")
def show_wait(
    session: ReadSession,
    _user: auth.Member,
    checkpoint: Annotated[list[str] | None, Query()] = None,
    max_tokens: int = chats.DEFAULT_MAX_TOKENS,
) -> dict[str, Any]:
    """What waiting to expect for the last of these columns to begin."""
    asked = [checkpoints.by_label(session, label) for label in checkpoint or [] if label][: verbs.MAX_COLUMNS]
    size = max(1, min(max_tokens, knobs.MAX_TOKENS_LIMIT))
    return strips.expected(session, tickets.CHAT, asked, size)


@router.post("")
def open_side(
    request: Request,
    session: WriteSession,
    user: auth.Member,
    fields: Fields,
    checkpoint: Annotated[list[str] | None, Form()] = None,
    prompt: Annotated[str, Form()] = "",
) -> Response:
    """Ask all that were chosen."""
    chosen = [label for label in checkpoint or [] if label]
    asked: list[Checkpoint] = []
    try:
        asked = [checkpoints.by_label(session, label) for label in chosen]
        params = ages.params_of(fields, asked)
        conversations.limit_messages(request, user)
        group = verbs.open_side(session, user, asked, prompt, params)
    except (RegistryError, limits.TooMany) as error:
        session.rollback()
        message, status = conversations.told(error)
        composer = Composer(knobs.typed(fields, ages.kind_of(asked)), prompt, message)
        return _new(request, session, chosen, composer, keeps="logprobs" in fields, status=status)
    return RedirectResponse(f"/chat/side/{group.public_id}", 303)


@router.post("/{public_id}")
def ask_all(
    request: Request,
    session: WriteSession,
    user: auth.Member,
    public_id: str,
    fields: Fields,
    prompt: Annotated[str, Form()] = "",
) -> Response:
    """One more question to every column."""
    group = ages.own_group(session, user, SIDE, public_id)
    asked = [chat.checkpoint for chat in group.chats]
    try:
        params = ages.params_of(fields, asked)
        conversations.limit_messages(request, user)
        verbs.ask_all(session, group, prompt, params)
    except (RegistryError, limits.TooMany) as error:
        return _refuse(request, session, user, public_id, fields, prompt, error)
    return RedirectResponse(f"/chat/side/{public_id}", 303)


@router.post("/{public_id}/again")
def ask_again(request: Request, session: WriteSession, user: auth.Member, public_id: str, fields: Fields) -> Response:
    """Another answer from every column, beside the first, with the settings as they stand in the form."""
    group = ages.own_group(session, user, SIDE, public_id)
    try:
        params = ages.params_of(fields, [chat.checkpoint for chat in group.chats])
        conversations.limit_messages(request, user)
        verbs.ask_again(session, group.chats, params)
    except (RegistryError, limits.TooMany) as error:
        return _refuse(request, session, user, public_id, fields, "", error)
    return RedirectResponse(f"/chat/side/{public_id}", 303)


@router.post("/{public_id}/show/{turn_id}")
def show_way(request: Request, session: WriteSession, user: auth.Member, public_id: str, turn_id: int) -> Response:
    """Go to the way that a column took through a message."""
    group = ages.own_group(session, user, SIDE, public_id)
    chat = verbs.show(group, turn_id)
    return ages.column_response(request, group, chat)


@router.post("/{public_id}/{column}/again")
def ask_column_again(
    request: Request, session: WriteSession, user: auth.Member, public_id: str, column: str
) -> Response:
    """Another answer from one column alone."""
    group, chat = _column(session, user, public_id, column)
    conversations.limit_messages(request, user)
    verbs.ask_again(session, [chat])
    return RedirectResponse(f"/chat/side/{group.public_id}", 303)


@router.post("/{public_id}/{column}/stop")
def stop_column(request: Request, session: WriteSession, user: auth.Member, public_id: str, column: str) -> Response:
    """Stop one column; the others go on."""
    group, chat = _column(session, user, public_id, column)
    verbs.stop(session, chat)
    return ages.column_response(request, group, chat)


@router.post("/{public_id}/{column}/swap")
def swap_column(
    session: WriteSession, user: auth.Member, public_id: str, column: str, checkpoint: Annotated[str, Form()]
) -> Response:
    """Another checkpoint goes on in this column."""
    group, chat = _column(session, user, public_id, column)
    verbs.swap(session, user, group, chat, checkpoints.by_label(session, checkpoint))
    return RedirectResponse(f"/chat/side/{public_id}", 303)


@router.post("/{public_id}/{column}/fork")
def fork_column(session: WriteSession, user: auth.Member, public_id: str, column: str) -> Response:
    """Go on with one column alone."""
    _, chat = _column(session, user, public_id, column)
    branch = chats.branch(chat)
    copy = chats.fork(session, user, chat, branch[-1] if branch else None, chat.checkpoint)
    return RedirectResponse(f"/chat/{copy.public_id}", 303)


def _column(session: Session, user: User, public_id: str, column: str) -> tuple[ChatGroup, Chat]:
    group = ages.own_group(session, user, SIDE, public_id)
    return group, verbs.column(group, column)


def _kind(session: Session, labels: Sequence[str]) -> str:
    return checkpoints.by_label(session, labels[0]).kind if labels else ""


def _new(
    request: Request,
    session: Session,
    chosen: Sequence[str],
    composer: Composer,
    *,
    keeps: bool,
    status: int = 200,
) -> Response:
    ready = checkpoints.list_checkpoints(session)
    context = NewSidePage(
        groups=conversations.option_groups(session, None),
        chosen=chosen,
        composer=composer,
        defaults=ages.defaults_text(next((one.kind for one in ready if one.label in chosen[:1]), "")),
        is_chat=any(one.kind == knobs.CHAT for one in ready),
        keeps_probabilities=keeps,
        max_chars=get_settings().max_prompt_chars,
    )
    return render.page(request, "ages/side_new.html", context, status_code=status)


def _refuse(
    request: Request,
    session: Session,
    user: User,
    public_id: str,
    fields: Mapping[str, Any],
    prompt: str,
    error: RegistryError | limits.TooMany,
) -> Response:
    session.rollback()
    message, status = conversations.told(error)
    group = ages.own_group(session, user, SIDE, public_id)
    typed: Knobs = knobs.typed(fields, ages.kind_of([chat.checkpoint for chat in group.chats]))
    return ages.group_response(request, session, group, Composer(typed, prompt, message), status=status)
