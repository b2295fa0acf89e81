"""Memory that an engine takes at most, beside what `analysis.memory` computes from the config.

    python -m benchmarks.memory [--engine transformers|vllm|all] [--json FILE]

Each figure comes from a process of its own. A model of next to nothing comes first: what is left of its peak after its
own weights, cache and activations is the engine's constant, and the others are held against computed + constant.
Takes about four minutes on two cores.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from analysis import memory
from analysis.memory import Load
from registry.settings import Settings
from worker.engine.protocol import Engine, Sampling
from worker.engine.streams import stream_from
from worker.engine.transformers import TransformersEngine
from worker.engine.vllm import VllmEngine

MEGABYTE = 1e6
ANSWER_TOKENS = 8
ENGINES = ("transformers", "vllm")
KV_COPIES = {"transformers": 2.0, "vllm": 1.0}


class Model(NamedTuple):
    """A LLaMA with random weights."""

    name: str
    layers: int
    width: int
    vocabulary: int
    contexts: tuple[int, ...]


NOTHING = Model("nothing", 1, 64, 512, (128,))
MODELS = (
    Model("5M", 4, 256, 8_192, (256, 2_048)),
    Model("70M", 12, 640, 8_192, (256, 2_048)),
    Model("250M", 16, 1_024, 16_384, (256, 2_048)),
)


def main(arguments: Sequence[str]) -> None:
    """Measure and print."""
    options = _parse(arguments)
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    if options.child:
        print(json.dumps(_measure(options.engine, Path(options.child), options.context)))  # noqa: T201 - the answer
        return
    engines = ENGINES if options.engine == "all" else (options.engine,)
    with tempfile.TemporaryDirectory() as scratch:
        rows = [row for engine in engines for row in _compare(engine, Path(scratch))]
    if options.json:
        Path(options.json).write_text(json.dumps(rows, indent=1))


def _compare(engine: str, scratch: Path) -> list[dict[str, Any]]:
    base = _measure_apart(engine, _write(NOTHING, 128, scratch), 128)
    constant = base["peak"] - base["computed"]
    _say(f"{engine}: the engine itself takes {constant / MEGABYTE:,.0f} MB")
    rows = []
    for model in MODELS:
        for context in model.contexts:
            found = _measure_apart(engine, _write(model, context, scratch), context)
            computed = found["computed"] + constant
            rows.append({"engine": engine, "model": model.name, "context": context, "constant": constant, **found})
            _say(
                f"{engine}: {model.name}, {context} tokens: measured {found['peak'] / MEGABYTE:,.0f} MB, "
                f"computed {computed / MEGABYTE:,.0f} MB, ratio {computed / found['peak']:.2f} "
                f"(without the engine {found['computed'] / max(found['peak'] - constant, 1):.2f})"
            )
    return rows


def _measure_apart(engine: str, folder: Path, context: int) -> dict[str, float]:
    command = [sys.executable, "-m", "benchmarks.memory", "--engine", engine, "--child", str(folder)]
    done = subprocess.run([*command, "--context", str(context)], capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{engine} on {folder.name}: {done.stderr[-2000:]}")
    found: dict[str, float] = json.loads(done.stdout.strip().splitlines()[-1])
    return found


def _measure(name: str, folder: Path, context: int) -> dict[str, float]:
    """Peak of the process that holds the model after one whole context, and what is computed for that."""
    shape = memory.read_shape(json.loads((folder / "config.json").read_text()))
    engine: Engine
    if name == "vllm":
        engine = VllmEngine(Settings(home=folder.parent, engine_threads=1))
    else:
        engine = TransformersEngine(threads=1)
    engine.use(folder)
    prompt = [3 + at % 200 for at in range(context - ANSWER_TOKENS)]
    for _ in stream_from(engine.begin, prompt, Sampling(max_tokens=ANSWER_TOKENS, temperature=1.0, seed=1)):
        pass
    [peak] = engine.peaks()
    engine.close()
    number_bytes = memory.FP32 if peak.dtype == "float32" else memory.HALF
    load = Load(peak.kv_tokens, 1, number_bytes, peak.step_tokens, KV_COPIES[name])
    return {"peak": peak.num_bytes, "computed": memory.estimate(shape, 16, load, engine=0.0).total}


def _write(model: Model, context: int, scratch: Path) -> Path:
    folder = scratch / f"{model.name}-{context}"
    if folder.exists():
        return folder
    config = LlamaConfig(
        vocab_size=model.vocabulary,
        hidden_size=model.width,
        intermediate_size=model.width * 11 // 4 // 32 * 32,
        num_hidden_layers=model.layers,
        num_attention_heads=max(1, model.width // 64),
        num_key_value_heads=max(1, model.width // 64),
        max_position_embeddings=context,
        tie_word_embeddings=True,
        bos_token_id=0,
        eos_token_id=None,
    )
    torch.manual_seed(0)
    LlamaForCausalLM(config).to(torch.bfloat16).save_pretrained(folder)
    vocabulary = {chr(0x4E00 + at): at for at in range(model.vocabulary)}
    tokenizer = Tokenizer(models.BPE(vocabulary, [], unk_token=None))
    tokenizer.pre_tokenizer, tokenizer.decoder = pre_tokenizers.ByteLevel(), decoders.Fuse()
    PreTrainedTokenizerFast(tokenizer_object=tokenizer).save_pretrained(folder)
    return folder


def _parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--engine", choices=("all", *ENGINES), default="all")
    parser.add_argument("--json", default="", help="Also write the rows to this file.")
    parser.add_argument("--child", default="", help=argparse.SUPPRESS)
    parser.add_argument("--context", type=int, default=0, help=argparse.SUPPRESS)
    return parser.parse_args(arguments)


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main(sys.argv[1:])
