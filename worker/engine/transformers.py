"""An engine inside this process, over transformers: where vLLM cannot be installed, and as its peer in tests."""

import threading
from collections.abc import Generator, Iterator, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from transformers import LlamaForCausalLM

from worker.engine.protocol import Delta, EngineError, Generation, Sampling, Score, ScoreRequest
from worker.engine.shape import fit_prompt, fit_score_request, read_shape
from worker.engine.tokenizer import load_tokenizer

TOKENS_PER_BATCH = 8_192
REPLACEMENT = "\ufffd"
"""What decoding gives for the first bytes of a character whose rest has not come yet."""


class TransformersEngine:
    """Loads a checkpoint in bf16; scoring is batched, and the head sees only the rows that are asked for."""

    name = "transformers"
    dtype = "bfloat16"

    def __init__(self) -> None:
        self.version = version("transformers")
        self.resident: Path | None = None
        self.num_starts = 0
        self._device = "cuda" if torch.cuda.is_available() else "cpu"
        self._model: Any = None
        self._lock = threading.Lock()

    def use(self, folder: Path) -> None:
        """Load the folder.

        Raises:
            EngineError: it cannot be loaded.
        """
        folder = folder.absolute()
        with self._lock:
            if self.resident == folder:
                return
            read_shape(folder)
            self._model = self.resident = None
            try:
                model = LlamaForCausalLM.from_pretrained(
                    str(folder), dtype=torch.bfloat16, local_files_only=True, use_safetensors=True
                )
            except (OSError, ValueError, RuntimeError) as error:
                raise EngineError(f"The checkpoint {folder.name} cannot be loaded: {error}") from error
            self._model = model.eval().to(self._device)
            self.resident = folder
            self.num_starts += 1

    def score(self, requests: Sequence[ScoreRequest]) -> list[Score]:
        """Right-padded batches of similar length: under a causal mask the padding touches nothing."""
        model = self._loaded()
        limit = model.config.max_position_embeddings + 1
        fitted = [fit_score_request(request, limit) for request in requests]
        order = sorted(range(len(fitted)), key=lambda index: -_length(fitted[index]))
        scores: dict[int, Score] = {}
        start = 0
        while start < len(order):
            size = max(1, TOKENS_PER_BATCH // _length(fitted[order[start]]))
            batch = order[start : start + size]
            with torch.inference_mode():
                answers = self._score_batch([fitted[index] for index in batch])
            scores.update(zip(batch, answers, strict=True))
            start += size
        return [scores[index] for index in range(len(fitted))]

    def generate(self, prompts: Sequence[list[int]], sampling: Sampling) -> list[Generation]:
        """One prompt after the other."""
        return [_joined(list(self.stream(prompt, sampling))) for prompt in prompts]

    def stream(self, prompt: list[int], sampling: Sampling) -> Generator[Delta, None, None]:
        """A piece for each token that completes a character; what may become a stop string is held back."""
        model = self._loaded()
        fitted = fit_prompt(prompt, sampling, model.config.max_position_embeddings)
        tokenizer = load_tokenizer(self.resident) if self.resident else None
        held_back = max((len(stop) - 1 for stop in sampling.stop), default=0)
        token_ids: list[int] = []
        text, sent, reason = "", 0, "length"
        for token_id in self._draw(fitted.token_ids, fitted.sampling):
            token_ids.append(token_id)
            if token_id in _end_ids(model.config):
                reason = "stop"
                break
            text = str(tokenizer.decode(token_ids, skip_special_tokens=True)) if tokenizer else ""
            cut = min((at for at in (text.find(stop) for stop in sampling.stop) if at >= 0), default=-1)
            if cut >= 0:
                text, reason = text[:cut], "stop"
                break
            ready = len(text.rstrip(REPLACEMENT)) - held_back
            if ready > sent:
                yield Delta(text[sent:ready])
                sent = ready
        if len(text) > sent:
            yield Delta(text[sent:])
        yield Delta("", reason, len(fitted.token_ids), len(token_ids))

    def close(self) -> None:
        """Let go of the weights."""
        with self._lock:
            self._model = self.resident = None

    def _loaded(self) -> Any:
        if self._model is None:
            raise EngineError("No checkpoint is resident; call use() first.")
        return self._model

    def _score_batch(self, requests: list[ScoreRequest]) -> list[Score]:
        rows = [request.context + request.continuation[:-1] for request in requests]
        width = max(len(row) for row in rows)
        inputs = torch.tensor([row + [0] * (width - len(row)) for row in rows], device=self._device)
        mask = torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in rows], device=self._device)
        hidden = self._model.model(input_ids=inputs, attention_mask=mask, use_cache=False).last_hidden_state
        starts = [len(request.context) - 1 for request in requests]
        asked = [
            hidden[index, start : start + len(request.continuation)]
            for index, (start, request) in enumerate(zip(starts, requests, strict=True))
        ]
        logits = self._model.lm_head(torch.cat(asked)).float()
        targets = torch.tensor([token for request in requests for token in request.continuation], device=self._device)
        logprobs = torch.log_softmax(logits, dim=-1)
        chosen = logprobs.gather(1, targets[:, None])[:, 0]
        greedy = chosen >= logprobs.max(dim=-1).values
        lengths = [len(request.continuation) for request in requests]
        return [
            Score(part.tolist(), bool(hits.all()))
            for part, hits in zip(chosen.split(lengths), greedy.split(lengths), strict=True)
        ]

    def _next_logits(self, token_ids: list[int], cache: Any) -> Any:
        inputs = torch.tensor([token_ids], device=self._device)
        with torch.inference_mode():
            return self._loaded()(input_ids=inputs, past_key_values=cache, use_cache=True, logits_to_keep=1)

    def _draw(self, prompt: list[int], sampling: Sampling) -> Iterator[int]:
        generator = torch.Generator(device=self._device)
        if sampling.seed is None:
            generator.seed()
        else:
            generator.manual_seed(sampling.seed)
        seen = list(prompt)
        fresh, cache = prompt, None
        for _ in range(sampling.max_tokens):
            output = self._next_logits(fresh, cache)
            cache = output.past_key_values
            token_id = _choose(output.logits[0, -1].float(), seen, sampling, generator)
            seen.append(token_id)
            fresh = [token_id]
            yield token_id


def _choose(logits: Any, seen: list[int], sampling: Sampling, generator: Any) -> int:
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


def _joined(deltas: list[Delta]) -> Generation:
    last = deltas[-1]
    return Generation(
        text="".join(delta.text for delta in deltas),
        finish_reason=last.finish_reason or "length",
        prompt_tokens=last.prompt_tokens or 0,
        completion_tokens=last.completion_tokens or 0,
    )


def _end_ids(config: Any) -> frozenset[int]:
    end = config.eos_token_id
    return frozenset(end if isinstance(end, list) else [] if end is None else [end])


def _length(request: ScoreRequest) -> int:
    return len(request.context) + len(request.continuation)
