"""What fits into a running engine, and into a context."""

import json
import shutil

import pytest

from worker.engine.protocol import EngineError, Sampling, ScoreRequest
from worker.engine.shape import fit_prompt, fit_score_request, read_shape


def test_two_checkpoints_of_a_run_swap_and_other_architectures_do_not(make_checkpoint):
    first = read_shape(make_checkpoint("tied-a", seed=1))
    assert first.can_swap_to(read_shape(make_checkpoint("tied-b", seed=2)))
    assert first.can_swap_to(read_shape(make_checkpoint("chat", chat=True))), "the template is ours, not the engine's"
    assert not first.can_swap_to(read_shape(make_checkpoint("untied-a", seed=1, tied=False)))
    assert not first.can_swap_to(read_shape(make_checkpoint("deeper", layers=3)))


def test_another_vocabulary_or_quantization_needs_another_engine(make_checkpoint, tmp_path):
    source = make_checkpoint("tied-a", seed=1)
    other = tmp_path / "other"
    shutil.copytree(source, other)
    tokenizer = other / "tokenizer.json"
    tokenizer.write_text(tokenizer.read_text() + "\n")
    assert not read_shape(source).can_swap_to(read_shape(other))

    packed = tmp_path / "packed"
    shutil.copytree(source, packed)
    config = packed / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"quantization_config": {"bits": 4}}))
    assert not read_shape(packed).can_swap_to(read_shape(packed))


def test_a_context_loses_its_left_and_a_continuation_is_never_cut():
    request = ScoreRequest([1, 2, 3, 4], [5, 6])
    assert fit_score_request(request, 6) == request
    assert fit_score_request(request, 4) == ScoreRequest([3, 4], [5, 6])
    with pytest.raises(EngineError, match="does not fit"):
        fit_score_request(request, 2)
    with pytest.raises(EngineError, match="at least one token"):
        fit_score_request(ScoreRequest([], [5]), 6)


@pytest.mark.parametrize(
    ("length", "wanted", "kept", "granted"),
    [(10, 20, 10, 20), (90, 20, 80, 20), (90, 80, 50, 50), (10, 500, 10, 90), (500, 1, 99, 1)],
)
def test_a_long_prompt_keeps_at_least_half_of_the_context(length, wanted, kept, granted):
    fitted = fit_prompt(list(range(length)), Sampling(max_tokens=wanted), 100)
    assert fitted.token_ids == list(range(length))[-kept:]
    assert fitted.sampling.max_tokens == granted
