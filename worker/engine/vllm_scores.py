"""Log-probabilities over vLLM's HTTP interface, each asked for in the cheapest way that is known to be right.

The plain way, `prompt_logprobs`, computes every context anew for each of its continuations. Two
shortcuts save that. Continuations of one token are read off a single generated position; vLLM
has an interface for it. And a long context is read from the prefix cache: vLLM does that for
prompt log-probabilities only when told to, and what it then reports is not always usable, so it is
compared with the plain way once a child, and left alone for good if it is off.
"""

import threading
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import structlog

from worker.engine.protocol import EngineDown, EngineError, Score, ScoreRequest

PROMPTS_PER_BODY = 64
BODIES_AT_ONCE = 2
"""While the engine works on one request, the next is already being read."""
CACHED_AT_ONCE = 32
"""Requests that read the cache go one by one."""
MAX_LABELS = 128
"""`MAX_LOGPROB_TOKEN_IDS` of vllm/sampling_params.py, 0.32.0."""
MIN_CACHED = 128
"""Shorter contexts are not worth a request of their own; vLLM's blocks on processors are this long."""
MAX_DIFFERENCE = 0.03
"""Nats a token between the two ways: bf16 sums of another shape differ in the last bits."""

Post = Callable[[str, dict[str, Any]], Any]
Numbered = tuple[int, ScoreRequest]
"""A request and its place in the call."""
Group = Sequence[Numbered]
"""Requests with one context."""
T = TypeVar("T")

log = structlog.get_logger(__name__)


class VllmScores:
    """Scores requests that fit the model; one instance a child."""

    def __init__(self, post: Post, *, may_read_cache: bool = True) -> None:
        """`may_read_cache` False never tries the second shortcut."""
        self._post = post
        self._may_read_cache = None if may_read_cache else False
        """None until the first comparison."""
        self._lock = threading.Lock()

    @property
    def reads_cache(self) -> bool:
        """Whether the second shortcut has been compared and found right."""
        return bool(self._may_read_cache)

    def score(self, requests: Sequence[ScoreRequest]) -> list[Score]:
        """One score a request, in the same order."""
        labels: dict[tuple[int, ...], list[Numbered]] = defaultdict(list)
        texts: dict[tuple[int, ...], list[Numbered]] = defaultdict(list)
        for numbered in enumerate(requests):
            groups = labels if len(numbered[1].continuation) == 1 else texts
            groups[tuple(numbered[1].context)].append(numbered)
        scores: dict[int, Score] = {}
        with ThreadPoolExecutor(BODIES_AT_ONCE) as pool:
            for found in pool.map(self._score_labels, _by_labels(labels.values())):
                scores.update(found)
            for found in pool.map(self._score_texts, _chunks(_longest_first(texts.values()))):
                scores.update(found)
        return [scores[number] for number in range(len(requests))]

    def _score_texts(self, groups: Sequence[Group]) -> dict[int, Score]:
        """Groups of one context each. The first of a group fills the cache that its others may read."""
        shared = [group for group in groups if len(group) > 1 and len(group[0][1].context) >= MIN_CACHED]
        rest = [group[1:] for group in shared]
        if not rest or not self._proves_cache(shared[0]):
            return self._score_plain([numbered for group in groups for numbered in group])
        later = {number for group in rest for number, _ in group}
        first = [numbered for group in groups for numbered in group if numbered[0] not in later]
        return self._score_plain(first) | self._score_cached([numbered for group in rest for numbered in group])

    def _proves_cache(self, group: Group) -> bool:
        with self._lock:
            if self._may_read_cache is None:
                try:
                    difference = self._compare(group)
                except EngineDown:
                    raise
                except EngineError as error:
                    log.warning("Prompts cannot be scored from the prefix cache here.", reason=str(error))
                    difference = float("inf")
                self._may_read_cache = difference <= MAX_DIFFERENCE
                log.info("Compared scores from the prefix cache.", nats=difference, used=self._may_read_cache)
            return self._may_read_cache

    def _compare(self, group: Group) -> float:
        plain, cached = self._score_plain(group), self._score_cached(group)
        return max(
            abs(one - other)
            for number, _ in group
            for one, other in zip(plain[number].token_logprobs, cached[number].token_logprobs, strict=True)
        )

    def _score_plain(self, batch: Group) -> dict[int, Score]:
        scores: dict[int, Score] = {}
        for part in _chunks(batch):
            body = {
                "model": "current",
                "prompt": [request.context + request.continuation for _, request in part],
                "max_tokens": 1,
                "temperature": 0,
                "prompt_logprobs": 0,  # the token's own value and its rank, no runners-up
            }
            for (number, request), choice in zip(part, _choices(self._post("/v1/completions", body)), strict=True):
                scores[number] = _read_rows(request, choice["prompt_logprobs"])
        return scores

    def _score_cached(self, batch: Group) -> dict[int, Score]:
        with ThreadPoolExecutor(CACHED_AT_ONCE) as pool:
            found = list(pool.map(self._score_one_cached, batch))
        scores = {number: score for (number, _), score in zip(batch, found, strict=True) if score is not None}
        return scores | self._score_plain([numbered for numbered in batch if numbered[0] not in scores])

    def _score_one_cached(self, numbered: Numbered) -> Score | None:
        """None where the cache held more than the context: the first values are then never computed."""
        _, request = numbered
        sampling = {"max_tokens": 1, "temperature": 0, "prompt_logprobs": 0, "skip_reading_prefix_cache": False}
        body = {"token_ids": request.context + request.continuation, "sampling_params": sampling}
        answer = self._post("/inference/v1/generate", body)
        cached = (answer["usage"].get("prompt_tokens_details") or {}).get("cached_tokens")
        if cached is None:
            raise EngineError("The engine does not say how much of a prompt came from its cache.")
        return _read_rows(request, answer["prompt_logprobs"]) if cached < len(request.context) else None

    def _score_labels(self, groups: Sequence[Group]) -> dict[int, Score]:
        """Groups of one context each that ask for the same tokens."""
        token_ids = _labels(groups[0])
        body = {
            "model": "current",
            "prompt": [group[0][1].context for group in groups],
            "max_tokens": 1,
            "temperature": 0,
            "logprobs": len(token_ids),
            "logprob_token_ids": token_ids,
            "return_tokens_as_token_ids": True,
            "return_token_ids": True,
        }
        scores: dict[int, Score] = {}
        for group, choice in zip(groups, _choices(self._post("/v1/completions", body)), strict=True):
            values = choice["logprobs"]["top_logprobs"][0]
            for number, request in group:
                [token_id] = request.continuation
                scores[number] = Score([float(values[f"token_id:{token_id}"])], token_id == choice["token_ids"][0])
        return scores


def _labels(group: Group) -> list[int]:
    return sorted({request.continuation[0] for _, request in group})


def _by_labels(groups: Iterable[Group]) -> list[Sequence[Group]]:
    """Groups that ask for the same tokens together: one body names them once for all its prompts."""
    found: dict[tuple[int, ...], list[Group]] = defaultdict(list)
    for group in groups:
        for part in _chunks(group, MAX_LABELS):
            found[tuple(_labels(part))].append(part)
    return [chunk for alike in found.values() for chunk in _chunks(alike)]


def _longest_first(groups: Iterable[Group]) -> list[Group]:
    """Neighbours of one length finish together."""
    return sorted(groups, key=lambda group: -max(len(one.context) + len(one.continuation) for _, one in group))


def _chunks(things: Sequence[T], size: int = PROMPTS_PER_BODY) -> list[Sequence[T]]:
    return [things[start : start + size] for start in range(0, len(things), size)]


def _choices(answer: dict[str, Any]) -> list[dict[str, Any]]:
    """In the order of the prompts."""
    return sorted(answer["choices"], key=lambda choice: int(choice["index"]))


def _read_rows(request: ScoreRequest, rows: Sequence[dict[str, Any]]) -> Score:
    wanted = zip(rows[-len(request.continuation) :], request.continuation, strict=True)
    entries = [row[str(token_id)] for row, token_id in wanted]
    return Score([float(entry["logprob"]) for entry in entries], all(entry["rank"] == 1 for entry in entries))
