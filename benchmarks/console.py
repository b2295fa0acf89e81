"""How long the administrators' list of checkpoints takes among thousands of them: the verb, and the whole page.

`python -m benchmarks.console [--checkpoints 5000]`. The issue's bar: a thousand checkpoints listed in under 50 ms.
"""

import argparse
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from alembic import command
from alembic.config import Config
from starlette.testclient import TestClient

from registry import accounts, db, inventory, runs
from registry.inventory import Wanted
from registry.models import Checkpoint
from registry.settings import get_settings
from server.app import create_app
from server.csrf import SESSION_COOKIE

ROOT = Path(__file__).resolve().parent.parent
ROUNDS = 30


def say(line: str) -> None:
    """A line of the answer."""
    sys.stdout.write(f"{line}\n")


def fill(number: int) -> str:
    """So many checkpoints of ten runs with manifests of a real size; returns an administrator's login."""
    config = Config(str(ROOT / "alembic.ini"))
    config.set_main_option("script_location", str(ROOT / "migrations"))
    with db.migration_connection(db.current_engine()) as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "head")
    files = {f"model-{part:05}.safetensors": {"size": 5_000_000_000, "sha256": "0" * 64} for part in range(30)}
    with db.transaction() as session:
        owners = [runs.create_run(session, name=f"run-{one}", tokens_per_step=4096) for one in range(10)]
        for step in range(number):
            row = Checkpoint(
                run=owners[step % 10], step=step, folder=f"x/{step}", digest="d", manifest={"files": files}
            )
            row.state, row.size_bytes, row.tokens_seen = "ready", 150_000_000_000, step * 4096
            session.add(row)
        admin = accounts.register(session, "keeper", "correct horse battery", role="admin")
        return accounts.open_session(session, admin)


def milliseconds(action: Callable[[], object]) -> str:
    """Median and slowest of some rounds, the first of which warms up and is not counted."""
    action()
    taken = []
    for _ in range(ROUNDS):
        began = time.perf_counter()
        action()
        taken.append(1000 * (time.perf_counter() - began))
    return f"{statistics.median(taken):6.1f} ms (slowest {max(taken):.1f})"


def find(wanted: Wanted, page: int = 1) -> None:
    """One page, in a session of its own."""
    with db.read_session() as session:
        inventory.find(session, wanted, page)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--checkpoints", type=int, default=5_000)
    number = parser.parse_args().checkpoints
    with tempfile.TemporaryDirectory() as home:
        os.environ.update(GROW_HOME=home, GROW_REDIS_URL="redis://127.0.0.1:1/0")
        get_settings.cache_clear()
        login = fill(number)
        cases = {
            "first page": Wanted(),
            "search for a run and a step": Wanted(search="run-3@33"),
            "search for a part of a name": Wanted(search="run-7"),
            "the largest first": Wanted(order="largest"),
        }
        for name, wanted in cases.items():
            say(f"{name:32} {milliseconds(lambda wanted=wanted: find(wanted))}")
        say(f"{'last page':32} {milliseconds(lambda: find(Wanted(), 10**6))}")
        client = TestClient(create_app(), headers={"accept": "text/html"}, cookies={SESSION_COOKIE: login})
        assert "run-9@" in client.get("/admin/checkpoints").text
        say(f"{'the whole page, rendered':32} {milliseconds(lambda: client.get('/admin/checkpoints'))}")


if __name__ == "__main__":
    main()
