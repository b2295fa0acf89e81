"""A deterministic engine without a model: numbers come from a hash, answers echo the prompt."""

import hashlib
import math
import time
from collections.abc import Generator, Sequence
from pathlib import Path
from typing import Any

from worker.engine.peak import Peak
from worker.engine.pieces import token_texts
from worker.engine.protocol import Abort, Asked, Delta, EngineError, Generation, Row, Sampling, Score, ScoreRequest
from worker.engine.streams import begin_in_thread
from worker.engine.tokenizer import load_tokenizer


class ScriptedEngine:
    """For tests and for looking at the site without a model. The same input gives the same output, per checkpoint."""

    name = "scripted"
    version = "1"
    dtype = "none"

    def __init__(self, *, seconds_per_token: float = 0.0) -> None:
        self.resident: Path | None = None
        self.num_swaps = 0
        self.num_loads = 0
        self.num_streams_open = 0
        self._seconds_per_token = seconds_per_token

    def use(self, folder: Path) -> None:
        """Remember the folder."""
        if not (folder / "config.json").is_file():
            raise EngineError(f"{folder} holds no config.json.")
        if folder != self.resident:
            self.num_swaps += 1
            self.num_loads += 1
            self.resident = folder

    def score(self, requests: Sequence[ScoreRequest]) -> list[Score]:
        """Log-probabilities between log(0.05) and log(0.95), from a hash of folder, context and token."""
        return [self._score_one(request) for request in requests]

    def generate(self, prompts: Sequence[list[int]], sampling: Sampling) -> list[Generation]:
        """The text of each prompt again, at most `max_tokens` tokens of it."""
        return [self._answer(prompt, sampling) for prompt in prompts]

    def stream(self, prompt: list[int], sampling: Sampling) -> Generator[Delta, None, None]:
        """The same answer as `generate`, a few characters at a time."""
        answer = self._answer(prompt, sampling)
        self.num_streams_open += 1
        try:
            for start in range(0, len(answer.text), 4):
                time.sleep(self._seconds_per_token)
                piece = answer.text[start : start + 4]
                yield Delta(piece, tokens=None if sampling.logprobs is None else [self._row(piece, start)])
            yield Delta("", answer.finish_reason, answer.prompt_tokens, answer.completion_tokens)
        finally:
            self.num_streams_open -= 1

    def begin(self, asked: Sequence[Asked]) -> list[Abort]:
        """Start each answer in a thread of its own."""
        return [begin_in_thread(self.stream, one) for one in asked]

    def read(self, prompts: Sequence[list[int]], num_likeliest: int) -> list[list[Row]]:
        """The numbers of `score`, for a token and for all others together."""
        return [self._read_one(prompt, num_likeliest) for prompt in prompts]

    def part(self, output_type: str, folder: Path) -> "ScriptedEngine":
        """Does everything itself."""
        return self

    def peaks(self) -> list[Peak]:
        """It holds no weights."""
        return []

    def close(self) -> None:
        """Forget the folder."""
        self.resident = None

    def _score_one(self, request: ScoreRequest) -> Score:
        if not request.context or not request.continuation:
            raise EngineError("A score request needs at least one token of context and one of continuation.")
        token_ids = request.context + request.continuation
        start = len(request.context)
        logprobs = [math.log(self._probability(token_ids[: end + 1])) for end in range(start, len(token_ids))]
        return Score(logprobs, is_greedy=all(value > math.log(0.5) for value in logprobs))

    def _read_one(self, prompt: list[int], num_likeliest: int) -> list[Row]:
        texts = token_texts(load_tokenizer(self._folder()), prompt)
        rows: list[Row] = [[texts[0], None, None]]
        for place, text in enumerate(texts[1:], start=1):
            own = self._probability(prompt[: place + 1])
            both = sorted([[text, math.log(own)], ["…", math.log(1 - own)]], key=lambda one: -float(str(one[1])))
            rows.append([text, math.log(own), both[:num_likeliest]])
        return rows

    def _probability(self, token_ids: list[int]) -> float:
        key = f"{self._folder().name}:{token_ids[-8:]}".encode()
        return 0.05 + 0.9 * int.from_bytes(hashlib.sha256(key).digest()[:4], "big") / 2**32

    def _answer(self, prompt: list[int], sampling: Sampling) -> Generation:
        tokenizer = load_tokenizer(self._folder())
        kept = prompt[: sampling.max_tokens]
        text = str(tokenizer.decode(kept, skip_special_tokens=True))
        reason = "stop" if len(kept) == len(prompt) else "length"
        return Generation(text, reason, prompt_tokens=len(prompt), completion_tokens=len(kept))

    def _row(self, piece: str, start: int) -> list[Any]:
        likeliest = [[text, math.log(self._probability([start, rank]))] for rank, text in enumerate((piece, "…"))]
        return [piece, likeliest[0][1], likeliest]

    def _folder(self) -> Path:
        if self.resident is None:
            raise EngineError("No checkpoint is resident; call use() first.")
        return self.resident
