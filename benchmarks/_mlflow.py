"""MLflow's tracking server with the generated run: what `benchmarks.growth` is compared with.

It is installed into an environment of its own in the cache folder, once, and is no part of this project.
"""

import json
import os
import subprocess
import sys
import time
import venv
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import httpx
import numpy as np

from benchmarks import _growth, _site

VERSION = "3.18.0"
FILL = Path(__file__).parent / "_mlflow_fill.py"
START_SECONDS = 180.0


class Server(NamedTuple):
    """What the benchmark asks."""

    address: str
    run_id: str
    pid: int


def environment() -> Path:
    """The Python of an environment with MLflow; made where it is missing, which takes some minutes."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    folder = cache / "grow" / f"mlflow-{VERSION}"
    mark, python = folder / "installed", folder / "bin" / "python"
    if not mark.exists():
        print(f"Installing MLflow {VERSION} into {folder} …", flush=True)  # noqa: T201
        venv.create(folder, with_pip=True, clear=True)
        pip = [python, "-m", "pip", "install", "-q", "--disable-pip-version-check", f"mlflow=={VERSION}"]
        subprocess.run(pip, check=True)
        mark.touch()
    return python


@contextmanager
def serving(folder: Path, size: _growth.Size) -> Iterator[Server]:
    """The tracking server on an SQLite database with the same scores as metric histories."""
    python = environment()
    folder.mkdir()
    np.save(folder / "scores.npy", _growth.scores(size).value)
    store = f"sqlite:///{folder / 'mlflow.db'}"
    quiet = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"} | {"DO_NOT_TRACK": "true"}
    command = [python, FILL, store, folder / "scores.npy", json.dumps(_growth.METRICS), str(_growth.STEPS_APART)]
    filled = subprocess.run(command, check=True, env=quiet, stdout=subprocess.PIPE, cwd=folder)
    run_id = filled.stdout.decode().split()[-1]
    port = _site.free_port()
    with (folder / "server.log").open("wb") as log:
        server = subprocess.Popen(
            # One worker, as ours: requests come one after the other, and uvicorn ends workers of a busy machine.
            [python, "-m", "mlflow", "server", "--backend-store-uri", store, "--port", str(port), "--workers", "1"],
            stdout=log,
            stderr=log,
            env=quiet,
            cwd=folder,
            start_new_session=True,
        )
    found = Server(f"http://127.0.0.1:{port}", run_id, server.pid)
    try:
        _wait(found, server, folder / "server.log")
        yield found
    finally:
        server.terminate()
        try:
            server.wait(30)
        except subprocess.TimeoutExpired:
            os.killpg(server.pid, 9)


def _wait(found: Server, server: "subprocess.Popen[bytes]", log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while server.poll() is None and time.monotonic() < deadline:
        try:
            if httpx.get(f"{found.address}/health", timeout=5).is_success:
                return
        except httpx.TransportError:
            time.sleep(0.2)
    sys.exit(f"MLflow's server did not start:\n{log.read_text()[-3000:]}")
