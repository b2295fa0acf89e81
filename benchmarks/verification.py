"""How fast a checkpoint's bytes are verified, and in how much memory: `python -m benchmarks.verification`.

Verification hashes a weight file, checks its header and looks for NaN and infinity in one pass. Beside it, in the same
run and over the same file in the page cache, go `sha256sum` and, where it is there, `openssl dgst -sha256`, which
use the same hash and nothing more. Then a sparse file of 20 GB tells whether memory stays flat.
"""

import argparse
import json
import resource
import shutil
import statistics
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from registry import scan, tensors

GIGABYTE = 10**9
PEERS = {"sha256sum": ["sha256sum"], "openssl": ["openssl", "dgst", "-sha256"]}
MEASURE = "import sys; from benchmarks.verification import pass_over; pass_over(sys.argv[1])"


def write_weights(path: Path, size: int, *, sparse: bool = False) -> None:
    """A safetensors file of bf16 tensors: random finite numbers, or a hole of zeros."""
    rows = size // (2 * 4096)
    header = {"model.weight": {"dtype": "BF16", "shape": [rows, 4096], "data_offsets": [0, rows * 8192]}}
    text = json.dumps(header).encode()
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        if sparse:
            file.truncate(8 + len(text) + rows * 8192)
            return
        draw = np.random.default_rng(0)
        for begin in range(0, rows, 1024):
            numbers = draw.standard_normal((min(1024, rows - begin), 4096), np.float32)
            file.write((numbers.view(np.uint32) >> 16).astype(np.uint16).tobytes())


def pass_over(name: str) -> None:
    """What a worker does with a weight file; prints the seconds and the peak of this process's memory in bytes."""
    began = time.perf_counter()
    header = tensors.read_header(Path(name))
    found = scan.read_through(Path(name), header)
    assert not found.not_finite
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    sys.stdout.write(json.dumps({"seconds": time.perf_counter() - began, "peak": peak, "sha256": found.sha256}) + "\n")


def run(command: list[str]) -> str:
    """The output of a program that must succeed."""
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def verify(path: Path) -> dict[str, float]:
    """One pass in a fresh process."""
    found: dict[str, float] = json.loads(run([sys.executable, "-c", MEASURE, str(path)]))
    return found


def seconds_of(work: Callable[[], object]) -> float:
    """How long it takes."""
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def compare(path: Path, rounds: int) -> dict[str, list[float]]:
    """Seconds of each, in turns, so that whatever else the machine does meets all of them alike."""
    peers = {name: command for name, command in PEERS.items() if shutil.which(command[0])}
    took: dict[str, list[float]] = {name: [] for name in ("verification", *peers)}
    for _ in range(rounds):
        for name, command in peers.items():
            took[name].append(seconds_of(lambda command=command: run([*command, str(path)])))  # type: ignore[misc]
        took["verification"].append(verify(path)["seconds"])
    return took


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--gigabytes", type=float, default=2.0)
    parser.add_argument("--sparse-gigabytes", type=float, default=20.0)
    parser.add_argument("--rounds", type=int, default=5)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="verification-") as folder:
        path = Path(folder) / "model.safetensors"
        write_weights(path, int(asked.gigabytes * GIGABYTE))
        sys.stdout.write(f"{path.stat().st_size / GIGABYTE:.2f} GB, {asked.rounds} rounds, medians:\n")
        took = compare(path, asked.rounds)
        for name, seconds in took.items():
            middle = statistics.median(seconds)
            ratio = statistics.median(a / b for a, b in zip(seconds, took["verification"], strict=True))
            speed = path.stat().st_size / middle / GIGABYTE
            sys.stdout.write(f"  {name:12s} {speed:5.2f} GB/s, verification is {ratio:4.2f} times as fast\n")
        path.unlink()
        write_weights(path, int(asked.sparse_gigabytes * GIGABYTE), sparse=True)
        found = verify(path)
        speed = path.stat().st_size / found["seconds"] / GIGABYTE
        size, peak = path.stat().st_size / GIGABYTE, found["peak"] / 1e6
        sys.stdout.write(f"{size:.0f} GB sparse: {speed:.2f} GB/s, peak {peak:.0f} MB\n")


if __name__ == "__main__":
    main()
