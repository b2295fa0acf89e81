"""Packed rows give the numbers that each request gives alone."""

from dataclasses import replace

import pytest
import torch
from transformers import LlamaForCausalLM

from worker.engine.likelihood import score_rows
from worker.engine.prefixes import pack
from worker.engine.protocol import Score, ScoreRequest


@pytest.fixture(scope="module")
def model(make_checkpoint) -> LlamaForCausalLM:
    return LlamaForCausalLM.from_pretrained(make_checkpoint("tied-a", seed=1), dtype=torch.float32).eval()


@pytest.fixture(scope="module")
def requests(score_requests) -> list[ScoreRequest]:
    """Each context with three choices, two of which begin alike."""
    choices = ([7], [8, 9, 10], [8, 9, 11, 12])
    return [replace(request, continuation=choice) for request in score_requests for choice in choices]


def score(model: LlamaForCausalLM, requests: list[ScoreRequest], max_logits: int = 2**20) -> list[Score]:
    found = score_rows(model, pack(requests, width=1_000, max_tokens=400), max_logits=max_logits)
    return [found[index] for index in range(len(requests))]


def score_alone(model: LlamaForCausalLM, request: ScoreRequest) -> list[float]:
    with torch.inference_mode():
        logits = model(torch.tensor([request.context + request.continuation])).logits[0].float()
    first = len(request.context) - 1
    return [float(logits[first + at].log_softmax(-1)[token]) for at, token in enumerate(request.continuation)]


def test_packed_scores_equal_those_of_each_request_alone(model, requests):
    for request, found in zip(requests, score(model, requests), strict=True):
        assert found.token_logprobs == pytest.approx(score_alone(model, request), abs=1e-4)


def test_how_much_of_the_vocabulary_is_held_at_once_changes_nothing(model, requests):
    whole, pieces = score(model, requests), score(model, requests, max_logits=700)
    for one, other in zip(whole, pieces, strict=True):
        assert one.token_logprobs == pytest.approx(other.token_logprobs, abs=1e-5)
        assert one.is_greedy == other.is_greedy


def test_in_bf16_the_targets_keep_more_digits_than_the_logits(make_checkpoint, model, requests):
    rounded = LlamaForCausalLM.from_pretrained(make_checkpoint("tied-a", seed=1), dtype=torch.bfloat16).eval()
    exact = [value for request in requests for value in score_alone(model, request)]
    plain = [value for request in requests for value in score_alone(rounded, request)]
    ours = [value for found in score(rounded, requests) for value in found.token_logprobs]

    def error(values: list[float]) -> float:
        return float((torch.tensor(values) - torch.tensor(exact)).square().mean().sqrt())

    assert error(ours) < error(plain)


def test_a_model_that_computes_nan_gives_nan(make_checkpoint):
    broken = LlamaForCausalLM.from_pretrained(make_checkpoint("tied-a", seed=1)).eval()
    with torch.no_grad():
        broken.model.norm.weight[0] = float("nan")
    [found] = score(broken, [ScoreRequest([3, 4], [5])])
    assert found.token_logprobs[0] != found.token_logprobs[0]
    assert not found.is_greedy
