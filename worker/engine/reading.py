"""What a causal language model of transformers thinks of each token of a prompt."""

from collections.abc import Sequence
from typing import Any

import torch

from worker.engine.pieces import token_texts
from worker.engine.protocol import Row


def read_rows(model: Any, tokenizer: Any, prompt: Sequence[int], num_likeliest: int, *, max_logits: int) -> list[Row]:
    """[text, logprob, [[text, logprob] of the likeliest …]] a token; the first has no logprob.

    Args:
        model: the model.
        tokenizer: its tokenizer.
        prompt: token ids, as many as the model reads at most.
        num_likeliest: so many likeliest tokens are told for each place.
        max_logits: values of the vocabulary that are held at once.
    """
    texts = token_texts(tokenizer, prompt)
    rows: list[Row] = [[texts[0], None, None]]
    token_ids = torch.tensor([list(prompt)], device=model.device)
    with torch.inference_mode():
        hidden = model.model(input_ids=token_ids, use_cache=False).last_hidden_state[0, :-1]
        size = max(1, max_logits // model.lm_head.out_features)
        for start in range(0, len(hidden), size):
            # In float32, as scores are: rounded to 8 bits a logit of 10 is off by up to 0.03.
            logits = hidden[start : start + size].float() @ model.lm_head.weight.float().t()
            logprobs = logits.log_softmax(-1)
            targets = token_ids[0, start + 1 : start + 1 + len(logprobs)]
            own = logprobs.gather(-1, targets[:, None])[:, 0].tolist()
            values, indices = logprobs.topk(min(num_likeliest, logprobs.shape[-1]))
            for place, (value, ids, found) in enumerate(zip(own, indices.tolist(), values.tolist(), strict=True)):
                at = start + 1 + place
                likeliest = [
                    [texts[at] if one == prompt[at] else str(tokenizer.decode([one])), logprob]
                    for one, logprob in zip(ids, found, strict=True)
                ]
                rows.append([texts[at], value, likeliest])
    return rows
