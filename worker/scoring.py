"""An lm-eval model over an `Engine`: tokenizes as lm-eval's Hugging Face backend does, lets the engine answer.

Every context begins with the tokenizer's begin-of-text token, once: that is what lm-eval does with
`add_bos_token=True` for choices, and with its prefix token for whole texts.
"""

import hashlib
import json
import math
import time
from array import array
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from lm_eval.api.instance import Instance
from lm_eval.api.model import TemplateLM
from lm_eval.utils import get_rolling_token_windows, make_disjoint_window

from worker.engine.protocol import Engine, EngineError, Generation, Sampling, ScoreRequest
from worker.engine.tokenizer import load_tokenizer, tokenizer_digest

BATCH_SIZE = 1024
"""Requests handed to the engine at once, about; between two batches a stop is noticed."""

DEFAULT_CONTEXT_LENGTH = 2048
MAX_REMEMBERED_TOKENS = 20_000_000
"""80 MB; the tasks of `suites/` together are fifteen million."""

T = TypeVar("T")


class TokenMemory:
    """Token ids by a hash of tokenizer and text: checkpoints of a run share a tokenizer, so items are tokenized once.

    Arrays take 4 bytes a token, lists 36, and the texts themselves as much again.
    """

    def __init__(self, max_tokens: int = MAX_REMEMBERED_TOKENS) -> None:
        self._max_tokens = max_tokens
        self._num_tokens = 0
        self._ids: dict[bytes, array[int]] = {}

    def encode(self, digest: str, text: str, tokenize: Callable[[str], list[int]]) -> list[int]:
        """What `tokenize` gives for the text, asked only the first time; `digest` names the tokenizer."""
        key = hashlib.blake2b(f"{digest}\0{text}".encode(errors="surrogatepass"), digest_size=16).digest()
        known = self._ids.get(key)
        if known is None:
            if self._num_tokens > self._max_tokens:
                self._ids, self._num_tokens = {}, 0
            known = self._ids[key] = array("i", tokenize(text))
            self._num_tokens += len(known)
        return known.tolist()


_memory = TokenMemory()


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
        self.truncated: set[int] = set()
        """Numbers of the items whose beginning was left out because the model cannot read that much."""
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
        token_ids = _memory.encode(self.digest, string, self._tokenize)
        if add_special_tokens is None and token_ids[:1] != [self.prefix_token_id]:
            return [self.prefix_token_id, *token_ids]
        return token_ids

    def _tokenize(self, text: str) -> list[int]:
        return list(self.tokenizer.encode(text, add_special_tokens=False, verbose=False))

    def loglikelihood(self, requests: list[Instance], disable_tqdm: bool = True) -> list[tuple[float, bool]]:
        """Summed log-probability of each continuation, and whether it is the greedy one."""
        pairs = [self._encode(*request.args) for request in requests]
        self.truncated |= {
            int(request.doc_id)
            for request, (context, continuation) in zip(requests, pairs, strict=True)
            if len(context) + len(continuation) > self.limit
        }
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
                prompts = [self._prompt(requests[number], sampling) for number in batch]
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

    def _prompt(self, request: Instance, sampling: Sampling) -> list[int]:
        # An answer as long as the context would leave no room for the question.
        room = max(self.max_length - sampling.max_tokens, self.max_length // 2, 1)
        token_ids = self.tok_encode(request.args[0])
        if len(token_ids) > room:
            self.truncated.add(int(request.doc_id))
        return token_ids[-room:]

    def _answer(self, groups: list[list[ScoreRequest]]) -> list[Answer]:
        """One answer a group of windows."""
        flat = [(number, window) for number, windows in enumerate(groups) for window in windows]
        logprobs: list[list[float]] = [[] for _ in groups]
        is_greedy = [True] * len(groups)
        for batch in _batches(flat):
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
            if not math.isfinite(answer.sum_logprob):
                raise EngineError(
                    f"The model gave {answer.sum_logprob} as a log-probability at item {request.doc_id}: "
                    f"its weights are broken or too large for {self.engine.dtype}. Nothing was recorded of this."
                )
            self.answers[int(request.doc_id), int(request.idx)] = answer


def _batches(flat: Sequence[tuple[int, ScoreRequest]]) -> Iterator[list[tuple[int, ScoreRequest]]]:
    """Consecutive requests, about `BATCH_SIZE` at once. Those with one context stay together: it is then read once."""
    batch: list[tuple[int, ScoreRequest]] = []
    for entry in flat:
        is_another = bool(batch) and entry[1].context != batch[-1][1].context
        if len(batch) >= (BATCH_SIZE if is_another else 2 * BATCH_SIZE):
            yield batch
            batch = []
        batch.append(entry)
    if batch:
        yield batch


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
