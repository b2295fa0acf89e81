"""The in-process engine against plain transformers."""

import shutil

import pytest
import torch
from transformers import LlamaForCausalLM

from worker.engine.protocol import EngineError, Sampling, ScoreRequest
from worker.engine.tokenizer import load_tokenizer
from worker.engine.transformers import TransformersEngine


@pytest.fixture(scope="module")
def engine(make_checkpoint) -> TransformersEngine:
    engine = TransformersEngine(dtype="float32")
    engine.use(make_checkpoint("tied-a", seed=1))
    return engine


@pytest.fixture(scope="module")
def model(make_checkpoint) -> LlamaForCausalLM:
    return LlamaForCausalLM.from_pretrained(make_checkpoint("tied-a", seed=1), dtype=torch.float32)


def test_batched_scores_equal_those_of_one_request_at_a_time(engine, model, score_requests):
    for request, score in zip(score_requests, engine.score(score_requests), strict=True):
        with torch.inference_mode():
            logits = model(torch.tensor([request.context + request.continuation])).logits[0].float()
        logprobs = logits.log_softmax(-1)
        expected = [
            float(logprobs[len(request.context) - 1 + offset, token])
            for offset, token in enumerate(request.continuation)
        ]
        assert score.token_logprobs == pytest.approx(expected, abs=1e-4)


def test_the_greedy_continuation_is_recognized(engine):
    prompt = [0, 5, 6, 7]
    [answer] = engine.generate([prompt], Sampling(max_tokens=1))
    tokenizer = load_tokenizer(engine.resident)
    best = max(range(320), key=lambda token: engine.score([ScoreRequest(prompt, [token])])[0].token_logprobs[0])
    assert tokenizer.decode([best], skip_special_tokens=True) in (answer.text, "\ufffd")
    assert engine.score([ScoreRequest(prompt, [best])])[0].is_greedy
    assert not engine.score([ScoreRequest(prompt, [(best + 1) % 320])])[0].is_greedy


def test_greedy_generation_is_what_transformers_generates(engine, model):
    prompt = load_tokenizer(engine.resident).encode("To be, or not to be")
    [answer] = engine.generate([prompt], Sampling(max_tokens=20))
    with torch.inference_mode():
        output = model.generate(torch.tensor([prompt]), max_new_tokens=20, do_sample=False)[0, len(prompt) :]
    expected = load_tokenizer(engine.resident).decode(output, skip_special_tokens=True)
    assert answer.text == expected
    assert answer.prompt_tokens == len(prompt)


def test_a_seed_makes_sampling_repeatable(engine):
    sampling = Sampling(max_tokens=30, temperature=1.0, top_p=0.9, seed=5)
    [first], [second] = engine.generate([[0, 5]], sampling), engine.generate([[0, 5]], sampling)
    assert first == second
    [other] = engine.generate([[0, 5]], Sampling(max_tokens=30, temperature=1.0, top_p=0.9, seed=6))
    assert other.text != first.text


def test_a_stop_string_ends_the_answer_and_no_part_of_it_is_sent(engine):
    [whole] = engine.generate([[0, 9, 4]], Sampling(max_tokens=40))
    stop = whole.text[5:8]
    pieces = list(engine.stream([0, 9, 4], Sampling(max_tokens=40, stop=(stop,))))
    assert "".join(piece.text for piece in pieces) == whole.text[: whole.text.index(stop)]
    assert pieces[-1].finish_reason == "stop"


def test_the_answer_ends_where_the_context_ends(engine):
    [answer] = engine.generate([[0] + [9] * 126], Sampling(max_tokens=500))
    assert answer.prompt_tokens + answer.completion_tokens <= 128


def test_weights_swap_in_place_where_the_shape_is_the_same(make_checkpoint, score_requests):
    engine = TransformersEngine()
    engine.use(make_checkpoint("tied-a", seed=1))
    first = engine.score(score_requests)
    engine.use(make_checkpoint("tied-b", seed=2))
    swapped = engine.score(score_requests)
    engine.use(make_checkpoint("tied-a", seed=1))
    assert (engine.num_starts, engine.num_loads) == (1, 3)
    assert engine.score(score_requests) == first

    fresh = TransformersEngine()
    fresh.use(make_checkpoint("tied-b", seed=2))
    assert fresh.score(score_requests) == swapped != first

    engine.use(make_checkpoint("deeper", layers=3))
    assert engine.num_starts == 2


def test_a_broken_file_is_refused_and_leaves_nothing_resident(make_checkpoint, tmp_path):
    engine = TransformersEngine()
    engine.use(make_checkpoint("tied-a", seed=1))
    broken = shutil.copytree(make_checkpoint("tied-b", seed=2), tmp_path / "broken")
    weights = broken / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-64])
    with pytest.raises(EngineError, match="broken cannot be loaded"):
        engine.use(broken)
    assert engine.resident is None
    with pytest.raises(EngineError, match="call use"):
        engine.score([ScoreRequest([1], [2])])
    engine.use(make_checkpoint("tied-a", seed=1))


def test_lanes_change_no_number(make_checkpoint, engine, score_requests):
    lanes = TransformersEngine(dtype="float32", threads=2)
    lanes.use(make_checkpoint("tied-a", seed=1))
    many = score_requests * 20
    assert lanes.score(many) == engine.score(many)
    lanes.close()
    lanes.use(make_checkpoint("tied-a", seed=1))
    assert lanes.score(score_requests) == engine.score(score_requests)


def test_fp32_and_bf16_agree_as_far_as_bf16_goes(make_checkpoint, score_requests):
    scores = {}
    for dtype in ("float32", "bfloat16"):
        one = TransformersEngine(dtype=dtype)
        one.use(make_checkpoint("tied-a", seed=1))
        assert one.dtype == dtype
        scores[dtype] = [value for score in one.score(score_requests) for value in score.token_logprobs]
    assert scores["float32"] != scores["bfloat16"]
    assert scores["float32"] == pytest.approx(scores["bfloat16"], abs=0.15)
    with pytest.raises(ValueError, match="auto, bfloat16 or float32"):
        TransformersEngine(dtype="int3")


def test_a_folder_without_weights_is_refused(engine, tmp_path):
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(EngineError, match="no weights"):
        TransformersEngine().use(tmp_path)
    with pytest.raises(EngineError, match="cannot be read"):
        TransformersEngine().use(tmp_path / "absent")
