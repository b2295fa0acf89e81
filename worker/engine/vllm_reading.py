"""What vLLM's model thought of each token of a prompt, over its HTTP interface.

Always computed anew: what `prompt_logprobs` reports from the prefix cache is not always there (`vllm_scores`), and
vLLM leaves the cache alone for such requests unless told otherwise.
"""

from collections.abc import Callable, Sequence
from typing import Any

from worker.engine.pieces import token_texts
from worker.engine.protocol import Row

Post = Callable[[str, dict[str, Any]], Any]


def read_prompts(post: Post, tokenizer: Any, prompts: Sequence[list[int]], num_likeliest: int) -> list[list[Row]]:
    """[text, logprob, [[text, logprob] of the likeliest …]] a token of each prompt; the first has no logprob."""
    body = {
        "model": "current",
        "prompt": [list(prompt) for prompt in prompts],
        "max_tokens": 1,
        "temperature": 0,
        "prompt_logprobs": num_likeliest,
    }
    choices = sorted(post("/v1/completions", body)["choices"], key=lambda choice: int(choice["index"]))
    return [
        _rows(tokenizer, prompt, choice["prompt_logprobs"]) for prompt, choice in zip(prompts, choices, strict=True)
    ]


def _rows(tokenizer: Any, prompt: Sequence[int], found: Sequence[dict[str, Any] | None]) -> list[Row]:
    rows: list[Row] = []
    for token_id, text, at in zip(prompt, token_texts(tokenizer, prompt), found, strict=True):
        if at is None:
            rows.append([text, None, None])
            continue
        own = at[str(token_id)]
        ordered = sorted(at.items(), key=lambda item: -float(item[1]["logprob"]))
        likeliest = [
            [text if other == str(token_id) else _text(tokenizer, int(other)), float(entry["logprob"])]
            for other, entry in ordered
        ]
        rows.append([text, float(own["logprob"]), likeliest])
    return rows


def _text(tokenizer: Any, token_id: int) -> str:
    return str(tokenizer.decode([token_id]))
