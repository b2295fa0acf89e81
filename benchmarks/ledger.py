"""How long a visitor waits for the learn-and-forget ledger of 1,000 items × 1,000 checkpoints.

    python -m benchmarks.ledger [--output ledger.json] [--folder FOLDER]

Makes a site with one run of 1,000 checkpoints that answered one task of 1,000 items (files as `benchmarks.samples`
makes them, a database with their rows), asks the real application for the ledger's data and page as a browser does,
compressed, and deletes everything again. Cold means that none of the files is in the page cache, the database included;
the process has answered one request before.
"""

import argparse
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from alembic import command
from alembic.config import Config
from fastapi.testclient import TestClient
from sqlalchemy import insert
from sqlalchemy.orm import Session

from benchmarks.samples import NOT_COVERED, NUM_CHOICES, SLICE, Size, forget, make_task, sources
from registry import cells, db, samples
from registry.history import Source
from registry.models import Checkpoint, Evaluation, Run, Slice, Suite, Task
from registry.models.base import FINISHED, READY
from registry.samples import Item
from registry.settings import get_settings
from server.app import create_app

KEY = "0123456789abcdef"
WORDS = ["the", "law", "of", "this", "land", "protects", "every", "citizen", "国家保护公民的合法权益", "任何人不得侵犯"]
API, PAGE = "/api/v1/runs/bench/tasks/questions/ledger", "/runs/bench/tasks/questions"


def make_site(size: Size) -> None:
    """Files of answers, items and rows in `GROW_HOME`; evaluation ids are those of the file names."""
    root = get_settings().samples_dir
    root.mkdir(parents=True)
    make_task(root, size, 0)
    found = sources(root, size, 0)
    # Where `registry.ledger` looks for the copy by item of run 1 and task 1.
    (root / "by-item" / "1" / "1").mkdir()
    (root / "by-item" / "1" / "0").rename(root / "by-item" / "1" / "1" / KEY)
    command.upgrade(Config("alembic.ini"), "head")
    with db.transaction() as session:
        session.add_all([Run(id=1, name="bench"), suite := Suite(name="bench")])
        session.flush()
        fields = {"title": "Questions", "ability": "english", "output_type": "multiple_choice", "metric": "acc"}
        session.add(Task(id=1, suite=suite, name="questions", chance=1 / NUM_CHOICES, **fields))
        session.flush()
        write_rows(session, found, _write_items(root, found[0]), size)


def _write_items(root: Path, source: Source) -> str:
    """Questions of sixty words; the file's path."""
    random = np.random.default_rng(0)
    hashes = [one for path in source.paths for one in samples.read_columns(path)["item"].to_pylist()]
    items = [
        Item(f"{item:016x}", at, f"subject {at % 50}", _words(random, 60), [_words(random, 4)] * NUM_CHOICES, 0)
        for at, item in enumerate(hashes)
    ]
    return samples.write_items(root / "items", "questions", items).relative_to(root).as_posix()


def _words(random: np.random.Generator, number: int) -> str:
    return " ".join(random.choice(WORDS, number))


def write_rows(session: Session, found: list[Source], items_file: str, size: Size) -> None:
    """A checkpoint, an evaluation and its slices for each source."""
    root = get_settings().samples_dir
    fixed = {"task_id": 1, "status": FINISHED, "protocol_key": KEY, "items_file": items_file, "num_items": size.items}
    session.execute(insert(Checkpoint), [_checkpoint(one.checkpoint_id + 1, one.step) for one in found])
    session.execute(
        insert(Evaluation),
        [{"id": one.evaluation_id, "checkpoint_id": one.checkpoint_id + 1, **fixed} for one in found],
    )
    slices = [(one.evaluation_id, int(path.name[:6]), path) for one in found for path in one.paths]
    session.execute(
        insert(Slice),
        [
            {"evaluation_id": owner, "start": start, "stop": min(start + SLICE, size.items), "engine_seconds": 1.0}
            | {"file": path.relative_to(root).as_posix()}
            for owner, start, path in slices
        ],
    )


def _checkpoint(number: int, step: int) -> dict[str, Any]:
    return {
        "id": number,
        "run_id": 1,
        "step": step,
        "kind": "pretrained",
        "precision": 16,
        "tokens_seen": step * 2_000_000,
        "folder": f"bench/step-{step}",
        "digest": f"{number:064x}",
        "manifest": {},
        "state": READY,
    }


def measure(ask: Callable[[], Any], repeats: int) -> dict[str, float]:
    """Milliseconds of one request, each with nothing in the page cache; and how much of it the processor worked."""
    times, work = [], []
    ask()
    for _ in range(repeats):
        forget(path for path in get_settings().home.rglob("*") if path.is_file() and path.suffix != ".lock")
        began, before = time.perf_counter(), time.process_time()
        ask()
        times.append((time.perf_counter() - began) * 1000)
        work.append((time.process_time() - before) * 1000)
    return {
        "median_ms": round(statistics.median(times), 1),
        "p95_ms": round(float(np.percentile(times, 95)), 1),
        "processor_ms": round(statistics.median(work), 1),
    }


def run(size: Size, repeats: int) -> dict[str, Any]:
    """Make, measure, and say how much was sent."""
    make_site(size)
    os.sync()  # what is not on the disk yet cannot leave the page cache
    client = TestClient(create_app(), headers={"accept-encoding": "gzip", "accept": "*/*"})

    def asking(address: str, **query: str) -> Callable[[], int]:
        def ask() -> int:
            answer = client.get(address, params=query)
            assert answer.status_code == 200, answer.text[:500]
            return int(answer.headers["content-length"])

        return ask

    found: dict[str, Any] = {"items": size.items, "checkpoints": size.checkpoints, "not_in_copy": NOT_COVERED}
    found["first_view_ever"] = measure_first(asking(API))
    drop_newest()
    found["right_or_wrong"] = measure(asking(API), repeats)
    found["probability"] = measure(asking(API, view="likelihood"), repeats)
    found["forgotten_only"] = measure(asking(API, state="forgotten"), repeats)
    found["page"] = measure(asking(PAGE), repeats)
    found["bytes_sent"] = {view: asking(API, view=view)() for view in ("right", "likelihood")}
    return found


def measure_first(ask: Callable[[], Any]) -> dict[str, float]:
    """Milliseconds of the first request after an update from a version without the file of cells."""
    began = time.perf_counter()
    ask()
    return {"ms": round((time.perf_counter() - began) * 1000, 1)}


def drop_newest() -> None:
    """Take the newest evaluation out of the file of cells, as it is between its end and the comparing job."""
    [file] = get_settings().samples_dir.glob("by-item/*/*/*/cells/*.npy")
    kept = cells.known(file.parent.parent, "acc")
    assert kept is not None
    shorter = kept._replace(
        evaluations=kept.evaluations[:-1], right=kept.right[:, :-1], likelihood=kept.likelihood[:, :-1]
    )
    cells.keep(shorter, file.parent.parent, "acc")


def main() -> None:
    """Parse the command line, measure, print and save."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, help="JSON file for the figures")
    parser.add_argument("--folder", type=Path, help="where the files are made; about 100 MB; default: the system's")
    parser.add_argument("--checkpoints", type=int, default=1000)
    parser.add_argument("--items", type=int, default=1000)
    parser.add_argument("--repeats", type=int, default=20)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=args.folder) as folder:
        os.environ |= {"GROW_HOME": folder, "GROW_REDIS_URL": "redis://127.0.0.1:1/0"}
        figures = run(Size(args.checkpoints, 1, args.items), args.repeats)
    text = json.dumps(figures, indent=2)
    print(text)  # noqa: T201
    if args.output:
        args.output.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
