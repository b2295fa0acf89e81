"""The child never outlives its supervisor, however that ends."""

import contextlib
import os
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from worker.engine.process import EngineProcess

SLEEPER = (
    "import subprocess, sys, time;"
    "subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)']);"
    "print('Error: up', flush=True); time.sleep(600)"
)


def members(group: int) -> list[int]:
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, ProcessLookupError):
            if os.getpgid(process.pid) == group and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process.pid)
    return found


def await_members(group: int, number: int) -> None:
    deadline = time.monotonic() + 30
    while len(members(group)) != number:
        assert time.monotonic() < deadline, f"{len(members(group))} processes, not {number}"
        time.sleep(0.05)


@pytest.fixture
def log_file(tmp_path: Path) -> Path:
    return tmp_path / "logs" / "engine.log"


def test_stop_ends_the_command_and_its_children(log_file):
    process = EngineProcess([sys.executable, "-c", SLEEPER], os.environ, log_file)
    await_members(process.pid, 3)
    process.stop()
    assert not process.is_alive
    await_members(process.pid, 0)


def test_a_command_that_ends_takes_its_children_along_and_leaves_its_last_words(log_file):
    process = EngineProcess([sys.executable, "-c", "raise ValueError('no such model')"], os.environ, log_file)
    await_members(process.pid, 0)
    assert not process.is_alive
    assert process.last_words() == "ValueError: no such model"
    process.stop()


def test_a_supervisor_that_is_killed_leaves_nothing_behind(log_file, tmp_path):
    script = (
        "import os, pathlib, sys, time;"
        "from worker.engine.process import EngineProcess;"
        f"p = EngineProcess([sys.executable, '-c', {SLEEPER!r}], os.environ, pathlib.Path({str(log_file)!r}));"
        "print(p.pid, flush=True); time.sleep(600)"
    )
    supervisor = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    assert supervisor.stdout is not None
    group = int(supervisor.stdout.readline())
    await_members(group, 3)
    supervisor.kill()
    supervisor.wait()
    await_members(group, 0)
