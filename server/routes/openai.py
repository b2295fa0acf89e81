"""Routes of the OpenAI-compatible interface, below /v1: models, chat completions and completions."""

from collections.abc import Callable, Coroutine
from functools import lru_cache
from typing import Annotated, Any

from anyio import CapacityLimiter, to_thread
from fastapi import APIRouter, Depends, Request, Response
from fastapi.responses import JSONResponse
from fastapi.routing import APIRoute
from sqlalchemy.orm import Session

from registry import calls, checkpoints, db, keys
from registry.errors import NotFound
from registry.models import ApiKey, Checkpoint
from registry.models.base import READY
from registry.settings import get_settings
from server import sse
from server.deps import ReadSession
from server.i18n import error_text, gettext
from server.openai import answers, following
from server.openai.answers import Head
from server.openai.asked import ChatAsked, TextAsked
from server.openai.callers import caller, check_room, find_caller
from server.openai.errors import ApiError

MAX_BODY_BYTES = 4_000_000
OPENED_AT_ONCE = 2
"""More threads would take turns with the one that streams, and each of its turns comes after one of each of theirs."""


class BodyRoute(APIRoute):
    """A route whose body is read only where it says that it is short enough."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """The handler behind the check."""
        handle = super().get_route_handler()

        async def guarded(request: Request) -> Response:
            length = request.headers.get("content-length", "0")
            if not length.isdigit() or "chunked" in request.headers.get("transfer-encoding", ""):
                raise ApiError(411, gettext("The request does not say how long it is."))
            if int(length) > MAX_BODY_BYTES:
                raise ApiError(413, gettext("That is more text than a request may bring."))
            return await handle(request)

        return guarded


router = APIRouter(prefix="/v1", tags=["OpenAI-compatible"], route_class=BodyRoute)
Reader = Annotated[ApiKey, Depends(caller(keys.MODELS))]


@router.get("/models")
def list_models(session: ReadSession, key: Reader) -> JSONResponse:
    """Every ready checkpoint, as `run@step`."""
    owner = get_settings().site_name
    found = [answers.model(checkpoint, owner) for checkpoint in checkpoints.list_checkpoints(session)]
    return JSONResponse({"object": "list", "data": found})


@router.get("/models/{model}")
def get_model(session: ReadSession, key: Reader, model: str) -> JSONResponse:
    """One ready checkpoint."""
    checkpoint = _find_model(session, model)
    if checkpoint.state != READY:
        raise ApiError(404, gettext("%(checkpoint)s cannot be asked.", checkpoint=checkpoint.label), param="model")
    return JSONResponse(answers.model(checkpoint, get_settings().site_name))


@router.post("/chat/completions")
async def create_chat_completion(request: Request, asked: ChatAsked) -> Response:
    """Answer the last message of a conversation, whole or as a stream."""
    return await _answer(request, asked)


@router.post("/completions")
async def create_completion(request: Request, asked: TextAsked) -> Response:
    """Go on from one or more prompts, whole or as a stream; with echo, say how likely the prompt itself was."""
    return await _answer(request, asked)


@router.api_route("/{rest:path}", methods=["GET", "POST", "PUT", "PATCH", "DELETE"], include_in_schema=False)
def answer_unknown(rest: str) -> Response:
    """Other parts of OpenAI's interface."""
    message = gettext("There is no /v1/%(rest)s here; /docs/api says what there is.", rest=rest[:80])
    raise ApiError(404, message, code="unknown_url")


async def _answer(request: Request, asked: ChatAsked | TextAsked) -> Response:
    head, call_id = await to_thread.run_sync(_open, request, asked, limiter=_openers())
    if asked.stream:
        parts = following.stream(head, call_id, has_usage=asked.includes_usage)
        return sse.Stream(parts, media_type="text/event-stream", headers=sse.HEADERS)
    look = await following.wait(request, call_id)
    return JSONResponse(answers.whole(head, look.result, look.usage))


@lru_cache
def _openers() -> CapacityLimiter:
    return CapacityLimiter(OPENED_AT_ONCE)


def _open(request: Request, asked: ChatAsked | TextAsked) -> tuple[Head, int]:
    key = find_caller(request, keys.COMPLETIONS)
    with db.read_session() as session:
        checkpoint = _find_model(session, asked.model)
        used = calls.used_today(session, key.user)
    wanted = asked.request()
    # Read before: whoever writes keeps all others from it.
    with db.transaction() as session:
        check_room(session, key.user, wanted, used)
        call = calls.open_call(session, key.user, key, checkpoint, wanted)
        return Head.of(call), call.id


def _find_model(session: Session, model: str) -> Checkpoint:
    try:
        return checkpoints.by_label(session, model)
    except NotFound as error:
        raise ApiError(404, error_text(error), param="model") from error
