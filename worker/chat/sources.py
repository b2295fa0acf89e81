"""What one talks to: a checkpoint in an engine of this process, or a model of a site over its OpenAI-compatible API."""

import json
import os
from collections.abc import Generator, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

import httpx

from registry.errors import Invalid
from registry.settings import Settings
from worker.engine.command import has_gpu
from worker.engine.protocol import Engine, EngineError, Sampling
from worker.engine.scripted import ScriptedEngine
from worker.engine.streams import stream_from
from worker.engine.vllm import VllmEngine
from worker.prompts import Message, chat_tokens, has_template, text_tokens

ENGINES = ("auto", "transformers", "vllm", "scripted")
CONNECT_SECONDS, READ_SECONDS = 10.0, 300.0
"""A question may wait in the site's line for long; keep-alive lines come meanwhile."""


class SourceError(Exception):
    """The model cannot answer; the message is a sentence for who asks."""


class Source(Protocol):
    """A model that answers a conversation piece by piece."""

    name: str
    is_chat: bool
    """Whether it reads the whole conversation; else it goes on from the last message."""

    def stream(self, messages: Sequence[Message], sampling: Sampling) -> Generator[str, None, None]:
        """The answer as it comes. Closing the generator stops the model.

        Raises:
            SourceError: it cannot answer.
        """

    def close(self) -> None:
        """Let go of it."""


class LocalSource:
    """A checkpoint folder in an engine."""

    def __init__(self, engine: Engine, folder: Path, name: str) -> None:
        """Load it.

        Raises:
            SourceError: it cannot be loaded.
        """
        self.name, self._engine, self._folder = name, engine, folder.absolute()
        try:
            engine.use(self._folder)
        except EngineError as error:
            raise SourceError(str(error)) from error
        self.is_chat = has_template(self._folder)

    def stream(self, messages: Sequence[Message], sampling: Sampling) -> Generator[str, None, None]:
        """Pieces as the engine makes them."""
        try:
            for delta in stream_from(self._engine.begin, self._tokens(messages, sampling), sampling):
                if delta.text:
                    yield delta.text
        except (EngineError, Invalid) as error:
            raise SourceError(str(error)) from error

    def close(self) -> None:
        """Free the memory."""
        self._engine.close()

    def _tokens(self, messages: Sequence[Message], sampling: Sampling) -> list[int]:
        if self.is_chat:
            return chat_tokens(self._folder, messages, sampling.max_tokens)
        return text_tokens(self._folder, messages[-1]["content"])


class SiteSource:
    """A model of a site; the site computes."""

    def __init__(self, site: str, key: str, model: str) -> None:
        """Ask the site for the model.

        Raises:
            SourceError: the site, the key or the model is not there.
        """
        self.name = f"{model} · {site}"
        self._model = model
        self._client = httpx.Client(
            base_url=site.rstrip("/") + "/v1",
            headers={"Authorization": f"Bearer {key}"},
            timeout=httpx.Timeout(READ_SECONDS, connect=CONNECT_SECONDS),
        )
        self._check(self._send("GET", f"/models/{model}"))
        self.is_chat = True  # a base model there goes on from the last message by itself

    def stream(self, messages: Sequence[Message], sampling: Sampling) -> Generator[str, None, None]:
        """Pieces as the site sends them."""
        body: dict[str, Any] = {
            "model": self._model,
            "messages": [dict(message) for message in messages],
            "stream": True,
            "max_tokens": sampling.max_tokens,
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
        }
        try:
            with self._client.stream("POST", "/chat/completions", json=body) as answer:
                if answer.is_error:
                    answer.read()
                    self._check(answer)
                yield from _pieces(answer)
        except httpx.HTTPError as error:
            raise SourceError(f"The site does not answer: {error}.") from error

    def close(self) -> None:
        """Hang up."""
        self._client.close()

    def _send(self, method: str, path: str) -> httpx.Response:
        try:
            return self._client.request(method, path)
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise SourceError(f"The site does not answer: {error}.") from error

    def _check(self, answer: httpx.Response) -> None:
        if answer.status_code == httpx.codes.UNAUTHORIZED:
            raise SourceError("The site wants a key: make one on your account's API page and put it into GROW_KEY.")
        if answer.is_error or not answer.headers.get("content-type", "").startswith("application/json"):
            raise SourceError(f"The site says: {_reason(answer)}")


def open_engine(kind: str, settings: Settings) -> Engine:
    """The engine for one person at home.

    `auto` is vLLM where it is installed and a GPU is there, else transformers, which on a processor answers at once.
    Raises:
        SourceError: it is not installed.
    """
    if kind == "auto":
        kind = "vllm" if has_gpu() and find_spec("vllm") else "transformers"
    if find_spec(kind) is None and kind != "scripted":
        raise SourceError(f"{kind} is not installed here; see requirements/, or talk to a site with --site.")
    if kind == "scripted":
        return ScriptedEngine(seconds_per_token=float(os.environ.get("GROW_SCRIPTED_SECONDS", "0")))
    if kind == "vllm":
        return VllmEngine(settings)
    from worker.engine.transformers import TransformersEngine  # noqa: PLC0415 - torch costs seconds

    return TransformersEngine(dtype=settings.scoring_dtype, threads=settings.engine_threads)


def _pieces(answer: httpx.Response) -> Generator[str, None, None]:
    """The texts of server-sent events in OpenAI's form."""
    for line in answer.iter_lines():
        if not line.startswith("data:") or (data := line.removeprefix("data:").strip()) == "[DONE]":
            continue
        try:
            event = json.loads(data)
        except ValueError as error:
            raise SourceError("The site sent something that is no answer.") from error
        if "error" in event:
            raise SourceError(f"The site says: {event['error'].get('message', 'it failed')}")
        for choice in event.get("choices", ()):
            if text := (choice.get("delta") or {}).get("content"):
                yield text


def _reason(answer: httpx.Response) -> str:
    try:
        content = answer.json()
        return str(content.get("error", {}).get("message") or content.get("detail"))[:400]
    except (ValueError, AttributeError):
        return f"{answer.status_code} {answer.reason_phrase}"
