"""Log-probabilities of packed rows, from a causal language model of transformers."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch

from worker.engine.prefixes import Row
from worker.engine.protocol import Score


class Batch(NamedTuple):
    """Rows as tensors. B rows of L tokens, N continuation tokens that are asked for."""

    token_ids: torch.Tensor
    """[B, L]"""
    positions: torch.Tensor
    """[B, L]"""
    mask: torch.Tensor | None
    """[B, 1, L, L], true where the token of the third axis sees that of the fourth; None where each sees all before."""
    places: torch.Tensor
    """[N], into the B * L tokens: what predicts the continuation token."""
    targets: torch.Tensor
    """[N]"""


def score_rows(model: Any, rows: Sequence[Row], *, max_logits: int) -> dict[int, Score]:
    """Scores by the index of the request. `max_logits` bounds the values of the vocabulary held at once."""
    batch = _to_batch(rows, model.device)
    with torch.inference_mode():
        hidden = model.model(
            input_ids=batch.token_ids, attention_mask=batch.mask, position_ids=batch.positions, use_cache=False
        ).last_hidden_state
        chosen, greedy = _look_up(model.lm_head, hidden.flatten(0, 1), batch, max_logits)
    reads = [read for row in rows for read in row.reads]
    lengths = [len(read.targets) for read in reads]
    parts = zip(reads, chosen.cpu().split(lengths), greedy.cpu().split(lengths), strict=True)
    return {read.index: Score(values.tolist(), bool(hits.all())) for read, values, hits in parts}


def _to_batch(rows: Sequence[Row], device: Any) -> Batch:
    length = max(len(row) for row in rows)
    token_ids = torch.zeros(len(rows), length, dtype=torch.long)
    positions = torch.zeros_like(token_ids)
    ends = torch.arange(1, length + 1).repeat(len(rows), 1)  # padding sees itself, and nobody sees it
    for number, row in enumerate(rows):
        token_ids[number, : len(row)] = torch.tensor(row.token_ids)
        positions[number, : len(row)] = torch.tensor(row.positions)
        ends[number, : len(row)] = torch.tensor(row.ends)
    mask = None
    if any(row.has_branches for row in rows):
        here = torch.arange(length)
        mask = (here <= here[:, None]) & (here[:, None] < ends[:, None, None, :])
    reads = [(number * length, read) for number, row in enumerate(rows) for read in row.reads]
    places = torch.tensor([first + place for first, read in reads for place in read.places])
    targets = torch.tensor([target for _, read in reads for target in read.targets])
    tensors = (token_ids, positions, mask, places, targets)
    return Batch(*(tensor if tensor is None else tensor.to(device) for tensor in tensors))


def _look_up(
    head: torch.nn.Linear, hidden: torch.Tensor, batch: Batch, max_logits: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Log-probability of each target, and whether it is the likeliest token; both [N].

    The vocabulary is computed once for each distinct place, however many choices begin there.
    """
    read, owners = torch.unique(batch.places, return_inverse=True)
    chosen = torch.empty(len(owners), device=hidden.device)
    greedy = torch.empty(len(owners), dtype=torch.bool, device=hidden.device)
    size = max(1, max_logits // head.out_features)
    # One buffer for all: without, each product faults its pages in anew, a third of its time on a processor.
    buffer = hidden.new_empty(min(size, len(read)), head.out_features)
    for start in range(0, len(read), size):
        states = hidden[read[start : start + size]]
        asked = ((owners >= start) & (owners < start + size)).nonzero()[:, 0]
        rows, targets = owners[asked] - start, batch.targets[asked]
        logits = torch.mm(states, head.weight.t(), out=buffer[: len(states)]).float()
        if states.dtype != torch.float32:
            # Rounded to 8 bits a logit of 10 is off by up to 0.03; the targets' own are cheap to have exactly.
            logits[rows, targets] = (states[rows].float() * head.weight[targets].float()).sum(-1)
        logprobs = logits.log_softmax(-1)
        chosen[asked] = logprobs[rows, targets]
        greedy[asked] = chosen[asked] >= logprobs.amax(-1)[rows]
    return chosen, greedy
