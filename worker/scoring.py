"""An lm-eval model over an `Engine`: tokenizes as lm-eval's Hugging Face backend does, lets the engine answer.

Every context begins with the tokenizer's begin-of-text token, once: that is what lm-eval does with
`add_bos_token=True` for choices, and with its prefix token for whole texts.
"""

import json
import math
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from lm_eval.api.instance import Instance
from lm_eval.api.model import TemplateLM
from lm_eval.utils import get_rolling_token_windows, make_disjoint_window

from worker.engine.protocol import Engine, Generation, Sampling, ScoreRequest
from worker.engine.tokenizer import load_tokenizer, tokenizer_digest

BATCH_SIZE = 256
"""Requests handed to the engine at once; between two batches a stop is noticed."""

DEFAULT_CONTEXT_LENGTH = 2048
MAX_REMEMBERED_TEXTS = 100_000

T = TypeVar("T")

_token_ids: dict[tuple[str, str], list[int]] = {}
"""Token ids by tokenizer and text: checkpoints of a run share a tokenizer, so items are tokenized once a process."""


class Stopped(Exception):
    """The caller asked to stop between two batches; nothing was recorded."""


class Answer(NamedTuple):
    """What the engine said to one request of lm-eval."""

    sum_logprob: float
    is_greedy: bool
    num_tokens: int
    text: str | None = None
    finish_reason: str | None = None


class EngineLM(TemplateLM):  # type: ignore[misc]  # lm-eval ships no types
    """The checkpoint that is resident in an engine, as lm-eval sees a model."""

    def __init__(self, engine: Engine, folder: Path, should_stop: Callable[[], bool] = lambda: False) -> None:
        super().__init__()
        self.engine = engine
        self.tokenizer = load_tokenizer(folder)
        self.digest = tokenizer_digest(folder)
        self.max_length = context_length(folder)
        self.should_stop = should_stop
        self.answers: dict[tuple[int, int], Answer] = {}
        """By item number and request number within the item."""
        self.engine_seconds = 0.0

    @property
    def eot_token_id(self) -> int:
        """The end-of-text token."""
        return int(self.tokenizer.eos_token_id)

    @property
    def prefix_token_id(self) -> int:
        """The begin-of-text token, or the end-of-text token of a tokenizer that has none."""
        begin = self.tokenizer.bos_token_id
        return self.eot_token_id if begin is None else int(begin)

    @property
    def limit(self) -> int:
        """Tokens of context and continuation together. One less than the context: vLLM needs a place to generate."""
        return self.max_length - 1

    def tok_encode(self, string: str, add_special_tokens: bool | None = None, **_kwargs: Any) -> list[int]:
        """Token ids; with `add_special_tokens` None the begin-of-text token comes first, once."""
        key = (self.digest, string)
        if key not in _token_ids:
            if len(_token_ids) >= MAX_REMEMBERED_TEXTS:
                _token_ids.clear()
            _token_ids[key] = list(self.tokenizer.encode(string, add_special_tokens=False, verbose=False))
        token_ids = _token_ids[key]
        if add_special_tokens is None and token_ids[:1] != [self.prefix_token_id]:
            return [self.prefix_token_id, *token_ids]
        return list(token_ids)

    def loglikelihood(self, requests: list[Instance], disable_tqdm: bool = True) -> list[tuple[float, bool]]:
        """Summed log-probability of each continuation, and whether it is the greedy one."""
        pairs = [self._encode(*request.args) for request in requests]
        answers = self._answer([list(self._windows(context, continuation)) for context, continuation in pairs])
        self._keep(requests, answers)
        return [(answer.sum_logprob, answer.is_greedy) for answer in answers]

    def loglikelihood_rolling(self, requests: list[Instance], disable_tqdm: bool = True) -> list[float]:
        """Log-probability of each whole text, in windows as lm-eval makes them."""
        texts = [self.tok_encode(request.args[0], add_special_tokens=False) for request in requests]
        answers = self._answer([list(self._rolling(self.prefix_token_id, token_ids)) for token_ids in texts])
        self._keep(requests, answers)
        return [answer.sum_logprob for answer in answers]

    def generate_until(self, requests: list[Instance], disable_tqdm: bool = True) -> list[str]:
        """Continuations up to a stop text or `max_gen_toks`."""
        wanted = [_sampling(request.args[1]) for request in requests]
        answers: dict[int, Answer] = {}
        for sampling in dict.fromkeys(wanted):
            numbers = [number for number, other in enumerate(wanted) if other == sampling]
            for start in range(0, len(numbers), BATCH_SIZE):
                batch = numbers[start : start + BATCH_SIZE]
                prompts = [self._prompt(requests[number].args[0], sampling) for number in batch]
                generations = self._timed(partial(self.engine.generate, prompts, sampling))
                answers.update(zip(batch, map(_free_answer, generations), strict=True))
        ordered = [answers[number] for number in range(len(requests))]
        self._keep(requests, ordered)
        return [answer.text or "" for answer in ordered]

    def _loglikelihood_tokens(
        self, requests: list[tuple[tuple[str, str], list[int], list[int]]], **_kwargs: Any
    ) -> list[tuple[float, bool]]:
        answers = self._answer([list(self._windows(context, continuation)) for _, context, continuation in requests])
        return [(answer.sum_logprob, answer.is_greedy) for answer in answers]

    def _encode(self, context: str, continuation: str) -> tuple[list[int], list[int]]:
        if context:
            encoded = self._encode_pair(context, continuation)
            if encoded[1]:
                return encoded[0], encoded[1]
            # The continuation melted into the last token of the context.
            return self.tok_encode(context), self.tok_encode(continuation, add_special_tokens=False)
        return [self.prefix_token_id], self.tok_encode(continuation, add_special_tokens=False)

    def _windows(self, context: list[int], continuation: list[int]) -> Iterator[ScoreRequest]:
        """One request; more only where the continuation alone is longer than the model can see."""
        if len(continuation) < self.limit:
            yield ScoreRequest(context[-(self.limit - len(continuation)) :], continuation)
        else:
            yield from self._rolling(context[-1], continuation)

    def _rolling(self, prefix: int, token_ids: list[int]) -> Iterator[ScoreRequest]:
        windows = get_rolling_token_windows(
            token_list=token_ids, prefix_token=prefix, max_seq_len=self.limit - 1, context_len=1
        )
        return (ScoreRequest(*make_disjoint_window(window)) for window in windows)

    def _prompt(self, text: str, sampling: Sampling) -> list[int]:
        room = max(self.max_length - sampling.max_tokens, 1)
        return self.tok_encode(text)[-room:]

    def _answer(self, groups: list[list[ScoreRequest]]) -> list[Answer]:
        """One answer a group of windows. The longest go first: batches are then even, and memory is seen at once."""
        flat = [(number, window) for number, windows in enumerate(groups) for window in windows]
        flat.sort(key=lambda entry: -len(entry[1].context) - len(entry[1].continuation))
        logprobs: list[list[float]] = [[] for _ in groups]
        is_greedy = [True] * len(groups)
        for start in range(0, len(flat), BATCH_SIZE):
            batch = flat[start : start + BATCH_SIZE]
            scores = self._timed(partial(self.engine.score, [window for _, window in batch]))
            for (number, _), score in zip(batch, scores, strict=True):
                logprobs[number] += score.token_logprobs
                is_greedy[number] &= score.is_greedy
        return [
            Answer(math.fsum(values), greedy, len(values)) for values, greedy in zip(logprobs, is_greedy, strict=True)
        ]

    def _timed(self, work: Callable[[], list[T]]) -> list[T]:
        if self.should_stop():
            raise Stopped
        began = time.perf_counter()
        result = work()
        self.engine_seconds += time.perf_counter() - began
        return result

    def _keep(self, requests: Sequence[Instance], answers: Sequence[Answer]) -> None:
        for request, answer in zip(requests, answers, strict=True):
            self.answers[int(request.doc_id), int(request.idx)] = answer


def context_length(folder: Path) -> int:
    """Tokens that the model of a checkpoint folder can see at once."""
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    return int(config.get("max_position_embeddings", DEFAULT_CONTEXT_LENGTH))


def _sampling(wanted: dict[str, Any]) -> Sampling:
    until = wanted.get("until") or []
    return Sampling(
        max_tokens=int(wanted.get("max_gen_toks", 256)),
        temperature=float(wanted.get("temperature", 0.0)) if wanted.get("do_sample") else 0.0,
        top_p=float(wanted.get("top_p", 1.0)),
        seed=0,
        stop=(until,) if isinstance(until, str) else tuple(until),
    )


def _free_answer(generation: Generation) -> Answer:
    return Answer(0.0, False, generation.completion_tokens, generation.text, generation.finish_reason)
