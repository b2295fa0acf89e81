"""Drawing the next token, and joining a stream into a whole answer, for the engine inside this process."""

from collections.abc import Sequence
from typing import Any

import torch

from worker.engine.protocol import Delta, Generation, Sampling


def choose(logits: Any, seen: list[int], sampling: Sampling, generator: Any) -> int:
    """A token id drawn from logits of the shape [vocabulary]."""
    if sampling.repetition_penalty != 1.0:
        used = torch.tensor(sorted(set(seen)), device=logits.device)
        values = logits[used]
        factor = sampling.repetition_penalty
        logits = logits.index_copy(0, used, torch.where(values > 0, values / factor, values * factor))
    if sampling.temperature <= 0:
        return int(logits.argmax())
    probabilities = torch.softmax(logits / sampling.temperature, dim=-1)
    if sampling.top_p < 1.0:
        ordered, indices = probabilities.sort(descending=True)
        outside = ordered.cumsum(0) - ordered >= sampling.top_p
        probabilities = probabilities.index_fill(0, indices[outside], 0.0)
    return int(torch.multinomial(probabilities, 1, generator=generator))


def token_row(logits: Any, token_id: int, num_likeliest: int, tokenizer: Any) -> list[Any]:
    """[text, logprob, [[text, logprob] of the likeliest …]] of a token drawn from logits of the shape [vocabulary]."""
    logprobs = torch.log_softmax(logits, dim=-1)
    values, indices = logprobs.topk(min(num_likeliest, len(logprobs)))
    likeliest = [[tokenizer.decode([int(index)]), float(value)] for value, index in zip(values, indices, strict=True)]
    return [tokenizer.decode([token_id]), float(logprobs[token_id]), likeliest]


def make_generator(seed: int | None, device: str) -> torch.Generator:
    """A source of chance; without a seed another one each time."""
    generator = torch.Generator(device=device)
    if seed is None:
        generator.seed()
    else:
        generator.manual_seed(seed)
    return generator


def join(deltas: Sequence[Delta]) -> Generation:
    """The whole answer that a stream made."""
    last = deltas[-1]
    return Generation(
        text="".join(delta.text for delta in deltas),
        finish_reason=last.finish_reason or "length",
        prompt_tokens=last.prompt_tokens or 0,
        completion_tokens=last.completion_tokens or 0,
    )


def end_ids(config: Any) -> frozenset[int]:
    """Tokens that end an answer."""
    end = config.eos_token_id
    return frozenset(end if isinstance(end, list) else [] if end is None else [end])
