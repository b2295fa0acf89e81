"""What the engines think of a prompt's own tokens, against what they score."""

import pytest

from worker.engine.pair import EnginePair
from worker.engine.protocol import ScoreRequest
from worker.engine.scripted import ScriptedEngine
from worker.engine.tokenizer import load_tokenizer
from worker.engine.transformers import TransformersEngine


@pytest.fixture(scope="module", params=["transformers", "scripted"])
def engine(request, make_checkpoint):
    engine = TransformersEngine(dtype="float32") if request.param == "transformers" else ScriptedEngine()
    engine.use(make_checkpoint("tied-a", seed=1))
    return engine


PROMPTS = [[0, 7, 9, 11, 40, 5], [3], list(range(3, 60))]


def test_each_token_has_the_logprob_that_it_is_scored_with(engine):
    for prompt, rows in zip(PROMPTS, engine.read(PROMPTS, 2), strict=True):
        assert len(rows) == len(prompt)
        assert rows[0][1:] == [None, None]
        for place in range(1, len(prompt)):
            [score] = engine.score([ScoreRequest(prompt[:place], prompt[place : place + 1])])
            assert rows[place][1] == pytest.approx(score.token_logprobs[0], abs=1e-3)
            # lm-eval tells by this whether a continuation is the model's first choice.
            assert (rows[place][1] == max(logprob for _, logprob in rows[place][2])) == score.is_greedy


def test_the_likeliest_come_first_and_as_many_as_asked_for(engine):
    [rows] = engine.read(PROMPTS[:1], 2)
    for _, _, likeliest in rows[1:]:
        assert len(likeliest) == 2
        assert likeliest[0][1] >= likeliest[1][1]
    [rows] = engine.read(PROMPTS[:1], 0)
    assert all(not likeliest for _, _, likeliest in rows)


def test_the_texts_are_the_prompts(engine):
    tokenizer = load_tokenizer(engine.resident)
    [rows] = engine.read([tokenizer.encode("春眠不觉晓", add_special_tokens=False)], 1)
    assert "".join(text for text, *_ in rows) == "春眠不觉晓"


def test_a_pair_reads_with_what_answers(engine):
    pair = EnginePair(engine, ScriptedEngine(), notes=None)
    assert pair.read(PROMPTS, 1) == engine.read(PROMPTS, 1)
