"""Following a call until it is answered, for both the whole answer and the stream.

The row is the truth: where an event was lost with the broker, what is missing is read from there. Whoever hangs up
frees the place in the line at once.
"""

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, NamedTuple

import orjson
import structlog
from fastapi import Request
from fastapi.concurrency import run_in_threadpool

from registry import calls, db, events
from registry.events import Event
from registry.models.base import FAILED, FINISHED, QUEUED, RUNNING
from server import live, meters, pulse
from server.i18n import gettext
from server.openai import answers
from server.openai.answers import Head, Usage
from server.openai.errors import ApiError

AWAY_SECONDS = 30.0
"""So long without a worker or the broker, and whoever waits in line is told to come back."""
RETRY_SECONDS = "30"

log = structlog.get_logger(__name__)
_background: set[asyncio.Task[None]] = set()
"""The loop itself holds tasks weakly."""


class Look(NamedTuple):
    """A call as its row has it."""

    status: str
    finish_reason: str
    error: str
    result: Sequence[Mapping[str, Any]]
    usage: Usage

    @property
    def is_open(self) -> bool:
        """Whether more is to come."""
        return self.status in (QUEUED, RUNNING)


def read_look(call_id: int) -> Look:
    """How a call stands, in a short session."""
    with db.read_session() as session:
        call = calls.get(session, call_id)
        usage = Usage(call.prompt_tokens or 0, call.completion_tokens or 0)
        return Look(call.status, call.finish_reason, call.error, call.result or [], usage)


async def wait(request: Request, call_id: int) -> Look:
    """The answered call; its request is cancelled when the client hangs up.

    Raises:
        ApiError: it failed, or nobody is there to answer it.
    """
    waiting = asyncio.create_task(_wait(call_id))
    leaving = asyncio.create_task(_hangs_up(request))
    try:
        await asyncio.wait({waiting, leaving}, return_when=asyncio.FIRST_COMPLETED)
        if waiting.done():
            return waiting.result()
        _cancel_soon(call_id)
        raise ApiError(499, "The client hung up.")
    except asyncio.CancelledError:
        _cancel_soon(call_id)
        raise
    finally:
        waiting.cancel()
        leaving.cancel()
        await asyncio.gather(waiting, leaving, return_exceptions=True)


async def _wait(call_id: int) -> Look:
    async with aclosing(_steps(call_id)) as steps:
        async for _event in steps:
            pass
    return await _end(call_id)


async def _hangs_up(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


async def _end(call_id: int) -> Look:
    look = await run_in_threadpool(read_look, call_id)
    if look.status == FINISHED:
        return look
    if look.status == FAILED and look.finish_reason == calls.NOT_FITTING:
        raise ApiError(400, look.error, param="prompt", code="context_length_exceeded")
    if look.status == FAILED:
        # Not to be repeated by the client: the line has tried it as often as makes sense.
        headers = {"x-should-retry": "false"}
        raise ApiError(500, look.error or gettext("The answer could not be written."), headers=headers)
    raise ApiError(503, gettext("The answer was stopped before it was whole."), headers={"Retry-After": RETRY_SECONDS})


async def _steps(call_id: int) -> AsyncGenerator[Event | None, None]:
    """Events of a call up to its end; None now and then while nothing comes.

    Raises:
        ApiError: 503, and the call is cancelled, when nobody has been there to answer for a while.
    """
    away_since: float | None = None
    is_new = True
    async with aclosing(live.follow(events.subject_of(call_id=call_id), is_new=True)) as following:
        async for event in following:
            if event is not None:
                yield event
                if event.kind == "done":
                    return
                continue
            if is_new:  # the call was opened a moment ago: there is nothing to look at yet
                is_new = False
                yield None
                continue
            look = await run_in_threadpool(read_look, call_id)
            if not look.is_open:
                yield Event("", "done", {"status": look.status})
                return
            seen = await run_in_threadpool(pulse.take)
            is_away = look.status == QUEUED and not (seen.broker and seen.workers)
            away_since = (away_since or time.monotonic()) if is_away else None
            if away_since is not None and time.monotonic() - away_since >= AWAY_SECONDS:
                await run_in_threadpool(_cancel, call_id)
                message = gettext("No worker is there to answer now. Try again later.")
                raise ApiError(503, message, headers={"Retry-After": RETRY_SECONDS})
            yield None


async def stream(head: Head, call_id: int, *, has_usage: bool) -> AsyncIterator[bytes]:
    """The chunks of an answer, and `[DONE]`; an error is the last chunk of a stream that breaks."""
    is_over = False
    with meters.OPEN_STREAMS.labels("call").track_inprogress():
        try:
            async for chunk in _chunks(head, call_id, has_usage):
                yield chunk
            is_over = True
            yield b"data: [DONE]\n\n"
        except ApiError as error:
            is_over = True
            _cancel_soon(call_id)  # where it goes on without a listener
            yield _encode(error.content())
        finally:
            if not is_over:  # the client hung up
                _cancel_soon(call_id)


async def _chunks(head: Head, call_id: int, has_usage: bool) -> AsyncIterator[bytes]:
    sent = _Sent()
    async with aclosing(_steps(call_id)) as steps:
        async for event in steps:
            if event is None:
                yield b": waiting\n\n"
            elif event.kind == "start":
                sent.begin(event.data.get("attempt"))
            elif event.kind == "delta":
                text, tokens = sent.rest(event.data.get("text", ""), event.data.get("tokens"))
                for chunk in _pieces(head, 0, text, tokens, sent, has_usage):
                    yield _encode(chunk)
    look = await _end(call_id)
    for choice in look.result:
        # What was not streamed: all of several choices, or what was lost with the broker.
        text, tokens = choice["text"][sent.chars :], (choice["tokens"] or [])[sent.tokens :]
        for chunk in _pieces(head, choice["index"], text, tokens or None, sent, has_usage):
            yield _encode(chunk)
        yield _encode(answers.closing(head, choice["index"], choice["finish_reason"], has_usage=has_usage))
        sent = _Sent()
    if has_usage:
        yield _encode(answers.used(head, look.usage))


@dataclass
class _Sent:
    """How much of a choice the client has."""

    chars: int = 0
    tokens: int = 0
    is_open: bool = False
    attempt: int | None = None
    is_retold: bool = False

    def begin(self, attempt: int | None) -> None:
        """The answer starts over: by another worker, or told once more by the same one after an outage of the broker.

        Raises:
            ApiError: another worker writes, and nobody can promise the words that the client has already.
        """
        if self.is_open and attempt != self.attempt:
            message = gettext("The worker that wrote this answer went down. Ask again.")
            raise ApiError(500, message, code="answer_broken_off")
        self.attempt, self.is_retold = attempt, self.is_open

    def rest(self, text: str, tokens: Sequence[Any] | None) -> tuple[str, Sequence[Any] | None]:
        """What of a piece the client does not have."""
        if not self.is_retold:
            return text, tokens
        self.is_retold = False
        return text[self.chars :], (tokens or ())[self.tokens :] or None


def _pieces(
    head: Head, index: int, text: str, tokens: Sequence[Any] | None, sent: _Sent, has_usage: bool
) -> Iterator[dict[str, Any]]:
    if not sent.is_open and (first := answers.opening(head, index, has_usage=has_usage)):
        yield first
    sent.is_open = True
    if text or tokens:
        yield answers.piece(head, index, text, tokens, offset=sent.chars, has_usage=has_usage)
    sent.chars += len(text)
    sent.tokens += len(tokens or [])


def _encode(chunk: dict[str, Any]) -> bytes:
    return b"data: " + orjson.dumps(chunk) + b"\n\n"


def _cancel(call_id: int) -> None:
    with db.transaction() as session:
        calls.cancel(session, call_id)


def _cancel_soon(call_id: int) -> None:
    """In a task of its own: whoever hung up takes the one that wrote the answer with them."""

    async def cancel() -> None:
        try:
            await run_in_threadpool(_cancel, call_id)
        except Exception:  # nobody is left to be told
            log.exception("A call that nobody waits for could not be cancelled.", call_id=call_id)

    task = asyncio.get_running_loop().create_task(cancel())
    _background.add(task)
    task.add_done_callback(_background.discard)
