"""The fake engine keeps the promises of the protocol."""

import pytest

from worker.engine.protocol import EngineError, Sampling, ScoreRequest
from worker.engine.scripted import ScriptedEngine
from worker.engine.tokenizer import load_tokenizer


def test_scores_depend_on_the_checkpoint_and_the_request_only(make_checkpoint):
    engine, request = ScriptedEngine(), ScoreRequest([1, 2], [3, 4])
    engine.use(make_checkpoint("tied-a", seed=1))
    first = engine.score([request])
    assert engine.score([ScoreRequest([1, 2], [4, 3]), request])[1:] == first
    engine.use(make_checkpoint("tied-b", seed=2))
    assert engine.score([request]) != first


def test_the_stream_is_the_generated_text_and_closing_it_is_noticed(make_checkpoint):
    engine = ScriptedEngine()
    engine.use(make_checkpoint("tied-a", seed=1))
    prompt = load_tokenizer(engine.resident).encode("To be, or not")
    [whole] = engine.generate([prompt], Sampling())
    assert "".join(delta.text for delta in engine.stream(prompt, Sampling())) == whole.text == "To be, or not"

    stream = engine.stream(prompt, Sampling())
    next(stream)
    assert engine.num_streams_open == 1
    stream.close()
    assert engine.num_streams_open == 0


def test_checkpoints_of_one_run_share_a_tokenizer(make_checkpoint):
    first = load_tokenizer(make_checkpoint("tied-a", seed=1))
    assert load_tokenizer(make_checkpoint("tied-b", seed=2)) is first
    assert load_tokenizer(make_checkpoint("chat", chat=True)) is not first


def test_without_a_checkpoint_it_says_so(tmp_path):
    with pytest.raises(EngineError, match="call use"):
        ScriptedEngine().score([ScoreRequest([1], [2])])
    with pytest.raises(EngineError, match=r"no config\.json"):
        ScriptedEngine().use(tmp_path)
