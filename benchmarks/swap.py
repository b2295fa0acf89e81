"""Seconds to go from one checkpoint to the next, and scores a second: the engines side by side.

    python -m benchmarks.swap [--threads 1] [--items 500] [--layers 4] [--width 192] [--engine vllm]

Makes two checkpoints with random weights of the demo's shape. The weights do not matter for speed.
Takes about two minutes on two cores: the vLLM engine is started twice, once more than the site ever does.
"""

import argparse
import os
import random
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import psutil
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from registry.settings import Settings
from worker.engine.protocol import Engine, Sampling, ScoreRequest
from worker.engine.transformers import TransformersEngine
from worker.engine.vllm import VllmEngine

VOCAB_SIZE = 8_192
CONTEXT_LENGTH = 256
CHOICES = 4


def main(arguments: Sequence[str]) -> None:
    """Measure and print."""
    options = _parse(arguments)
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    torch.set_num_threads(options.threads)
    with tempfile.TemporaryDirectory() as name:
        folders = [_make_checkpoint(Path(name) / f"step-{seed}", options, seed) for seed in (1, 2)]
        requests = _make_requests(options.items)
        tokens = sum(len(request.context) + len(request.continuation) for request in requests)
        _say(f"{options.items} items with {CHOICES} choices: {len(requests):,} requests, {tokens:,} tokens")
        if options.engine in ("all", "vllm"):
            _measure_vllm(Settings(home=Path(name), engine_threads=options.threads), folders, requests)
        if options.engine in ("all", "transformers"):
            _measure_transformers(folders, requests)


def _measure_vllm(settings: Settings, folders: list[Path], requests: list[ScoreRequest]) -> None:
    engine = VllmEngine(settings)
    try:
        engine.use(folders[0])
        _say(f"vllm {engine.version}: started in {engine.start_seconds:.1f} s")
        swaps = []
        for round_number in range(1, 7):
            engine.use(folders[round_number % 2])
            swaps.append(engine.swap_seconds)
        _say(f"vllm: swapped in place in {sorted(swaps)[len(swaps) // 2]:.3f} s (median of {len(swaps)})")
        _measure_scores(engine, requests)
        _measure_answers(engine)
        _say(f"vllm: {_memory_mb(engine.pid)} MB in its processes (proportional set size)")
        engine.close()
        engine.use(folders[1])
        _say(f"vllm: restarted for another checkpoint in {engine.start_seconds:.1f} s")
    finally:
        engine.close()


def _measure_transformers(folders: list[Path], requests: list[ScoreRequest]) -> None:
    engine = TransformersEngine()
    engine.use(folders[0])
    started = time.monotonic()
    engine.use(folders[1])
    _say(f"transformers {engine.version}: loaded another checkpoint in {time.monotonic() - started:.3f} s")
    _measure_scores(engine, requests)
    _measure_answers(engine)


def _measure_scores(engine: Engine, requests: list[ScoreRequest]) -> None:
    engine.score(requests[:64])
    started = time.monotonic()
    engine.score(requests)
    seconds = time.monotonic() - started
    _say(f"{engine.name}: scored {len(requests) / seconds:,.0f} requests/s ({seconds:.1f} s)")


def _measure_answers(engine: Engine) -> None:
    started = time.monotonic()
    answers = engine.generate(
        [[0, 5 + number] for number in range(8)], Sampling(max_tokens=64, temperature=1.0, seed=1)
    )
    seconds = time.monotonic() - started
    tokens = sum(answer.completion_tokens for answer in answers)
    _say(f"{engine.name}: generated {tokens / seconds:,.0f} tokens/s in 8 answers")


def _memory_mb(group: int | None) -> int:
    found = 0
    for process in psutil.process_iter():
        try:
            if os.getpgid(process.pid) == group:
                found += process.memory_full_info().pss
        except (psutil.Error, ProcessLookupError):
            continue  # ended meanwhile
    return found // 2**20


def _make_requests(num_items: int) -> list[ScoreRequest]:
    draw = random.Random(0)
    requests = []
    for _ in range(num_items):
        context = [draw.randrange(3, VOCAB_SIZE) for _ in range(draw.randrange(40, 90))]
        for _ in range(CHOICES):
            requests.append(
                ScoreRequest(context, [draw.randrange(3, VOCAB_SIZE) for _ in range(draw.randrange(8, 30))])
            )
    return requests


def _make_checkpoint(folder: Path, options: argparse.Namespace, seed: int) -> Path:
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=VOCAB_SIZE,
        hidden_size=options.width,
        intermediate_size=options.width * 8 // 3 // 32 * 32,
        num_hidden_layers=options.layers,
        num_attention_heads=options.width // 32,
        num_key_value_heads=options.width // 32,
        max_position_embeddings=CONTEXT_LENGTH,
        tie_word_embeddings=True,
        bos_token_id=0,
        eos_token_id=1,
        pad_token_id=2,
    )
    LlamaForCausalLM(config).to(torch.bfloat16).save_pretrained(folder)
    vocabulary = {f"token{number}": number for number in range(VOCAB_SIZE)}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="token3"))
    tokenizer.pre_tokenizer, tokenizer.decoder = pre_tokenizers.Whitespace(), decoders.Fuse()
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="token0", eos_token="token1").save_pretrained(folder)
    return folder


def _parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.swap", description=__doc__)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--items", type=int, default=500)
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--width", type=int, default=192)
    parser.add_argument("--engine", choices=("all", "vllm", "transformers"), default="all")
    return parser.parse_args(arguments)


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main(sys.argv[1:])
