"""What every engine can do. Token ids go in; tokenizing is the caller's (`worker.engine.tokenizer`)."""

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from worker.engine.peak import Peak


class EngineError(Exception):
    """The engine cannot do what was asked; asking again will not help."""


class EngineDown(EngineError):
    """The engine died or does not answer; the next `use` starts it again. `log` is what it said last."""

    def __init__(self, message: str, log: str = "") -> None:
        super().__init__(message)
        self.log = log


@dataclass(frozen=True)
class ScoreRequest:
    """How likely is `continuation` after `context`? Both are token ids and neither is empty."""

    context: list[int]
    continuation: list[int]


@dataclass(frozen=True)
class Score:
    """Natural log-probabilities, one a continuation token; greedy when each token is the engine's first choice.

    A model that computes NaN gives NaN: what to say about it is the caller's.
    """

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
    logprobs: int | None = None
    """So many likeliest tokens are told with each token of a streamed answer."""


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
    tokens: list[Any] | None = None
    """[text, logprob, [[text, logprob] of the likeliest …]] a token, where the sampling asks for them."""


Row = list[Any]
"""[text, logprob, [[text, logprob] of the likeliest …]] of a token; None for both where nothing came before it."""
Put = Callable[["Delta | EngineError"], None]
"""Takes the pieces of an answer, from a thread of the engine's; an error is the last of them."""
Abort = Callable[[], None]


@dataclass(frozen=True)
class Asked:
    """An answer to be written, and who takes its pieces."""

    prompt: list[int]
    sampling: Sampling
    put: Put


@runtime_checkable
class Engine(Protocol):
    """Holds one checkpoint on a device.

    Requests of one `score` call that begin alike are computed together, wherever they stand in it.
    `score`, `generate` and `stream` may be called from several threads at once; `use` may not
    be called while any of them is under way (`worker.line.Residency` sees to that).
    A prompt or context that does not fit the model keeps its end: the left is cut off.
    """

    name: str
    version: str
    dtype: str

    @property
    def resident(self) -> Path | None:
        """The checkpoint that it holds."""

    @property
    def num_loads(self) -> int:
        """How often weights were put into the engine, by a start or a swap."""

    def use(self, folder: Path) -> None:
        """Make `folder` the resident checkpoint: in place where the architecture is the same, else by a restart."""

    def score(self, requests: Sequence[ScoreRequest]) -> list[Score]:
        """One score a request, in the same order."""

    def generate(self, prompts: Sequence[list[int]], sampling: Sampling) -> list[Generation]:
        """One answer a prompt, in the same order."""

    def stream(self, prompt: list[int], sampling: Sampling) -> Generator[Delta, None, None]:
        """The answer piece by piece. Closing the generator aborts the work in the engine."""

    def begin(self, asked: Sequence[Asked]) -> list[Abort]:
        """Start answers and return at once; what is returned for each aborts it. Others may be under way."""

    def read(self, prompts: Sequence[list[int]], num_likeliest: int) -> list[list[Row]]:
        """What the model thinks of each token of the prompts, which must fit its context: nothing is cut off."""

    def part(self, output_type: str, folder: Path) -> "Engine":
        """What does lm-eval's `generate_until`, `multiple_choice` … for a checkpoint: itself, where it is no pair."""

    def peaks(self) -> list[Peak]:
        """The most memory that each part has held since it holds its checkpoint; none where that cannot be told."""

    def close(self) -> None:
        """Free the device. The engine can be used again: the next `use` starts it."""
