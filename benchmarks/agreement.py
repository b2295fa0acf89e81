"""vLLM and transformers on the same checkpoint: how far their log-probabilities are apart, and which one is faster.

    python -m benchmarks.agreement [--checkpoint FOLDER] [--threads 2] [--output FILE.json]

Trains the demo's model for some minutes unless a checkpoint is given, and asks both engines the same tasks of
suites/: choices of many tokens, choices of one letter after long examples, and running text.
"""

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from benchmarks._material import train
from registry.samples import Sample
from registry.settings import Settings
from worker.engine.protocol import Engine
from worker.engine.speed import machine
from worker.engine.transformers import TransformersEngine
from worker.engine.vllm import VllmEngine
from worker.evaluate import ask
from worker.scoring import EngineLM
from worker.tasks import prepare_task

CHOICES = ("english_hellaswag_panel", "english_arc_easy_panel", "starter_pairs_zh", "english_openbookqa_letter")
TASKS = (*CHOICES, "starter_bpb_zh", "starter_bpb_en")
NUM_TRAINED = 10
"""Checkpoints that are trained, of which the last one is asked; as in `benchmarks.evaluation`."""
NATS, SAME = 0.02, 0.99
"""What the engines owe each other in bf16: nats a token, and the share of items with the same choice."""


class Asked(NamedTuple):
    """What an engine said and how long it took, by task."""

    samples: dict[str, list[Sample]]
    seconds: dict[str, float]


def main(arguments: Sequence[str]) -> None:
    """Measure, print, and save as JSON."""
    options = _parse(arguments)
    with tempfile.TemporaryDirectory(prefix="grow-agreement-") as name:
        folder = Path(options.checkpoint or train(Path(name), NUM_TRAINED)[-1]).absolute()
        engines: dict[str, Engine] = {
            "vllm bfloat16": VllmEngine(Settings(home=Path(name), engine_threads=options.threads)),
            "transformers bfloat16": TransformersEngine(dtype="bfloat16", threads=options.threads),
            "transformers float32": TransformersEngine(dtype="float32", threads=options.threads),
        }
        found = {label: _ask(engine, folder) for label, engine in engines.items()}
    summary = {
        "machine": machine(),
        "checkpoint": folder.name,
        "seconds": {label: asked.seconds for label, asked in found.items()},
        "against_vllm": {
            label: _compare(found["vllm bfloat16"].samples, asked.samples)
            for label, asked in found.items()
            if label != "vllm bfloat16"
        },
    }
    _print(summary)
    if options.output:
        Path(options.output).write_text(json.dumps(summary, indent=1) + "\n")


def _ask(engine: Engine, folder: Path) -> Asked:
    asked = Asked({}, {})
    try:
        engine.use(folder)
        for name in TASKS:
            prepared = prepare_task(name)
            model = EngineLM(engine, folder)
            ask(model, prepared, 0, min(8, len(prepared.items)))  # warm
            model = EngineLM(engine, folder)
            began = time.perf_counter()
            asked.samples[name] = ask(model, prepared, 0, len(prepared.items))
            asked.seconds[name] = time.perf_counter() - began
    finally:
        engine.close()
    return asked


def _compare(ours: dict[str, list[Sample]], theirs: dict[str, list[Sample]]) -> dict[str, Any]:
    """Differences of the mean log-probability a token of each choice, in nats, and the share of same choices."""
    per_token = {name: _differences(ours[name], theirs[name]) for name in TASKS}
    same = {
        name: float(np.mean([_best(a) == _best(b) for a, b in zip(ours[name], theirs[name], strict=True)]))
        for name in CHOICES
    }
    together = np.concatenate(list(per_token.values()))
    return {
        "nats_a_token": {name: _spread(values) for name, values in (*per_token.items(), ("all", together))},
        "same_choice": same,
        "same_choice_all": float(np.average(list(same.values()), weights=[len(ours[name]) for name in CHOICES])),
    }


def _differences(ours: Sequence[Sample], theirs: Sequence[Sample]) -> np.ndarray[Any, np.dtype[np.float64]]:
    return np.array(
        [
            abs(one - other) / tokens
            for a, b in zip(ours, theirs, strict=True)
            for one, other, tokens in zip(a.sum_logprob, b.sum_logprob, a.num_tokens, strict=True)
        ]
    )


def _spread(values: np.ndarray[Any, np.dtype[np.float64]]) -> dict[str, float]:
    return {"mean": float(values.mean()), "p99": float(np.quantile(values, 0.99)), "max": float(values.max())}


def _best(sample: Sample) -> int:
    return int(np.argmax(sample.sum_logprob))


def _print(summary: dict[str, Any]) -> None:
    _say(f"{summary['checkpoint']} on {summary['machine']}")
    for label, seconds in summary["seconds"].items():
        parts = ", ".join(f"{name.split('_', 1)[1]} {value:.1f}" for name, value in seconds.items())
        _say(f"{label}: {sum(seconds.values()):.1f} s ({parts})")
    for label, found in summary["against_vllm"].items():
        nats, same = found["nats_a_token"]["all"], found["same_choice_all"]
        _say(
            f"vLLM and {label}: {nats['mean']:.4f} nats a token apart (99%: {nats['p99']:.4f}, at most "
            f"{nats['max']:.4f}), same choice on {same:.1%} of the items"
        )
    found = summary["against_vllm"]["transformers bfloat16"]
    met = found["nats_a_token"]["all"]["mean"] <= NATS and found["same_choice_all"] >= SAME
    _say(f"aim: {NATS} nats and {SAME:.0%} in bf16: {'met' if met else 'MISSED'}")


def _parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.agreement", description=__doc__.partition("\n")[0])
    parser.add_argument("--checkpoint", help="A folder to use instead of training one.")
    parser.add_argument("--threads", type=int, default=2, help="Processor threads of each engine.")
    parser.add_argument("--output", help="Where to save the figures as JSON.")
    return parser.parse_args(arguments)


def _say(sentence: str) -> None:
    print(sentence, flush=True)  # noqa: T201 - this is a program for the terminal


if __name__ == "__main__":
    main(sys.argv[1:])
