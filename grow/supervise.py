"""Starts services as children, starts crashed ones again, and stops all of them together."""

import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import IO

from grow.services import Service, command_environment, log_path
from registry.settings import Settings

STEADY_SECONDS = 60.0
"""A child that lived this long starts again at once; one that dies sooner waits longer each time."""
MAX_PAUSE_SECONDS = 30.0
PR_SET_PDEATHSIG = 1

Say = Callable[[str, str], None]
"""Called with a service's name and a sentence about it."""


@dataclass
class Child:
    """A service and its process, if it runs now."""

    service: Service
    log: IO[bytes]
    process: subprocess.Popen[bytes] | None = None
    started: float = 0.0
    crashes: int = 0
    start_at: float = 0.0
    done: bool = False


class Supervisor:
    """Owns the children of one `grow` command; use it as a context manager."""

    def __init__(self, settings: Settings, services: Sequence[Service], say: Say) -> None:
        self._settings = settings
        self._say = say
        self._stopping = False
        self._pid_file = settings.home / "run" / "supervisor.pid"
        now = time.monotonic()
        self.children = [
            Child(service, _open_log(log_path(settings, service.name)), start_at=now + service.delay_seconds)
            for service in services
        ]

    def __enter__(self) -> "Supervisor":
        self._pid_file.parent.mkdir(parents=True, exist_ok=True)
        self._pid_file.write_text(str(os.getpid()))
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, self._ask_to_stop)
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
        self._pid_file.unlink(missing_ok=True)

    @property
    def stopping(self) -> bool:
        """Whether Ctrl-C or SIGTERM came."""
        return self._stopping

    def _ask_to_stop(self, _number: int, _frame: FrameType | None) -> None:
        self._stopping = True

    def run(self, every_second: Callable[[], None] = lambda: None) -> None:
        """Keep the children running until a signal comes."""
        while not self._stopping:
            for child in self.children:
                self._tend(child)
            every_second()
            time.sleep(0.5)

    def _tend(self, child: Child) -> None:
        if child.done:
            return
        if child.process is None:
            if time.monotonic() >= child.start_at:
                self._start(child)
            return
        code = child.process.poll()
        if code is None:
            return
        child.process = None
        if child.service.ends and code == 0:
            child.done = True
            self._say(child.service.name, "finished")
            return
        lived = time.monotonic() - child.started
        child.crashes = 0 if lived > STEADY_SECONDS else child.crashes + 1
        pause = min(2.0**child.crashes, MAX_PAUSE_SECONDS)
        child.start_at = time.monotonic() + pause
        self._say(child.service.name, f"ended with code {code}; starting again in {pause:.0f} s (see {child.log.name})")

    def _start(self, child: Child) -> None:
        service = child.service
        child.started = time.monotonic()
        child.process = subprocess.Popen(
            service.command,
            env=command_environment(service, self._settings),
            stdin=subprocess.DEVNULL,
            stdout=child.log,
            stderr=subprocess.STDOUT,
            # Own session: Ctrl-C reaches only the supervisor, which then stops all in order.
            start_new_session=True,
            preexec_fn=lambda: _prepare(service.niceness),
        )
        self._say(service.name, f"started (process {child.process.pid})")

    def stop(self) -> None:
        """Stop the children, the last started first, each with the time it may take."""
        self._stopping = True
        for child in reversed(self.children):
            if child.process is not None and child.process.poll() is None:
                self._say(child.service.name, "stopping")
                child.process.terminate()
        deadline = time.monotonic()
        for child in reversed(self.children):
            if child.process is not None:
                _end(child.process, deadline + child.service.stop_seconds - time.monotonic())
            child.process = None


def _end(process: subprocess.Popen[bytes], seconds: float) -> None:
    try:
        process.wait(timeout=max(seconds, 0.1))
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _prepare(niceness: int) -> None:
    """Runs in the child before the command."""
    if niceness:
        os.nice(niceness)
    if sys.platform == "linux":
        # Even if the supervisor is killed with -9, its children get a SIGTERM.
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


def _open_log(path: Path) -> IO[bytes]:
    path.parent.mkdir(parents=True, exist_ok=True)
    return path.open("ab", buffering=0)


def running_supervisor(settings: Settings) -> int | None:
    """Process id of the `grow` command that holds this GROW_HOME, if one does."""
    try:
        pid = int((settings.home / "run" / "supervisor.pid").read_text())
        os.kill(pid, 0)
    except (FileNotFoundError, ValueError, ProcessLookupError):
        return None
    command = Path(f"/proc/{pid}/cmdline")
    # A number left by a killed supervisor may belong to somebody else by now.
    return pid if not command.exists() or b"grow" in command.read_bytes() else None
