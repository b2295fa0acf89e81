"""Whole answers to many prompts, with what the model thought of each token, of the prompts' too.

Writing is every engine's `begin`; reading what a prompt itself was worth is its `read`.
"""

import queue
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from worker.engine.protocol import Asked, Delta, Engine, EngineError, Row, Sampling

LOOK_SECONDS = 0.1
"""How often whoever waits is asked whether they still do."""


@dataclass
class Completion:
    """One answer."""

    text: str = ""
    tokens: list[Row] = field(default_factory=list)
    finish_reason: str = "length"
    prompt_tokens: int = 0
    completion_tokens: int = 0


class Unwanted(Exception):
    """Nobody waits for the answers any more."""


def complete(
    engine: Engine,
    prompts: Sequence[list[int]],
    sampling: Sampling,
    *,
    n: int,
    should_stop: Callable[[], bool],
) -> list[list[Completion]]:
    """Write `n` answers to each prompt, in the prompts' order; a seed is raised by one from choice to choice.

    Raises:
        EngineError: an answer could not be written.
        Unwanted: `should_stop` said so; the engine has stopped.
    """
    written = [[Completion(prompt_tokens=len(prompt)) for _ in range(n)] for prompt in prompts]
    if sampling.max_tokens == 0:
        return written
    pieces: queue.SimpleQueue[tuple[Completion, Delta | EngineError]] = queue.SimpleQueue()
    asked = [
        Asked(prompt, _for_choice(sampling, number), _putter(pieces, one))
        for prompt, choices in zip(prompts, written, strict=True)
        for number, one in enumerate(choices)
    ]
    aborts = engine.begin(asked)
    num_open, looked_at = len(asked), time.monotonic()
    try:
        while num_open:
            if time.monotonic() - looked_at > LOOK_SECONDS:
                looked_at = time.monotonic()
                if should_stop():
                    raise Unwanted
            num_open -= _take_pieces(pieces)
    finally:
        if num_open:
            for abort in aborts:
                abort()
    return written


def _for_choice(sampling: Sampling, number: int) -> Sampling:
    return sampling if sampling.seed is None else replace(sampling, seed=sampling.seed + number)


def _putter(
    pieces: "queue.SimpleQueue[tuple[Completion, Delta | EngineError]]", one: Completion
) -> Callable[[Delta | EngineError], None]:
    return lambda piece: pieces.put((one, piece))


def _take_pieces(pieces: "queue.SimpleQueue[tuple[Completion, Delta | EngineError]]") -> int:
    """Waits for pieces, and says how many answers ended with them."""
    ended = 0
    try:
        one, piece = pieces.get(timeout=LOOK_SECONDS)
        while True:
            if isinstance(piece, EngineError):
                raise piece
            one.text += piece.text
            one.tokens += piece.tokens or []
            one.completion_tokens = piece.completion_tokens or one.completion_tokens
            if piece.finish_reason is not None:
                one.finish_reason = piece.finish_reason
                ended += 1
            one, piece = pieces.get_nowait()
    except queue.Empty:
        return ended
