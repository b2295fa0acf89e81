"""Routes of the time machine: one question through the checkpoints of a run, as a film."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Form, Query, Request, Response
from fastapi.responses import RedirectResponse

from registry import ages as verbs
from registry import chats, runs, tickets
from registry.errors import Invalid, RegistryError
from registry.models.base import READY
from registry.models.chats import FILM
from registry.settings import get_settings
from server import ages, auth, conversations, csrf, knobs, limits, render, series, strips
from server.conversations import Composer
from server.deps import ReadSession, WriteSession
from server.i18n import gettext
from server.knobs import Fields
from server.series import Choice, Series

router = APIRouter(prefix="/chat/film", route_class=csrf.FormRoute, include_in_schema=False)
How = Literal["spread", "last", "milestones", "hand"]


@dataclass(frozen=True)
class NewFilmPage:
    """Context of ages/film_new.html."""

    known: Sequence[Series]
    choice: Choice
    composer: Composer
    defaults: str
    is_chat: bool
    keeps_probabilities: bool
    max_chars: int
    max_frames: int


@router.get("")
def new_page(
    request: Request, session: ReadSession, user: auth.Member, run: str = "", prompt: str = "", turn: int | None = None
) -> Response:
    """Choose a run, which of its checkpoints, and a question: that of a `turn`, where one is given."""
    known = series.all_series(session)
    found, params = series.find_series(known, run), dict[str, Any]()
    if turn is not None:
        asked = chats.own_turn(session, user, turn)
        found, prompt, params = series.series_of(known, asked.chat.checkpoint), asked.prompt, dict(asked.params)
    choice = Choice(found)
    composer = Composer(knobs.of_params(params, found.kind if found is not None else ""), prompt)
    return _new(request, known, choice, composer, keeps=True)


@router.get("/wait")
def show_wait(
    session: ReadSession,
    _user: auth.Member,
    run: str,
    how: How = "spread",
    count: int = 10,
    step: Annotated[list[int] | None, Query()] = None,
    max_tokens: int = chats.DEFAULT_MAX_TOKENS,
) -> dict[str, Any]:
    """What waiting to expect for the last of these frames to begin."""
    own = series.all_series(session, runs.get_run(session, run.partition(":")[0]))
    choice = Choice(series.find_series(own, run), how, count, tuple(step or ()))
    asked = choice.checkpoints[: get_settings().film_frames]
    return strips.expected(session, tickets.PROBE, asked, max(1, min(max_tokens, knobs.MAX_TOKENS_LIMIT)))


@router.post("")
def open_film(
    request: Request,
    session: WriteSession,
    user: auth.Member,
    fields: Fields,
    run: Annotated[str, Form()] = "",
    how: Annotated[How, Form()] = "spread",
    count: Annotated[int, Form()] = 10,
    step: Annotated[list[int] | None, Form()] = None,
    prompt: Annotated[str, Form()] = "",
) -> Response:
    """Ask the checkpoints that were chosen; one film counts as one message."""
    known = series.all_series(session)
    choice = Choice(series.find_series(known, run), how, count, tuple(step or ()))
    kind = choice.series.kind if choice.series is not None else ""
    try:
        asked = choice.checkpoints
        params = ages.params_of(fields, asked)
        conversations.limit_messages(request, user)
        group = verbs.open_film(session, user, asked, prompt, params)
    except (RegistryError, limits.TooMany) as error:
        session.rollback()
        message, status = conversations.told(error)
        composer = Composer(knobs.typed(fields, kind), prompt, message)
        return _new(request, series.all_series(session), choice, composer, keeps="logprobs" in fields, status=status)
    return RedirectResponse(f"/chat/film/{group.public_id}", 303)


@router.post("/{public_id}")
def ask_again(
    request: Request,
    session: WriteSession,
    user: auth.Member,
    public_id: str,
    fields: Fields,
    prompt: Annotated[str, Form()] = "",
) -> Response:
    """Ask the same ages something else, or the same with other settings: another film."""
    before = ages.own_group(session, user, FILM, public_id)
    every = [chat.checkpoint for chat in before.chats]
    try:
        asked = [one for one in every if one.state == READY]
        if not asked:
            raise Invalid(gettext("None of these checkpoints can answer any more."))
        params = ages.params_of(fields, asked)
        conversations.limit_messages(request, user)
        group = verbs.open_film(session, user, asked, prompt, params)
    except (RegistryError, limits.TooMany) as error:
        session.rollback()
        message, status = conversations.told(error)
        before = ages.own_group(session, user, FILM, public_id)
        composer = Composer(knobs.typed(fields, ages.kind_of(every)), prompt, message)
        return ages.group_response(request, session, before, composer, status=status)
    return RedirectResponse(f"/chat/film/{group.public_id}", 303)


def _new(
    request: Request,
    known: Sequence[Series],
    choice: Choice,
    composer: Composer,
    *,
    keeps: bool,
    status: int = 200,
) -> Response:
    kind = choice.series.kind if choice.series is not None else ""
    context = NewFilmPage(
        known=known,
        choice=choice,
        composer=composer,
        defaults=ages.defaults_text(kind),
        is_chat=kind == knobs.CHAT,
        keeps_probabilities=keeps,
        max_chars=get_settings().max_prompt_chars,
        max_frames=get_settings().film_frames,
    )
    return render.page(request, "ages/film_new.html", context, status_code=status)
