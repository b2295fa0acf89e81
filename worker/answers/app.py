"""The application: OpenAI's interface for one model, `/ask` in one line, a page that says how, and a health check."""

import hmac
import html
import json
import time
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from string import Template
from typing import Annotated, Any

from fastapi import Depends, FastAPI, Query, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse, Response, StreamingResponse

from registry.errors import Invalid
from worker.answers.asked import DEFAULT_TOKENS, MAX_CHARS, ChatAsked, Drawn, Question, TextAsked
from worker.answers.model import Busy, Model, Written
from worker.engine.protocol import Delta, EngineError, Sampling

MAX_BODY_BYTES = 4_000_000
PAGE = Template((Path(__file__).parent / "page.html").read_text(encoding="utf-8"))
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
}
STREAM = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}


class Denied(Exception):
    """An answer other than a model's: status, sentence, kind in OpenAI's words."""

    def __init__(self, status: int, message: str, kind: str = "invalid_request_error") -> None:
        super().__init__(message)
        self.status, self.message, self.kind = status, message, kind


def create_app(open_model: Callable[[], Model], key: str = "") -> FastAPI:
    """The API; `open_model` is called once the process serves, and with `key` everybody needs that key."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        app.state.model = open_model()
        yield
        app.state.model.close()

    app = FastAPI(title="One checkpoint", docs_url=None, redoc_url=None, lifespan=lifespan)
    app.state.key = key
    for path, method, handler in (
        ("/health", "GET", health),
        ("/", "GET", show_page),
        ("/v1/models", "GET", list_models),
        ("/v1/models/{name:path}", "GET", get_model),
        ("/v1/chat/completions", "POST", complete_chat),
        ("/v1/completions", "POST", complete_text),
        ("/ask", "GET", ask),
        ("/ask", "POST", ask_with_history),
    ):
        app.add_api_route(path, handler, methods=[method], response_model=None)
    app.add_exception_handler(Denied, _on_denied)
    app.add_exception_handler(RequestValidationError, _on_invalid)
    app.add_exception_handler(EngineError, _on_engine_error)
    app.add_exception_handler(Invalid, _on_template)
    app.add_exception_handler(Busy, _on_busy)
    return app


def the_model(request: Request) -> Model:
    """For who may ask."""
    key = request.app.state.key
    given = request.headers.get("authorization", "").removeprefix("Bearer ")
    if key and not hmac.compare_digest(given.encode(), key.encode()):
        raise Denied(401, "Send the key of this server: Authorization: Bearer KEY.", "authentication_error")
    length = request.headers.get("content-length", "0")
    if request.method == "POST" and (not length.isdigit() or int(length) > MAX_BODY_BYTES):
        raise Denied(413, "That is more text than a request may bring.")
    model: Model = request.app.state.model
    return model


TheModel = Annotated[Model, Depends(the_model)]


async def health(request: Request) -> Response:
    """For probes: the model is loaded, else there would be no answer yet."""
    return JSONResponse({"status": "ok", "model": request.app.state.model.name})


async def show_page(request: Request) -> Response:
    """How to ask."""
    model: Model = request.app.state.model
    address = html.escape(str(request.base_url).rstrip("/"))
    kind = "chat" if model.is_chat else "base"
    text = PAGE.substitute(name=html.escape(model.name), address=address, kind=kind, max_chars=f"{MAX_CHARS:,}")
    return HTMLResponse(text, headers=HEADERS)


async def list_models(model: TheModel) -> Response:
    """The one."""
    return JSONResponse({"object": "list", "data": [_described(model)]})


async def get_model(model: TheModel, name: str) -> Response:
    """The one, by its name."""
    _check_name(model, name)
    return JSONResponse(_described(model))


async def complete_chat(request: Request, model: TheModel, asked: ChatAsked) -> Response:
    """Answer a conversation."""
    _check_name(model, asked.model)
    messages = [{"role": message.role, "content": message.content} for message in asked.messages]
    sampling = asked.sampling()
    return await _complete(request, model, asked, model.conversation(messages, sampling), sampling, is_chat=True)


async def complete_text(request: Request, model: TheModel, asked: TextAsked) -> Response:
    """Go on from a text."""
    _check_name(model, asked.model)
    return await _complete(request, model, asked, model.text(asked.prompt), asked.sampling(), is_chat=False)


async def ask(
    request: Request,
    model: TheModel,
    question: Annotated[str, Query(min_length=1, max_length=MAX_CHARS)],
    max_tokens: Annotated[int, Query(ge=1, le=32_768)] = DEFAULT_TOKENS,
    stream: bool = False,
) -> Response:
    """A question in the address; the answer as JSON, or with `stream` as text while it is written."""
    asked = Question(question=question, max_tokens=max_tokens)
    if stream:
        prompt, sampling = _question(model, asked)
        return StreamingResponse(
            (delta.text async for delta in model.answer(prompt, sampling)), media_type="text/plain", headers=STREAM
        )
    return await ask_with_history(request, model, asked)


async def ask_with_history(request: Request, model: TheModel, asked: Question) -> Response:
    """A question with what was said before."""
    written = await _whole(request, model, *_question(model, asked))
    return JSONResponse(
        {
            "question": asked.question,
            "answer": written.text,
            "model": model.name,
            "finish_reason": written.finish_reason,
            "usage": written.usage,
        }
    )


def _question(model: Model, asked: Question) -> tuple[list[int], Sampling]:
    messages = []
    for question, answer in asked.history:
        messages += [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
    messages.append({"role": "user", "content": asked.question})
    sampling = Sampling(max_tokens=asked.max_tokens, temperature=asked.temperature, top_p=0.95)
    return model.conversation(messages, sampling), sampling


async def _complete(
    request: Request, model: Model, asked: Drawn, prompt: list[int], sampling: Sampling, *, is_chat: bool
) -> Response:
    head = _head(model, is_chat=is_chat, is_stream=asked.stream)
    if asked.stream:
        has_usage = asked.stream_options is not None and asked.stream_options.include_usage
        pieces = _events(model, head, prompt, sampling, is_chat=is_chat, has_usage=has_usage)
        return StreamingResponse(pieces, media_type="text/event-stream", headers=STREAM)
    written = await _whole(request, model, prompt, sampling)
    said = {"message": {"role": "assistant", "content": written.text}} if is_chat else {"text": written.text}
    choice = {"index": 0, **said, "finish_reason": written.finish_reason, "logprobs": None}
    return JSONResponse({**head, "choices": [choice], "usage": written.usage})


async def _whole(request: Request, model: Model, prompt: list[int], sampling: Sampling) -> Written:
    """The whole answer; who hangs up stops it."""
    written = Written()
    async with aclosing(model.answer(prompt, sampling)) as pieces:
        async for delta in pieces:
            written.add(delta)
            if await request.is_disconnected():
                break
    return written


async def _events(
    model: Model, head: dict[str, Any], prompt: list[int], sampling: Sampling, *, is_chat: bool, has_usage: bool
) -> AsyncIterator[bytes]:
    written = Written()
    try:
        async with aclosing(model.answer(prompt, sampling)) as pieces:
            async for delta in pieces:
                written.add(delta)
                yield _event({**head, "choices": [_choice(delta, is_chat=is_chat)]})
    except (EngineError, Busy) as error:
        yield _event({"error": {"message": str(error) or BUSY, "type": "server_error"}})
        return
    if has_usage:
        yield _event({**head, "choices": [], "usage": written.usage})
    yield b"data: [DONE]\n\n"


def _choice(delta: Delta, *, is_chat: bool) -> dict[str, Any]:
    said = {"delta": {"role": "assistant", "content": delta.text}} if is_chat else {"text": delta.text}
    return {"index": 0, **said, "finish_reason": delta.finish_reason, "logprobs": None}


def _event(content: dict[str, Any]) -> bytes:
    return f"data: {json.dumps(content, ensure_ascii=False)}\n\n".encode()


def _head(model: Model, *, is_chat: bool, is_stream: bool) -> dict[str, Any]:
    name = "chat.completion" if is_chat else "text_completion"
    chunk = ".chunk" if is_stream and is_chat else ""
    prefix = "chatcmpl" if is_chat else "cmpl"
    return {
        "id": f"{prefix}-{uuid.uuid4().hex}",
        "object": name + chunk,
        "created": int(time.time()),
        "model": model.name,
    }


def _described(model: Model) -> dict[str, Any]:
    return {"id": model.name, "object": "model", "created": 0, "owned_by": "here"}


def _check_name(model: Model, name: str) -> None:
    if name and name != model.name:
        raise Denied(404, f"The model here is {model.name}.")


BUSY = "Too many wait already; ask again in a moment."


def _error(status: int, message: str, kind: str, headers: dict[str, str] | None = None) -> Response:
    return JSONResponse({"error": {"message": message, "type": kind}}, status, headers)


def _on_denied(_request: Request, error: Exception) -> Response:
    assert isinstance(error, Denied)
    return _error(error.status, error.message, error.kind)


def _on_invalid(_request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    first = error.errors()[0]
    place = ".".join(str(part) for part in first["loc"][1:])
    return _error(400, f"{place}: {first['msg']}", "invalid_request_error")


def _on_engine_error(_request: Request, error: Exception) -> Response:
    return _error(500, str(error), "server_error")


def _on_template(_request: Request, error: Exception) -> Response:
    """The model's own template does not take the conversation, for instance two questions in a row."""
    return _error(400, str(error), "invalid_request_error")


def _on_busy(_request: Request, _error_: Exception) -> Response:
    return _error(503, BUSY, "server_error", {"Retry-After": "5"})
