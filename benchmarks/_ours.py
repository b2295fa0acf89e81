"""The worker's side of `benchmarks.evaluation`: one process that evaluates checkpoint after checkpoint.

    python -m benchmarks._ours SPEC.json

Does what the worker does between claiming a ticket and recording its slice, with the worker's own functions, but
without a database: no rows, no messages. `SPEC.json` is written by `benchmarks.evaluation`, which also sets
`BENCH_BEGAN` to the monotonic moment at which it started this process.
"""

import json
import os
import sys
import time
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from registry import samples
from registry.settings import Settings, get_settings
from worker import evaluate, fingerprint, results, tasks
from worker.engine.protocol import Engine
from worker.engine.transformers import TransformersEngine
from worker.engine.vllm import VllmEngine
from worker.scoring import EngineLM
from worker.tasks import PreparedTask, prepare_task


class Laps:
    """Cuts the life of the process into phases, without a gap."""

    def __init__(self, began: float) -> None:
        self.seconds: dict[str, float] = defaultdict(float)
        self._last = began

    def end(self, phase: str) -> None:
        """What went by since the last lap was this phase."""
        now = time.monotonic()
        self.seconds[phase] += now - self._last
        self._last = now


def make_engine(name: str, settings: Settings) -> Engine:
    """What scores; `default` is what the worker takes on this machine."""
    if name == "vllm":
        return VllmEngine(settings)
    return TransformersEngine(dtype=settings.scoring_dtype, threads=settings.engine_threads)


def main(path: Path) -> None:
    """Evaluate, store the answers, and say what took how long."""
    laps = Laps(float(os.environ["BENCH_BEGAN"]))
    laps.end("start_imports")
    spec = json.loads(path.read_text())
    tasks.SUITES = Path(spec["suites"])
    prepared = [prepare_task(name) for name in spec["tasks"]]
    laps.end("start_tasks")
    engine = make_engine(spec["engine"], get_settings())
    folders = [Path(folder) for folder in spec["folders"]]
    try:
        found = [_evaluate(engine, folder, prepared, laps, at) for at, folder in enumerate(folders)]
        about = {"name": engine.name, "version": engine.version, "dtype": engine.dtype}
    finally:
        engine.close()
    laps.end("end")
    stored = [file for file in get_settings().samples_dir.rglob("*.parquet")]
    output = {
        "phases": dict(laps.seconds),
        "engine": about,
        "checkpoints": found,
        "stored_files": len(stored),
        "stored_bytes": sum(file.stat().st_size for file in stored),
    }
    Path(spec["output"]).write_text(json.dumps(output))


def _evaluate(
    engine: Engine, folder: Path, prepared: list[PreparedTask], laps: Laps, number: int
) -> dict[str, dict[str, Any]]:
    """All tasks of one checkpoint, by name."""
    found: dict[str, dict[str, Any]] = {}
    part = engine.part("multiple_choice", folder)
    part.use(folder)
    laps.end("swap" if number else "start_engine")
    fingerprint.take(part, folder)
    laps.end("fingerprint")
    for task in prepared:
        model = EngineLM(part, folder)
        paths = [_slice(model, task, start, stop, laps, number) for start, stop in _slices(task)]
        samples.write_items(get_settings().samples_dir / "items", task.name, task.items)
        answered = samples.read(paths)
        scores = results.derive(task, answered)
        laps.end("storing")
        found[task.name] = {
            "metrics": {score.metric: score.value for score in scores},
            "num_truncated": len(model.truncated),
            "engine_seconds": model.engine_seconds,
            "choices": [max(range(len(one.sum_logprob)), key=one.sum_logprob.__getitem__) for one in answered],
            "sum_logprob": [sum(one.sum_logprob) for one in answered],
        }
    return found


def _slices(task: PreparedTask) -> Iterator[tuple[int, int]]:
    """As `worker.evaluate` cuts them: one of its first size to learn the pace, then about `slice_seconds` each."""
    start, size = 0, evaluate.FIRST_SLICE
    while start < len(task.items):
        rest = len(task.items) - start
        stop = start + (rest if rest <= 1.5 * size else size)
        began = time.monotonic()
        yield start, stop
        pace = (stop - start) / (time.monotonic() - began)
        start, size = stop, max(8, int(pace * get_settings().slice_seconds))


def _slice(model: EngineLM, task: PreparedTask, start: int, stop: int, laps: Laps, number: int) -> Path:
    answered = evaluate.ask(model, task, start, stop)
    laps.end("scoring")
    path = samples.write_slice(get_settings().samples_dir / str(number) / task.name, start, answered)
    laps.end("storing")
    return path


if __name__ == "__main__":
    main(Path(sys.argv[1]))
