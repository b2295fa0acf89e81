"""What every engine can do. Token ids go in; tokenizing is the caller's (`worker.engine.tokenizer`)."""

from collections.abc import Generator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, runtime_checkable


class EngineError(Exception):
    """The engine cannot do what was asked; asking again will not help."""


class EngineDown(EngineError):
    """The engine died or does not answer; the next `use` starts it again."""


@dataclass(frozen=True)
class ScoreRequest:
    """How likely is `continuation` after `context`? Both are token ids and neither is empty."""

    context: list[int]
    continuation: list[int]


@dataclass(frozen=True)
class Score:
    """Natural log-probabilities, one a continuation token; greedy when each token is the engine's first choice."""

    token_logprobs: list[float]
    is_greedy: bool


@dataclass(frozen=True)
class Sampling:
    """How to draw an answer, in OpenAI's names. Temperature 0 is greedy."""

    max_tokens: int = 128
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int | None = None
    repetition_penalty: float = 1.0
    stop: tuple[str, ...] = ()


@dataclass(frozen=True)
class Generation:
    """A whole answer. `finish_reason` is OpenAI's: `stop` or `length`."""

    text: str
    finish_reason: str
    prompt_tokens: int
    completion_tokens: int


@dataclass(frozen=True)
class Delta:
    """The next piece of a streamed answer; the last one carries the finish reason and the usage."""

    text: str
    finish_reason: str | None = None
    prompt_tokens: int | None = None
    completion_tokens: int | None = None


@runtime_checkable
class Engine(Protocol):
    """Holds one checkpoint on a device.

    `score`, `generate` and `stream` may be called from several threads at once; `use` may not
    be called while any of them is under way (`worker.line.Residency` sees to that).
    A prompt or context that does not fit the model keeps its end: the left is cut off.
    """

    name: str
    version: str
    dtype: str
    resident: Path | None

    def use(self, folder: Path) -> None:
        """Make `folder` the resident checkpoint: in place where the architecture is the same, else by a restart."""

    def score(self, requests: Sequence[ScoreRequest]) -> list[Score]:
        """One score a request, in the same order."""

    def generate(self, prompts: Sequence[list[int]], sampling: Sampling) -> list[Generation]:
        """One answer a prompt, in the same order."""

    def stream(self, prompt: list[int], sampling: Sampling) -> Generator[Delta, None, None]:
        """The answer piece by piece. Closing the generator aborts the work in the engine."""

    def close(self) -> None:
        """Free the device. The engine can be used again: the next `use` starts it."""
