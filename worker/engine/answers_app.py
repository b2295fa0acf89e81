"""Added to vLLM's web server (`--middleware`): all answers that are being written on one connection.

vLLM's own stream costs an HTTP response, and for each token an event of JSON, for every answer; here the pieces of
all answers that came within `FLUSH_SECONDS` are one line. Runs in the child, behind its private socket.

    POST /grow/answers {"asked": [{"id", "prompt", "sampling"}, …]} begins some
    POST /grow/abort {"ids": […]} ends some
    GET /grow/answers: lines of [[id, text, tokens, finish_reason, usage, error], …]
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from typing import Any

import orjson
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.types import ASGIApp, Receive, Scope, Send
from vllm import SamplingParams
from vllm.inputs import TokensPrompt
from vllm.sampling_params import RequestOutputKind

PATH = "/grow/answers"
ABORT_PATH = "/grow/abort"
FLUSH_SECONDS = 0.01
"""A step of a busy engine takes about as long; the first piece of an answer does not wait for it."""
KEEP_ALIVE_SECONDS = 5.0

Row = list[Any]


class Answers:
    """The middleware; one a child, because the child serves one worker."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._rows: list[Row] = []
        self._has_rows = asyncio.Event()
        self._is_urgent = asyncio.Event()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer what is ours, pass on the rest."""
        handle = self._handler(scope)
        if handle is None:
            await self._app(scope, receive, send)
            return
        response = await handle(Request(scope, receive))
        await response(scope, receive, send)

    def _handler(self, scope: Scope) -> Callable[[Request], Awaitable[Response]] | None:
        if scope["type"] != "http":
            return None
        handlers = {("POST", PATH): self._begin, ("GET", PATH): self._follow, ("POST", ABORT_PATH): self._abort}
        return handlers.get((scope["method"], scope["path"]))

    async def _begin(self, request: Request) -> Response:
        engine = request.app.state.engine_client
        for one in orjson.loads(await request.body())["asked"]:
            task = asyncio.create_task(self._write(engine, one["id"], one["prompt"], one["sampling"]))
            self._tasks[one["id"]] = task
        return JSONResponse({})

    async def _abort(self, request: Request) -> Response:
        for name in orjson.loads(await request.body())["ids"]:
            if task := self._tasks.get(name):
                task.cancel()  # vLLM's generator aborts its request when it is closed
        return JSONResponse({})

    async def _follow(self, _request: Request) -> Response:
        return StreamingResponse(self._lines(), media_type="application/x-ndjson")

    async def _lines(self) -> AsyncIterator[bytes]:
        try:
            while True:
                try:
                    await asyncio.wait_for(self._has_rows.wait(), KEEP_ALIVE_SECONDS)
                except TimeoutError:
                    yield b"[]\n"
                    continue
                rows, self._rows = self._rows, []
                self._has_rows.clear()
                self._is_urgent.clear()
                yield orjson.dumps(rows) + b"\n"
                try:
                    await asyncio.wait_for(self._is_urgent.wait(), FLUSH_SECONDS)
                except TimeoutError:
                    continue
        finally:  # the worker is gone: nobody reads what would be written
            for task in self._tasks.values():
                task.cancel()

    async def _write(self, engine: Any, name: str, prompt: list[int], sampling: Mapping[str, Any]) -> None:
        params = SamplingParams(**sampling, output_kind=RequestOutputKind.DELTA)
        written = 0
        try:
            async for output in engine.generate(TokensPrompt(prompt_token_ids=prompt), params, name):
                [choice] = output.outputs
                written += len(choice.token_ids)
                usage = [len(prompt), written] if output.finished else None
                tokens = _tokens(choice.token_ids, choice.logprobs)
                row = [name, choice.text, tokens, choice.finish_reason, usage, None]
                self._put(row, urgent=written == len(choice.token_ids) or output.finished)
        except asyncio.CancelledError:
            raise
        except Exception as error:  # whatever it is, the worker must hear of it
            self._put([name, "", None, None, None, f"{type(error).__name__}: {error}"], urgent=True)
        finally:
            self._tasks.pop(name, None)

    def _put(self, row: Row, *, urgent: bool) -> None:
        self._rows.append(row)
        self._has_rows.set()
        if urgent:
            self._is_urgent.set()


def _tokens(token_ids: Sequence[int], logprobs: Sequence[Mapping[int, Any]] | None) -> list[Any] | None:
    """[text, logprob, [[text, logprob] of the likeliest …]] a token."""
    if logprobs is None:
        return None
    rows = []
    for token_id, at in zip(token_ids, logprobs, strict=True):
        likeliest = sorted(at.values(), key=lambda one: -one.logprob)
        chosen = at[token_id]
        rows.append(
            [chosen.decoded_token or "", chosen.logprob, [[one.decoded_token or "", one.logprob] for one in likeliest]]
        )
    return rows
