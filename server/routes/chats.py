"""Routes of conversations with checkpoints."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import Annotated, Any

from fastapi import APIRouter, Form, Request, Response
from fastapi.responses import PlainTextResponse, RedirectResponse
from sqlalchemy.orm import Session

from registry import chats, checkpoints, evaluations, runs
from registry.errors import Conflict, Invalid, NotFound, RegistryError
from registry.models import Chat, Checkpoint, Turn, User
from registry.models.base import READY
from registry.settings import get_settings
from server import auth, csrf, limits, probes, render, turns
from server.deps import ReadSession, WriteSession
from server.i18n import error_text, gettext
from server.render import compact, label

router = APIRouter(route_class=csrf.FormRoute, include_in_schema=False)

LABEL = re.compile(r"(?P<run>.+)@(?P<step>\d{1,18})(?P<chat>-chat)?(-(?P<bits>\d{1,2})bit)?")
MAX_TOKENS, TEMPERATURE = 128, 0.8
MAX_TOKENS_LIMIT, TEMPERATURE_LIMIT = 1024, 2.0
SHOWN_CHATS = 40
SAMPLES = 3


@dataclass(frozen=True)
class Option:
    """One checkpoint to pick."""

    value: str
    text: str
    is_chosen: bool


@dataclass(frozen=True)
class OptionGroup:
    """The checkpoints of one run, the newest first."""

    run: str
    options: Sequence[Option]


@dataclass(frozen=True)
class Composer:
    """What the visitor has typed and chosen."""

    prompt: str = ""
    max_tokens: str = str(MAX_TOKENS)
    temperature: str = str(TEMPERATURE)
    error: str = ""


@dataclass(frozen=True)
class ChatPage:
    """Context of chats/page.html."""

    chats: Sequence[Chat]
    chat: Chat | None
    checkpoint: Checkpoint | None
    groups: Sequence[OptionGroup]
    composer: Composer
    max_chars: int
    samples: Sequence[probes.Saying] = field(default_factory=list)
    """For visitors who are not logged in: what this checkpoint wrote."""

    @property
    def is_chat(self) -> bool:
        """Whether the checkpoint talks, or goes on with a text."""
        return self.checkpoint is not None and self.checkpoint.kind == "chat"


@dataclass(frozen=True)
class TurnFragment:
    """Context of chats/_turn.html."""

    turn: Turn
    checkpoint: Checkpoint


@router.get("/chat")
def new_chat_page(request: Request, session: ReadSession, viewer: auth.Viewer, checkpoint: str = "") -> Response:
    """A fresh conversation, with the checkpoint of the address or the newest one."""
    chosen = _find_checkpoint(session, checkpoint)
    error = ""
    if chosen is not None and chosen.state != READY:
        error = gettext(
            "%(checkpoint)s is %(state)s and cannot answer. Choose another checkpoint.",
            checkpoint=chosen.label,
            state=label(chosen.state),
        )
    return _page(request, session, viewer, None, chosen, Composer(error=error))


@router.post("/chat")
def open_chat(
    request: Request,
    session: WriteSession,
    user: auth.Member,
    checkpoint: Annotated[str, Form()] = "",
    prompt: Annotated[str, Form()] = "",
    max_tokens: Annotated[str, Form()] = str(MAX_TOKENS),
    temperature: Annotated[str, Form()] = str(TEMPERATURE),
) -> Response:
    """The first message of a conversation."""
    chosen = _find_checkpoint(session, checkpoint)
    composer = Composer(prompt, max_tokens, temperature)
    if chosen is None:
        return _refuse(request, session, user, None, None, composer, gettext("There is no checkpoint yet."), 409)
    try:
        params = _check(user, composer)
        chat = chats.open_chat(session, user, chosen)
        chats.open_turn(session, chat, prompt, params)
    except (Invalid, Conflict, limits.TooMany) as error:
        session.rollback()  # a refused message leaves no empty conversation behind
        return _refuse(request, session, user, None, chosen, composer, *_told(error))
    return _go(request, f"/chat/{chat.public_id}")


@router.get("/chat/turns/{turn_id}")
def show_turn(request: Request, session: ReadSession, user: auth.Member, turn_id: int) -> Response:
    """One message with its answer as it stands in the database."""
    return _turn(request, chats.own_turn(session, user, turn_id))


@router.get("/chat/turns/{turn_id}/events")
def stream_turn(request: Request, session: ReadSession, user: auth.Member, turn_id: int) -> Response:
    """The place in line, then the answer as it is written."""
    chats.own_turn(session, user, turn_id)
    return turns.respond(request, turn_id)


@router.post("/chat/turns/{turn_id}/stop")
def stop_turn(request: Request, session: WriteSession, user: auth.Member, turn_id: int) -> Response:
    """Leave the line, or end the answer where it is."""
    turn = chats.own_turn(session, user, turn_id)
    chats.cancel_turn(session, turn)
    return _turn(request, turn)


@router.post("/chat/turns/{turn_id}/rate")
def rate_turn(
    request: Request, session: WriteSession, user: auth.Member, turn_id: int, rating: Annotated[str, Form()] = ""
) -> Response:
    """Thumbs up, thumbs down, or the same again to take it back."""
    turn = chats.own_turn(session, user, turn_id)
    if rating not in ("1", "-1", "0"):
        raise Invalid(gettext("A rating is 1, -1 or 0."))
    chats.rate_turn(session, turn, int(rating) or None)
    return _turn(request, turn)


@router.get("/chat/{public_id}")
def chat_page(request: Request, session: ReadSession, user: auth.Member, public_id: str) -> Response:
    """A conversation as it is stored; what is being written attaches itself to its stream."""
    chat = chats.get_chat(session, user, public_id)
    last = chat.turns[-1].params if chat.turns else {}
    composer = Composer(
        max_tokens=str(last.get("max_tokens", MAX_TOKENS)), temperature=str(last.get("temperature", TEMPERATURE))
    )
    return _page(request, session, user, chat, chat.checkpoint, composer)


@router.post("/chat/{public_id}")
def post_turn(
    request: Request,
    session: WriteSession,
    user: auth.Member,
    public_id: str,
    prompt: Annotated[str, Form()] = "",
    max_tokens: Annotated[str, Form()] = str(MAX_TOKENS),
    temperature: Annotated[str, Form()] = str(TEMPERATURE),
) -> Response:
    """One more message."""
    chat = chats.get_chat(session, user, public_id)
    composer = Composer(prompt, max_tokens, temperature)
    try:
        turn = chats.open_turn(session, chat, prompt, _check(user, composer))
    except (Invalid, Conflict, limits.TooMany) as error:
        return _refuse(request, session, user, chat, chat.checkpoint, composer, *_told(error))
    if "hx-request" in request.headers:
        return _turn(request, turn, chat.checkpoint)
    return RedirectResponse(f"/chat/{public_id}", 303)


@router.post("/chat/{public_id}/clear")
def clear_chat(session: WriteSession, user: auth.Member, public_id: str) -> Response:
    """Hide a conversation and begin a new one with the same checkpoint."""
    chat = chats.get_chat(session, user, public_id)
    chats.clear_chat(session, chat)
    return RedirectResponse(f"/chat?checkpoint={chat.checkpoint.label}", 303)


def _find_checkpoint(session: Session, wanted: str) -> Checkpoint | None:
    """By label, `run@step` with kind and precision where needed; the newest one for an empty label."""
    if not wanted:
        newest = [*checkpoints.newest(session, "chat"), *checkpoints.newest(session)]
        return newest[0] if newest else None
    match = LABEL.fullmatch(wanted)
    if match is None:
        raise NotFound(gettext("'%(name)s' names no checkpoint: write run@step.", name=wanted[:80]))
    run = runs.get_run(session, match["run"])
    kind = "chat" if match["chat"] else None
    return checkpoints.get_checkpoint(session, run, int(match["step"]), kind, int(match["bits"] or 16))


def _check(user: User, composer: Composer) -> dict[str, Any]:
    """The sampling parameters, after everything that can be refused without the database."""
    limit = get_settings().max_prompt_chars
    if not composer.prompt.strip():
        raise Invalid(gettext("The message is empty: write something for the model to go on from."))
    if len(composer.prompt) > limit:
        length, most = f"{len(composer.prompt):,}", f"{limit:,}"
        raise Invalid(
            gettext("The message has %(length)s characters; at most %(limit)s are accepted.", length=length, limit=most)
        )
    params = {
        "max_tokens": int(_number(composer.max_tokens, 1, MAX_TOKENS_LIMIT, gettext("Longest answer"))),
        "temperature": _number(composer.temperature, 0, TEMPERATURE_LIMIT, gettext("Temperature")),
    }
    limits.hit("chat", get_settings().chat_limit, str(user.id))
    return params


def _number(text: str, low: float, high: float, name: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = float("nan")
    if not low <= value <= high:
        message = gettext("%(name)s must be a number from %(low)s to %(high)s.", name=name, low=low, high=high)
        raise Invalid(message)
    return value


def _told(error: RegistryError | limits.TooMany) -> tuple[str, int]:
    if isinstance(error, limits.TooMany):
        return gettext(
            "You are sending faster than the line can take. Wait %(seconds)s seconds; your text stays here.",
            seconds=error.retry_seconds,
        ), 429
    return error_text(error), 409 if isinstance(error, Conflict) else 422


def _refuse(
    request: Request,
    session: Session,
    user: User,
    chat: Chat | None,
    checkpoint: Checkpoint | None,
    composer: Composer,
    message: str,
    status: int,
) -> Response:
    """A sentence for the script, which keeps the text; without it the page again, with the text in it."""
    if "hx-request" in request.headers:
        return PlainTextResponse(message, status)
    typed = Composer(composer.prompt, composer.max_tokens, composer.temperature, message)
    return _page(request, session, user, chat, checkpoint, typed, status)


def _go(request: Request, address: str) -> Response:
    if "hx-request" in request.headers:
        return Response(headers={"HX-Redirect": address})
    return RedirectResponse(address, 303)


def _turn(request: Request, turn: Turn, checkpoint: Checkpoint | None = None) -> Response:
    if "hx-request" not in request.headers:
        return RedirectResponse(f"/chat/{turn.chat.public_id}", 303)
    return render.page(request, "chats/_turn.html", TurnFragment(turn, checkpoint or turn.chat.checkpoint))


def _page(
    request: Request,
    session: Session,
    viewer: User | None,
    chat: Chat | None,
    checkpoint: Checkpoint | None,
    composer: Composer,
    status: int = 200,
) -> Response:
    context = ChatPage(
        chats=chats.list_chats(session, viewer, SHOWN_CHATS) if viewer else [],
        chat=chat,
        checkpoint=checkpoint,
        groups=_groups(session, checkpoint),
        composer=composer,
        max_chars=get_settings().max_prompt_chars,
        samples=_samples(session, checkpoint) if viewer is None and checkpoint else [],
    )
    return render.page(request, "chats/page.html", context, status_code=status)


def _groups(session: Session, chosen: Checkpoint | None) -> list[OptionGroup]:
    ready = sorted(checkpoints.list_checkpoints(session), key=lambda one: (-one.run_id, -one.step, one.kind))
    return [
        OptionGroup(run, [_option(one, chosen) for one in group])
        for run, group in groupby(ready, key=lambda one: one.run.name)
    ]


def _option(checkpoint: Checkpoint, chosen: Checkpoint | None) -> Option:
    seen = checkpoint.tokens_seen
    words = [
        gettext("step %(step)s", step=f"{checkpoint.step:,}"),
        gettext("%(count)s tokens", count=compact(seen)) if seen is not None else "",
        label(checkpoint.kind),
        f"{checkpoint.precision} bit" if checkpoint.precision != 16 else "",
    ]
    is_chosen = chosen is not None and chosen.id == checkpoint.id
    return Option(checkpoint.label, " · ".join(word for word in words if word), is_chosen)


def _samples(session: Session, checkpoint: Checkpoint) -> list[probes.Saying]:
    found = [one for one in evaluations.for_checkpoint(session, checkpoint) if one.task.is_probe]
    return probes.sayings([], found)[:SAMPLES]
