"""Twenty million answers, sliced by item and by checkpoint: bytes on disk, and how long a page waits.

    python -m benchmarks.samples [--output samples.json] [--folder FOLDER]

Makes 1,000 checkpoints that answered 20,000 items of 60 tasks (a model of growing ability, four choices an
item), files as the worker writes them and a copy by item in its worst state (15 checkpoints not covered), reads
them as the pages do, and deletes everything again. Cold means that the files are not in the page cache.
"""

import argparse
import hashlib
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from registry import history, parquet, samples
from registry.history import Source

NUM_CHOICES, SLICE = 4, 256
NOT_COVERED = history.MIN_BATCH - 1


class Size(NamedTuple):
    """How much there is."""

    checkpoints: int
    tasks: int
    items: int
    """Of all tasks together."""

    def of_task(self, task: int) -> int:
        """Items of one task."""
        return self.items // self.tasks + (task < self.items % self.tasks)


def make_task(root: Path, size: Size, task: int) -> float:
    """Every checkpoint's answers to one task, and the copy by item; returns the seconds of the copy."""
    random, n = np.random.default_rng(task), size.of_task(task)
    target = random.integers(NUM_CHOICES, size=n).astype(np.int32)
    num_tokens = random.integers(1, 40, (n, NUM_CHOICES)).astype(np.int32)
    fixed = {
        "item": pa.array(random.integers(2**63, size=n, dtype=np.uint64)),
        "position": pa.array(np.arange(n, dtype=np.int32)),
        "target": pa.array(target),
        "num_tokens": _lists(num_tokens),
        "num_bytes": _lists(num_tokens * 4 + random.integers(4, size=num_tokens.shape, dtype=np.int32)),
    }
    difficulty, own = random.normal(size=n), random.normal(size=num_tokens.shape) - 2.0 * num_tokens
    for checkpoint in range(size.checkpoints):
        ability = checkpoint / size.checkpoints
        logprobs = own * (2 - ability) + random.normal(0, 0.3, num_tokens.shape)
        logprobs[np.arange(n), target] += 4 * ability - difficulty
        columns = fixed | {"sum_logprob": _lists(logprobs.astype(np.float32)), "is_greedy": _lists(logprobs > -4)}
        table = pa.table({name: columns[name] for name in samples.SCHEMA.names if name in columns})
        _write_slices(_folder(root, size, task, checkpoint), table.replace_schema_metadata(samples.SCHEMA.metadata))
    began = time.perf_counter()
    history.compact(sources(root, size, task)[:-NOT_COVERED], _copy(root, task))
    return time.perf_counter() - began


def _lists(values: Any) -> pa.ListArray:
    offsets = np.arange(len(values) + 1, dtype=np.int32) * NUM_CHOICES
    return pa.ListArray.from_arrays(pa.array(offsets), pa.array(values.ravel()))


def _write_slices(folder: Path, table: pa.Table) -> None:
    folder.mkdir(parents=True)
    for start in range(0, table.num_rows, SLICE):
        content = parquet.encode(table.slice(start, SLICE))
        # As `samples.write_slice`, but without waiting for the disk each time.
        (folder / f"{start:06d}-{hashlib.sha256(content).hexdigest()[:12]}.parquet").write_bytes(content)


def _folder(root: Path, size: Size, task: int, checkpoint: int) -> Path:
    return root / str(checkpoint) / str(task * size.checkpoints + checkpoint)


def _copy(root: Path, task: int) -> Path:
    return root / "by-item" / "1" / str(task)


def sources(root: Path, size: Size, task: int) -> list[Source]:
    """The evaluations of a task as the registry knows them."""
    folders = [_folder(root, size, task, checkpoint) for checkpoint in range(size.checkpoints)]
    return [
        Source(int(folder.name), checkpoint, checkpoint * 1000, sorted(folder.iterdir()))
        for checkpoint, folder in enumerate(folders)
    ]


def forget(paths: Iterable[Path]) -> None:
    """Take files out of the page cache."""
    for path in paths:
        descriptor = os.open(path, os.O_RDONLY)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(descriptor)


def measure(reads: list[tuple[Callable[[], object], list[Path]]]) -> dict[str, dict[str, float]]:
    """Milliseconds of each read, cold and then at once again, as median and 95th percentile."""
    found: dict[str, list[float]] = {"cold": [], "warm": []}
    for read, paths in reads:
        forget(paths)
        for name in found:
            began = time.perf_counter()
            read()
            found[name].append((time.perf_counter() - began) * 1000)
    return {
        name: {"median_ms": round(statistics.median(times), 1), "p95_ms": round(float(np.percentile(times, 95)), 1)}
        for name, times in found.items()
    }


def slicing(root: Path, size: Size, repeats: int) -> dict[str, Any]:
    """How long each kind of page waits for its answers."""
    random = np.random.default_rng(0)
    tasks = [sources(root, size, task) for task in range(size.tasks)]
    items, heat, ckpts = [], [], []
    for _ in range(repeats):
        task = int(random.integers(size.tasks))
        files = [*_copy(root, task).glob("*.parquet"), *(p for one in tasks[task][-NOT_COVERED:] for p in one.paths)]
        position = int(random.integers(size.of_task(task)))
        items.append((partial(history.by_item, tasks[task], _copy(root, task), position), files))
        heat.append((partial(history.heat_map, tasks[task], _copy(root, task), "acc"), files))
        number = int(random.integers(1, size.checkpoints))
        own = [task[number] for task in tasks]
        ckpts.append((partial(history.by_checkpoint, own), [path for one in own for path in one.paths]))
    return {"by_item": measure(items), "by_checkpoint": measure(ckpts), "heat_map": measure(heat)}


def _num_bytes(paths: Iterable[Path]) -> int:
    return sum(path.stat().st_size for path in paths)


def run(root: Path, size: Size, repeats: int, processes: int) -> dict[str, Any]:
    """Make, measure, and say how large it was."""
    began = time.perf_counter()
    with ProcessPoolExecutor(processes) as pool:
        compaction = list(pool.map(partial(make_task, root, size), range(size.tasks)))
    os.sync()  # what is not on the disk yet cannot leave the page cache
    made = time.perf_counter() - began
    slices = [path for path in root.glob("[0-9]*/*/*.parquet")]
    copies = list(root.glob("by-item/*/*/*.parquet"))
    choices = size.checkpoints * size.items * NUM_CHOICES
    covered = (size.checkpoints - NOT_COVERED) * size.items * NUM_CHOICES
    return {
        "samples": size.checkpoints * size.items,
        "slice_files": len(slices),
        "slices_bytes_per_choice": round(_num_bytes(slices) / choices, 2),
        "copy_files": len(copies),
        "copy_bytes_per_choice": round(_num_bytes(copies) / covered, 2),
        "making_seconds": round(made),
        "copying_seconds_per_task": round(statistics.median(compaction), 1),
        **slicing(root, size, repeats),
    }


def main() -> None:
    """Parse the command line, measure, print and save."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, help="JSON file for the figures")
    parser.add_argument("--folder", type=Path, help="where the files are made; about 2 GB; default: the system's")
    parser.add_argument("--checkpoints", type=int, default=1000)
    parser.add_argument("--tasks", type=int, default=60)
    parser.add_argument("--items", type=int, default=20_000)
    parser.add_argument("--repeats", type=int, default=30)
    parser.add_argument("--processes", type=int, default=2)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=args.folder) as folder:
        size = Size(args.checkpoints, args.tasks, args.items)
        figures = run(Path(folder), size, args.repeats, args.processes)
    text = json.dumps(figures, indent=2)
    print(text)  # noqa: T201
    if args.output:
        args.output.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
