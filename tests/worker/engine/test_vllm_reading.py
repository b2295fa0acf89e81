"""What vLLM is asked about a prompt's own tokens, and what is made of its answer; once with vLLM itself."""

from typing import Any

import pytest

from registry.settings import Settings
from worker.engine.protocol import ScoreRequest
from worker.engine.tokenizer import load_tokenizer
from worker.engine.vllm import VllmEngine
from worker.engine.vllm_reading import read_prompts

PROMPTS = [[5, 6, 7], [9]]


def test_rows_come_in_the_order_of_the_prompts_with_the_likeliest_first(make_checkpoint):
    bodies: list[Any] = []

    def post(path: str, body: dict[str, Any]) -> Any:
        assert path == "/v1/completions"
        bodies.append(body)
        rows = [None, {"6": {"logprob": -3.0}, "8": {"logprob": -1.0}}, {"7": {"logprob": -0.5}}]
        return {"choices": [{"index": 1, "prompt_logprobs": [None]}, {"index": 0, "prompt_logprobs": rows}]}

    tokenizer = load_tokenizer(make_checkpoint("tied-a", seed=1))
    first, second = read_prompts(post, tokenizer, PROMPTS, 1)
    assert (bodies[0]["prompt"], bodies[0]["prompt_logprobs"]) == (PROMPTS, 1)
    five, six, seven, eight = (tokenizer.decode([one]) for one in (5, 6, 7, 8))
    assert first == [
        [five, None, None],
        [six, -3.0, [[eight, -1.0], [six, -3.0]]],
        [seven, -0.5, [[seven, -0.5]]],
    ]
    assert second == [[tokenizer.decode([9]), None, None]]


@pytest.mark.engine
def test_vllm_reads_what_it_scores_also_when_asked_again(make_checkpoint, tmp_path):
    engine = VllmEngine(Settings(home=tmp_path, engine_threads=1))
    prompt = [0, *range(3, 127)]
    try:
        engine.use(make_checkpoint("tied-a", seed=1))
        for _ in range(2):  # the second time the prefix cache is full
            [rows, _] = engine.read([prompt, [4, 5]], 3)
            [score] = engine.score([ScoreRequest(prompt[:1], prompt[1:])])
            assert [row[1] for row in rows[1:]] == pytest.approx(score.token_logprobs, abs=1e-2)
            assert all(len(row[2]) in (3, 4) for row in rows[1:])
    finally:
        engine.close()
