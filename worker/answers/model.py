"""The one model of the API: an engine, and the queue before it."""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass
from pathlib import Path

from worker.engine.protocol import Asked, Delta, Engine, EngineError, Sampling
from worker.prompts import Message, chat_tokens, has_template, text_tokens

MAX_WAITING = 64


class Busy(Exception):
    """More people wait than can be answered soon."""


@dataclass
class Written:
    """An answer as far as it has come."""

    text: str = ""
    finish_reason: str = "length"
    prompt_tokens: int = 0
    completion_tokens: int = 0

    def add(self, delta: Delta) -> None:
        """Take the next piece."""
        self.text += delta.text
        if delta.finish_reason is not None:
            self.finish_reason = delta.finish_reason
            self.prompt_tokens, self.completion_tokens = delta.prompt_tokens or 0, delta.completion_tokens or 0

    @property
    def usage(self) -> dict[str, int]:
        """In OpenAI's names."""
        total = self.prompt_tokens + self.completion_tokens
        return {
            "prompt_tokens": self.prompt_tokens,
            "completion_tokens": self.completion_tokens,
            "total_tokens": total,
        }


class Model:
    """Answers so many at a time; others wait their turn."""

    def __init__(self, engine: Engine, folder: Path, name: str, *, at_once: int) -> None:
        """Load it, which may take minutes.

        Raises:
            EngineError: it cannot be loaded.
        """
        self.name, self.folder, self._engine = name, folder.absolute(), engine
        engine.use(self.folder)
        self.is_chat = has_template(self.folder)
        self._room = asyncio.Semaphore(at_once)
        self._num_waiting = 0

    def conversation(self, messages: Sequence[Message], sampling: Sampling) -> list[int]:
        """Tokens of a conversation; a base model goes on from its last message."""
        if self.is_chat:
            return chat_tokens(self.folder, messages, sampling.max_tokens)
        return self.text(messages[-1]["content"])

    def text(self, prompt: str) -> list[int]:
        """Tokens of a text to go on from."""
        return text_tokens(self.folder, prompt)

    async def answer(self, prompt: list[int], sampling: Sampling) -> AsyncGenerator[Delta, None]:
        """Pieces as they come. Closing the iterator stops the engine.

        Raises:
            Busy: too many wait already.
            EngineError: the engine cannot answer.
        """
        if self._num_waiting >= MAX_WAITING:
            raise Busy
        self._num_waiting += 1
        try:
            await self._room.acquire()
        finally:
            self._num_waiting -= 1
        try:
            async for delta in self._write(prompt, sampling):
                yield delta
        finally:
            self._room.release()

    async def _write(self, prompt: list[int], sampling: Sampling) -> AsyncGenerator[Delta, None]:
        loop, pieces = asyncio.get_running_loop(), asyncio.Queue[Delta | EngineError]()

        def put(piece: Delta | EngineError) -> None:
            loop.call_soon_threadsafe(pieces.put_nowait, piece)

        [abort] = self._engine.begin([Asked(prompt, sampling, put)])
        try:
            while True:
                piece = await pieces.get()
                if isinstance(piece, EngineError):
                    raise piece
                yield piece
                if piece.finish_reason is not None:
                    return
        finally:
            abort()

    def close(self) -> None:
        """Free the memory."""
        self._engine.close()
