"""What 8 and 4 bit of a checkpoint cost: seconds, memory, bytes, and how much worse the answers are.

    python -m benchmarks.quantize [--source FOLDER] [--tasks NAME,NAME] [--threads 1] [--output FILE.json]

Trains the demo's model a little unless a checkpoint is given, makes both forms as the worker's job does, each in a
process of its own, and evaluates all three on tasks of the starter suite. Aim: 60 s for each form.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import psutil

from benchmarks._material import train
from registry import quantizations, quantized
from worker import calibration
from worker.engine.transformers import TransformersEngine
from worker.evaluate import run_evaluation

AIM_SECONDS = 60.0


def main(arguments: Sequence[str]) -> None:
    """Measure, print, and save as JSON."""
    options = _parse(arguments)
    with tempfile.TemporaryDirectory(prefix="grow-quantize-") as name:
        scratch = Path(name)
        source = Path(options.source) if options.source else train(scratch, 4)[-1]
        forms = {16: source}
        figures: dict[str, Any] = {"load": psutil.getloadavg()[0], "forms": {}}
        for bits in quantizations.PRECISIONS:
            forms[bits] = scratch / f"{bits}bit"
            figures["forms"][bits] = _quantize(source, forms[bits], bits, options.threads)
            _say(f"{bits} bit: {json.dumps(figures['forms'][bits])}")
        figures["evaluation"] = _evaluate(forms, options.tasks.split(","), options.threads)
        figures["bytes"] = {bits: _bytes(folder) for bits, folder in forms.items()}
    _say(json.dumps(figures, indent=1))
    if options.output:
        Path(options.output).write_text(json.dumps(figures, indent=1) + "\n")
    if any(form["seconds"] > AIM_SECONDS for form in figures["forms"].values()):
        raise SystemExit(f"A form took more than {AIM_SECONDS:.0f} s.")


def _quantize(source: Path, target: Path, bits: int, threads: int) -> dict[str, Any]:
    config = json.loads((source / "config.json").read_text())
    events, request = target.with_suffix(".events"), target.with_suffix(".json")
    group_size = quantized.choose_group_size(config) if bits == 4 else quantized.WHOLE_ROW
    wanted = {"source": str(source), "target": str(target), "events": str(events), "bits": bits}
    wanted |= {"group_size": group_size, "shares": calibration.shares({})[0], "threads": threads, "device": "cpu"}
    wanted |= {"scoring_dtype": "auto", "max_loss": quantizations.MAX_LOSS[bits]}
    request.write_text(json.dumps(wanted))
    began = time.monotonic()
    process = psutil.Popen(
        [sys.executable, "-m", "worker.quantizing", str(request)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    peak, spent = 0, 0.0
    while process.poll() is None:
        try:
            peak, times = max(peak, process.memory_info().rss), process.cpu_times()
            spent = times.user + times.system
        except psutil.NoSuchProcess:
            break
        time.sleep(0.2)
    last = json.loads(events.read_text().splitlines()[-1])
    if "result" not in last:
        raise SystemExit(f"Quantizing failed: {last}")
    return {
        "seconds": round(time.monotonic() - began, 1),
        "processor_seconds": round(spent, 1),
        "peak_mb": peak // 10**6,
        "check": last["result"]["check"],
    }


def _evaluate(forms: dict[int, Path], tasks: Sequence[str], threads: int) -> dict[str, Any]:
    engine = TransformersEngine(threads=threads)
    found: dict[str, Any] = {}
    try:
        for task in tasks:
            for bits, folder in forms.items():
                began = time.monotonic()
                whole = run_evaluation(engine, folder, task)
                values = {score.metric: round(score.value, 4) for score in whole.results}
                found.setdefault(task, {})[bits] = {"seconds": round(time.monotonic() - began, 1), **values}
            _say(f"{task}: {json.dumps(found[task])}")
    finally:
        engine.close()
    return found


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def _bytes(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.glob("*.safetensors"))


def _parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="benchmarks.quantize", description=__doc__)
    parser.add_argument("--source", default="", help="a checkpoint folder; empty trains one")
    parser.add_argument("--tasks", default="starter_bpb_zh,starter_bpb_en,starter_pairs_zh")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--output", default="")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    main(sys.argv[1:])
