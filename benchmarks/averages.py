"""How fast the mean of five checkpoints is written, and how much memory that takes, however large they are.

    python benchmarks/averages.py [--gigabytes 1] [--parents 5]

The parents are sparse files in bfloat16, so that reading costs no disk. Their layers are like those of a LLaMA model,
with one embedding that is larger than what is held at once.
"""

import argparse
import json
import struct
import sys
import tempfile
import threading
import time
from pathlib import Path

from worker.average import write_mean

WIDTH = 4096


class Silent:
    """A report that nobody reads."""

    def __call__(self, line: str = "", progress: float | None = None) -> None:
        """Nothing."""

    def check(self) -> None:
        """Go on."""


def write_parent(folder: Path, num_bytes: int) -> None:
    """A folder with one weight file of about so many bytes, all of them zero."""
    folder.mkdir()
    rows = num_bytes // (2 * WIDTH)
    shapes = {"model.embed_tokens.weight": rows // 4} | {f"model.layers.{n}.weight": rows // 32 for n in range(24)}
    header, position = {}, 0
    for name, height in shapes.items():
        end = position + height * WIDTH * 2
        header[name] = {"dtype": "BF16", "shape": [height, WIDTH], "data_offsets": [position, end]}
        position = end
    raw = json.dumps(header).encode()
    with (folder / "model.safetensors").open("wb") as file:
        file.write(struct.pack("<Q", len(raw)) + raw)
        file.truncate(8 + len(raw) + position)
    (folder / "config.json").write_text("{}")


def own_memory() -> int:
    """Bytes of this process that are no pages of files."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("RssAnon"))


def main() -> None:
    """Measure once and print a line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--gigabytes", type=float, default=1.0)
    parser.add_argument("--parents", type=int, default=5)
    asked = parser.parse_args()
    over, peak = threading.Event(), [0]

    def watch() -> None:
        while not over.wait(0.02):
            peak[0] = max(peak[0], own_memory())

    with tempfile.TemporaryDirectory() as place:
        folders = [Path(place) / str(number) for number in range(asked.parents)]
        for folder in folders:
            write_parent(folder, int(asked.gigabytes * 1e9))
        before = own_memory()
        watcher = threading.Thread(target=watch)
        watcher.start()
        began = time.perf_counter()
        write_mean(folders, Path(place) / "mean", Silent())  # type: ignore[arg-type]
        seconds = time.perf_counter() - began
        over.set()
        watcher.join()
    read = asked.parents * asked.gigabytes
    grown = (peak[0] - before) / 1e6
    sys.stdout.write(f"{read:.1f} GB read in {seconds:.1f} s, {read / seconds:.2f} GB/s; +{grown:.0f} MB of memory\n")


if __name__ == "__main__":
    main()
