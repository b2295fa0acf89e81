"""Drawing a token, and the answer that pieces make."""

from types import SimpleNamespace

import torch

from worker.engine.drawing import choose, end_ids, join, make_generator
from worker.engine.protocol import Delta, Sampling

LOGITS = torch.tensor([1.0, 3.0, 2.0, -1.0])


def draw(sampling: Sampling, seen: list[int] | None = None) -> set[int]:
    """What comes up in 200 draws."""
    generator = make_generator(1, "cpu")
    return {choose(LOGITS, seen or [], sampling, generator) for _ in range(200)}


def test_temperature_zero_takes_the_likeliest_and_a_high_one_takes_all():
    assert draw(Sampling()) == {1}
    assert draw(Sampling(temperature=50.0)) == {0, 1, 2, 3}


def test_top_p_keeps_the_fewest_tokens_that_reach_it():
    assert draw(Sampling(temperature=1.0, top_p=0.7)) == {1, 2}


def test_a_token_seen_before_is_penalized():
    assert draw(Sampling(repetition_penalty=2.0), seen=[1]) == {2}


def test_the_pieces_make_the_answer():
    whole = join([Delta("a"), Delta("b"), Delta("", "stop", 3, 2)])
    assert (whole.text, whole.finish_reason, whole.prompt_tokens, whole.completion_tokens) == ("ab", "stop", 3, 2)


def test_a_config_names_no_one_or_several_ends():
    assert end_ids(SimpleNamespace(eos_token_id=None)) == frozenset()
    assert end_ids(SimpleNamespace(eos_token_id=1)) == {1}
    assert end_ids(SimpleNamespace(eos_token_id=[1, 5])) == {1, 5}
