"""Lists of a thousand checkpoints of one run: the models page, the API, and what the Hub's clients list.

    python -m benchmarks.listing [--checkpoints 1000] [--views 20]

Asked of the real application in one process: by the clock and on the processor, without a network.
"""

import argparse
import statistics
import sys
import tempfile
import time
from pathlib import Path

from fastapi.testclient import TestClient

from benchmarks import _playground, _site
from registry import db, runs
from registry.models import Checkpoint
from registry.models.base import READY
from registry.store import Manifest
from server.app import create_app

AIM_MS = 50.0
FILES = ("config.json", "generation_config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json")
"""Of each checkpoint; the weights differ, the rest is that of all."""
STRINGS = 64
"""Log-probabilities in a fingerprint, by engine."""
PAGES = (
    ("/models", "text/html"),
    ("/api/v1/runs/bench/checkpoints", "application/json"),
    ("/api/models", "application/json"),
    ("/api/models/bench/refs", "application/json"),
    ("/api/models/bench/commits/main", "application/json"),
    ("/api/models/bench/tree/step-500?recursive=true", "application/json"),
    ("/api/models/bench/revision/step-500", "application/json"),
)


def main() -> None:
    """Print how long each list took."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n\n")[0])
    parser.add_argument("--checkpoints", type=int, default=1_000)
    parser.add_argument("--views", type=int, default=20)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        _site.use(Path(folder))
        _playground.migrate()
        with db.transaction() as session:
            run = runs.create_run(session, name="bench", config={}, num_parameters=7_340_032)
            session.add_all(_checkpoint(run, step) for step in range(options.checkpoints))
            session.info.pop("deferred_jobs", None)
        _write_small_files(Path(folder) / "checkpoints" / "bench" / "step-500")
        with TestClient(create_app()) as client:
            for address, kind in PAGES:
                measure(client, address, kind, options.views)


def _checkpoint(run: runs.Run, step: int) -> Checkpoint:
    files = {name: {"size": 2, "sha256": f"{place:064x}"} for place, name in enumerate(FILES)}
    files["model.safetensors"] = {"size": 14_680_064, "sha256": f"{step + 100:064x}"}
    manifest = Manifest(files=files, facts={"tokens_seen": step * 4096})
    return Checkpoint(
        run_id=run.id,
        step=step,
        tokens_seen=step * 4096,
        flops=6.0 * step * 4096,
        folder=f"bench/step-{step}",
        digest=manifest.digest,
        weights_digest=manifest.weights_digest,
        manifest=manifest.as_json(),
        size_bytes=manifest.size_bytes,
        num_parameters=7_340_032,
        state=READY,
        tokenizer="0123456789abcdef",
        fingerprint={
            engine: [-1.5 - step / 7 - at / 11 for at in range(STRINGS)]
            for engine in ("vllm/bfloat16", "transformers/float32")
        },
    )


def _write_small_files(folder: Path) -> None:
    folder.mkdir(parents=True)
    for name in FILES:
        (folder / name).write_text("{}")


def measure(client: TestClient, address: str, kind: str, views: int) -> None:
    """Ask for one list again and again; the first time fills what is kept."""
    clock, processor, size = [], [], 0
    for _ in range(views + 1):
        began, began_cpu = time.perf_counter(), time.process_time()
        answer = client.get(address, headers={"accept": kind, "accept-encoding": "zstd"})
        clock.append((time.perf_counter() - began) * 1000)
        processor.append((time.process_time() - began_cpu) * 1000)
        if answer.status_code != 200:
            raise SystemExit(f"{address}: {answer.status_code} {answer.text[:500]}")
        size = int(answer.headers.get("content-length", 0)) or len(answer.content)
    median = statistics.median(clock[1:])
    verdict = "" if median < AIM_MS else ", MISSED"
    sys.stdout.write(
        f"{address}: {median:.0f} ms (longest {max(clock[1:]):.0f}; the first {clock[0]:.0f}), "
        f"processor {statistics.median(processor[1:]):.0f} ms, {size / 1e3:.0f} kB (aim: {AIM_MS:.0f} ms{verdict})\n"
    )


if __name__ == "__main__":
    main()
