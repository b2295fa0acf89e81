"""An engine inside this process, over transformers: scores on processors, and answers where vLLM is not installed."""

import os
import threading
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError
from transformers import LlamaForCausalLM

from registry import quantized
from registry.errors import Invalid
from worker.engine.drawing import choose, end_ids, join, make_generator, token_row
from worker.engine.likelihood import score_rows
from worker.engine.memory import keep_freed_memory
from worker.engine.packed import load_quantized
from worker.engine.peak import Peak, resident_peak
from worker.engine.prefixes import Row as PackedRow
from worker.engine.prefixes import batches, pack
from worker.engine.protocol import Abort, Asked, Delta, EngineError, Generation, Row, Sampling, Score, ScoreRequest
from worker.engine.reading import read_rows
from worker.engine.shape import ModelShape, fit_prompt, fit_score_request, read_shape
from worker.engine.streams import begin_in_thread
from worker.engine.tokenizer import load_tokenizer
from worker.engine.weights import copy_weights

REPLACEMENT = "\ufffd"
"""What decoding gives for the first bytes of a character whose rest has not come yet."""
DTYPES = {"bfloat16": torch.bfloat16, "float32": torch.float32}
MAX_LANES = 16


class Sizes(NamedTuple):
    """How much is computed at once; the memory that scoring takes beside the weights grows with these."""

    batch_tokens: int
    row_tokens: int
    logits: int


CPU_SIZES = Sizes(batch_tokens=1_536, row_tokens=4_096, logits=2**21)
"""A lane then holds some 30 MB for the demo's model; larger batches leave the caches and are slower."""
GPU_SIZES = Sizes(batch_tokens=32_768, row_tokens=8_192, logits=2**28)


class TransformersEngine:
    """Scores in lanes: each thread computes batches of its own on one core.

    Threads inside each operation would wait for each other at every step; with a trainer on the
    same two cores that cost four times the processor time (AMD EPYC, torch 2.13).
    """

    name = "transformers"

    def __init__(self, *, dtype: str = "auto", threads: int = 0) -> None:
        """`dtype` is auto, bfloat16 or float32; `threads` 0 leaves their number to torch.

        Raises:
            ValueError: no such dtype.
        """
        self.version = version("transformers")
        self._device = "cuda" if torch.cuda.is_available() else "cpu"
        self.dtype = _resolve_dtype(dtype, self._device)
        self.resident: Path | None = None
        self.num_starts = 0
        self.num_loads = 0
        self.start_seconds = 0.0
        """How long the last load took."""
        self.swap_seconds = 0.0
        """How long the last swap in place took."""
        self._longest = 0
        """Tokens of the longest answer since the weights were loaded, with its prompt."""
        self._threads = threads or torch.get_num_threads()
        self._num_lanes = min(self._threads, MAX_LANES) if self._device == "cpu" else 1
        self._sizes = CPU_SIZES if self._device == "cpu" else GPU_SIZES
        self._model: Any = None
        self._shape: ModelShape | None = None
        self._lanes: ThreadPoolExecutor | None = None
        self._lock = threading.Lock()
        if self._device == "cpu":
            keep_freed_memory()

    def use(self, folder: Path) -> None:
        """Make `folder` resident: its weights are copied over those of a model of the same shape, else it is loaded.

        Raises:
            EngineError: it cannot be loaded.
        """
        folder = folder.absolute()
        with self._lock:
            if self.resident == folder:
                return
            shape = read_shape(folder)
            started = time.monotonic()
            self.resident = None  # until it is whole
            try:
                if self._can_swap_to(shape):
                    copy_weights(self._model, folder)
                    self.swap_seconds = time.monotonic() - started
                else:
                    self._load(folder)
                    self.start_seconds = time.monotonic() - started
            except (OSError, ValueError, KeyError, RuntimeError, SafetensorError, Invalid) as error:
                self._model = self._shape = None
                raise EngineError(f"The checkpoint {folder.name} cannot be loaded: {error}") from error
            self._shape = shape
            self.resident = folder
            self.num_loads += 1

    def score(self, requests: Sequence[ScoreRequest]) -> list[Score]:
        """What the requests have in common is computed once; see `worker.engine.prefixes`."""
        config = self._loaded().config
        limit = config.max_position_embeddings + 1  # the last token is only looked up
        fitted = [fit_score_request(request, limit) for request in requests]
        rows = pack(fitted, width=config.hidden_size, max_tokens=self._sizes.row_tokens)
        work = partial(score_rows, self._model, max_logits=self._sizes.logits)
        scores: dict[int, Score] = {}
        for found in self._map(work, batches(rows, self._sizes.batch_tokens)):
            scores.update(found)
        return [scores[index] for index in range(len(fitted))]

    def generate(self, prompts: Sequence[list[int]], sampling: Sampling) -> list[Generation]:
        """One prompt after the other."""
        return [join(list(self.stream(prompt, sampling))) for prompt in prompts]

    def stream(self, prompt: list[int], sampling: Sampling) -> Generator[Delta, None, None]:
        """A piece for each token that completes a character; what may become a stop string is held back."""
        model = self._loaded()
        fitted = fit_prompt(prompt, sampling, model.config.max_position_embeddings)
        self._longest = max(self._longest, len(fitted.token_ids) + fitted.sampling.max_tokens)
        tokenizer = load_tokenizer(self.resident) if self.resident else None
        held_back = max((len(stop) - 1 for stop in sampling.stop), default=0)
        token_ids: list[int] = []
        text, sent, reason = "", 0, "length"
        rows: list[Any] | None = None if sampling.logprobs is None else []
        for token_id, logits in self._draw(fitted.token_ids, fitted.sampling):
            token_ids.append(token_id)
            if token_id in end_ids(model.config):
                reason = "stop"
                break
            if rows is not None and tokenizer:
                rows.append(token_row(logits, token_id, sampling.logprobs or 0, tokenizer))
            text = str(tokenizer.decode(token_ids, skip_special_tokens=True)) if tokenizer else ""
            cut = min((at for at in (text.find(stop) for stop in sampling.stop) if at >= 0), default=-1)
            if cut >= 0:
                text, reason = text[:cut], "stop"
                break
            ready = len(text.rstrip(REPLACEMENT)) - held_back
            if ready > sent:
                yield Delta(text[sent:ready], tokens=rows)
                sent, rows = ready, rows and []
        if len(text) > sent:
            yield Delta(text[sent:])
        yield Delta("", reason, len(fitted.token_ids), len(token_ids), tokens=rows)

    def begin(self, asked: Sequence[Asked]) -> list[Abort]:
        """Start each answer in a thread of its own."""
        return [begin_in_thread(self.stream, one) for one in asked]

    def read(self, prompts: Sequence[list[int]], num_likeliest: int) -> list[list[Row]]:
        """One prompt after the other, on all threads."""
        torch.set_num_threads(self._threads)
        model = self._loaded()
        tokenizer = load_tokenizer(self.resident) if self.resident else None
        return [read_rows(model, tokenizer, one, num_likeliest, max_logits=self._sizes.logits) for one in prompts]

    def part(self, output_type: str, folder: Path) -> "TransformersEngine":
        """Does everything itself."""
        return self

    def peaks(self) -> list[Peak]:
        """On a GPU what torch has allocated at most; on processors what the whole process has, this engine with it."""
        if self.resident is None:
            return []
        on_gpu = self._device == "cuda"
        num_bytes = torch.cuda.max_memory_allocated() if on_gpu else resident_peak(os.getpid())
        longest = self._longest
        return [Peak(self.name, self.version, self.dtype, self._device, self.resident, num_bytes, longest, longest)]

    def close(self) -> None:
        """Let go of the weights and the lanes."""
        with self._lock:
            self._model = self._shape = self.resident = None
            lanes, self._lanes = self._lanes, None
        if lanes is not None:
            lanes.shutdown()

    def _loaded(self) -> Any:
        if self._model is None:
            raise EngineError("No checkpoint is resident; call use() first.")
        return self._model

    def _can_swap_to(self, shape: ModelShape) -> bool:
        if self._model is None or self._shape is None or not self._shape.can_swap_to(shape):
            return False
        # Files may name their tensors otherwise than the model does; loading them whole knows how.
        return {name for name, _ in self._model.named_parameters()} <= set(shape.tensors)

    def _load(self, folder: Path) -> None:
        self._model = self._shape = None
        dtype = DTYPES[self.dtype]
        quantization = quantized.read(folder)
        if quantization is None:
            model = LlamaForCausalLM.from_pretrained(
                str(folder), dtype=dtype, local_files_only=True, use_safetensors=True
            )
        else:
            model = load_quantized(folder, quantization, dtype)
        self._model = model.eval().to(self._device)
        self._longest = 0
        self.num_starts += 1

    def _map(
        self, work: Callable[[Sequence[PackedRow]], dict[int, Score]], pieces: Iterator[Sequence[PackedRow]]
    ) -> Iterator[dict[int, Score]]:
        if self._num_lanes == 1:
            return map(work, pieces)
        with self._lock:
            if self._lanes is None:
                # torch keeps the number of threads for each thread apart.
                self._lanes = ThreadPoolExecutor(
                    self._num_lanes, "lane", torch.set_num_threads, (self._threads // self._num_lanes,)
                )
            return self._lanes.map(work, pieces)

    def _draw(self, prompt: list[int], sampling: Sampling) -> Iterator[tuple[int, torch.Tensor]]:
        torch.set_num_threads(self._threads)  # this thread's; the lanes keep theirs
        generator = make_generator(sampling.seed, self._device)
        seen = list(prompt)
        fresh, cache = prompt, None
        for _ in range(sampling.max_tokens):
            with torch.inference_mode():
                inputs = torch.tensor([fresh], device=self._device)
                output = self._loaded()(input_ids=inputs, past_key_values=cache, use_cache=True, logits_to_keep=1)
            cache = output.past_key_values
            logits = output.logits[0, -1].float()
            token_id = choose(logits, seen, sampling, generator)
            seen.append(token_id)
            fresh = [token_id]
            yield token_id, logits


def _resolve_dtype(name: str, device: str) -> str:
    if name == "auto":
        return "bfloat16" if device == "cuda" or _has_bf16_products() else "float32"
    if name not in DTYPES:
        raise ValueError(f"GROW_SCORING_DTYPE is {name!r}; it may be auto, {' or '.join(DTYPES)}.")
    return name


def _has_bf16_products() -> bool:
    """Whether this processor multiplies bf16 by itself (AVX512-BF16, AMX); without, it is slower than fp32."""
    has = torch.cpu.get_capabilities()
    return bool(has.get("avx512_bf16") or has.get("amx_bf16"))
