"""What vLLM is asked for, and what is made of its answers; the engine itself is in test_vllm.py."""

import threading
from typing import Any

import pytest

from worker.engine.protocol import EngineDown, EngineError, ScoreRequest
from worker.engine.vllm_scores import MAX_LABELS, MIN_CACHED, VllmScores

LONG = [7] * MIN_CACHED


def logprob(token_ids: list[int], place: int) -> float:
    """A number that depends on all tokens up to a place."""
    return -sum((at + 1) * token_id for at, token_id in enumerate(token_ids[: place + 1])) / 1000


class Vllm:
    """Answers as vLLM does, from `logprob`; remembers the prompts it was asked for."""

    def __init__(self, *, cached: int | None = 16, off: float = 0.0, error: Exception | None = None) -> None:
        self.plain: list[list[int]] = []
        self.read_from_cache: list[list[int]] = []
        self.label_bodies: list[dict[str, Any]] = []
        self._cached, self._off, self._error = cached, off, error
        self._lock = threading.Lock()

    def post(self, path: str, body: dict[str, Any]) -> Any:
        with self._lock:
            if path == "/inference/v1/generate":
                return self._from_cache(body)
            if "logprob_token_ids" in body:
                return self._labels(body)
            self.plain += body["prompt"]
            choices = [
                {"index": index, "prompt_logprobs": self._rows(prompt)} for index, prompt in enumerate(body["prompt"])
            ]
            return {"choices": choices[::-1]}

    def _rows(self, prompt: list[int], off: float = 0.0) -> list[Any]:
        rows = [
            {str(token): {"logprob": logprob(prompt, at) + off, "rank": 1 if token % 2 else 2}}
            for at, token in enumerate(prompt)
        ]
        return [None, *rows[1:]]

    def _from_cache(self, body: dict[str, Any]) -> Any:
        if self._error is not None:
            raise self._error
        self.read_from_cache.append(body["token_ids"])
        details = None if self._cached is None else {"cached_tokens": self._cached}
        return {
            "prompt_logprobs": self._rows(body["token_ids"], self._off),
            "usage": {"prompt_tokens_details": details},
        }

    def _labels(self, body: dict[str, Any]) -> Any:
        self.label_bodies.append(body)
        choices = []
        for index, prompt in enumerate(body["prompt"]):
            values = {f"token_id:{one}": logprob([*prompt, one], len(prompt)) for one in body["logprob_token_ids"]}
            greedy = max(body["logprob_token_ids"])
            choices.append({"index": index, "logprobs": {"top_logprobs": [values]}, "token_ids": [greedy]})
        return {"choices": choices}


def expected(request: ScoreRequest) -> list[float]:
    both = request.context + request.continuation
    return [logprob(both, place) for place in range(len(request.context), len(both))]


def choices_of(context: list[int], *continuations: list[int]) -> list[ScoreRequest]:
    return [ScoreRequest(context, continuation) for continuation in continuations]


def test_scores_come_in_the_order_of_the_requests():
    requests = [
        *choices_of([5, 6], [7, 8], [9]),
        ScoreRequest([1], [2, 3, 4]),
        *choices_of(LONG, [3], [4, 5], [6, 7, 8]),
    ]
    scores = VllmScores(Vllm().post).score(requests)
    assert [score.token_logprobs for score in scores] == [pytest.approx(expected(request)) for request in requests]


def test_a_continuation_is_greedy_where_each_token_ranks_first():
    scores = VllmScores(Vllm().post).score(choices_of([2], [3, 5], [3, 4]))
    assert [score.is_greedy for score in scores] == [True, False]


class TestLabels:
    def test_cost_one_position_for_all_choices_of_an_item(self):
        vllm = Vllm()
        scores = VllmScores(vllm.post).score([*choices_of([5, 6], [11], [12]), *choices_of([8], [11], [12])])
        [body] = vllm.label_bodies
        assert body["prompt"] == [[5, 6], [8]]
        assert body["logprob_token_ids"] == [11, 12]
        assert not vllm.plain
        assert [score.is_greedy for score in scores] == [False, True, False, True]

    def test_more_than_vllm_takes_are_asked_in_parts(self):
        vllm = Vllm()
        requests = choices_of([5], *([3 + number] for number in range(MAX_LABELS + 10)))
        scores = VllmScores(vllm.post).score(requests)
        assert [len(body["logprob_token_ids"]) for body in vllm.label_bodies] == [MAX_LABELS, 10]
        assert [score.token_logprobs for score in scores] == [pytest.approx(expected(one)) for one in requests]


class TestTheCache:
    def test_is_read_for_all_but_the_first_choice_once_it_has_proven_right(self):
        vllm = Vllm()
        scores = VllmScores(vllm.post)
        scores.score(choices_of(LONG, [3, 4], [5, 6], [7, 8]))
        vllm.plain.clear()
        vllm.read_from_cache.clear()
        requests = choices_of([9, *LONG], [3, 4], [5, 6], [7, 8])
        found = scores.score(requests)
        assert vllm.plain == [[9, *LONG, 3, 4]]
        assert sorted(vllm.read_from_cache) == [[9, *LONG, 5, 6], [9, *LONG, 7, 8]]
        assert [score.token_logprobs for score in found] == [pytest.approx(expected(one)) for one in requests]

    def test_is_left_alone_for_short_contexts(self):
        vllm = Vllm()
        VllmScores(vllm.post).score(choices_of(LONG[1:], [3, 4], [5, 6]))
        assert not vllm.read_from_cache

    def test_is_left_alone_where_the_engine_cannot_do_it_safely(self):
        vllm = Vllm()
        VllmScores(vllm.post, may_read_cache=False).score(choices_of(LONG, [3, 4], [5, 6]))
        assert not vllm.read_from_cache
        assert len(vllm.plain) == 2

    @pytest.mark.parametrize("vllm", [Vllm(off=0.2), Vllm(cached=None), Vllm(error=EngineError("no such path"))])
    def test_is_given_up_for_good_where_it_is_off_or_refused(self, vllm):
        scores = VllmScores(vllm.post)
        requests = choices_of(LONG, [3, 4], [5, 6])
        for _ in range(2):
            found = scores.score(requests)
            assert [score.token_logprobs for score in found] == [pytest.approx(expected(one)) for one in requests]
        assert len(vllm.read_from_cache) <= 2, "only the comparison asked"

    def test_what_it_holds_of_the_continuation_is_scored_the_plain_way(self):
        vllm = Vllm(cached=len(LONG) + 1, off=0.2)
        requests = choices_of(LONG, [3, 4], [5, 6])
        found = VllmScores(vllm.post).score(requests)
        assert [score.token_logprobs for score in found] == [pytest.approx(expected(one)) for one in requests]

    def test_a_death_is_told(self):
        with pytest.raises(EngineDown):
            VllmScores(Vllm(error=EngineDown("killed")).post).score(choices_of(LONG, [3, 4], [5, 6]))
