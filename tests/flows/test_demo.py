"""`grow demo`, as a newcomer runs it — with the small configuration and the scripted engine, to be quick."""

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import httpx
import psutil
import pytest

from registry import checkpoints, runs
from registry.db import read_session
from tests.conftest import ROOT, free_port
from tests.flows.conftest import wait_for

pytestmark = pytest.mark.flow


def start(home: Path, port: int, output: Path) -> "subprocess.Popen[bytes]":
    """The command in a session of its own, as a terminal starts it."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GROW_")}
    environment |= {"GROW_HOME": str(home), "GROW_PORT": str(port), "GROW_ENGINE": "scripted"}
    environment["GROW_MILESTONE_EVERY"] = "-1"
    command = [sys.executable, "-m", "grow", "demo", "--config", "debug", "--run", "tiny"]
    with output.open("wb") as file:
        return subprocess.Popen(command, cwd=ROOT, env=environment, stdout=file, stderr=file, start_new_session=True)


def steps(home: Path) -> list[int]:
    """Checkpoints on record."""
    if not (home / "grow.db").exists():
        return []
    with read_session() as session:
        if not runs.list_runs(session):
            return []
        listed = checkpoints.list_checkpoints(session, states=("verifying", "ready"))
        return [checkpoint.step for checkpoint in listed]


def test_runs_stops_on_ctrl_c_and_goes_on(grow_home: Path, tmp_path: Path) -> None:
    port, said = free_port(), tmp_path / "said.txt"
    demo = start(grow_home, port, said)
    try:
        wait_for(lambda: f"answers at http://127.0.0.1:{port}" in said.read_text(), 60, "the pages")
        wait_for(lambda: len(steps(grow_home)) >= 3, 90, f"checkpoints: {said.read_text()}")
        children = psutil.Process(demo.pid).children(recursive=True)
        demo.send_signal(signal.SIGINT)
        assert demo.wait(timeout=60) == 0
        assert not [child for child in children if child.is_running() and child.status() != psutil.STATUS_ZOMBIE]
        first = said.read_text()
        assert len(re.findall(r"Log in as admin with \S+", first)) == 1
        assert "Stopped. All data is kept" in first
        before = steps(grow_home)

        demo = start(grow_home, port, said)
        wait_for(lambda: "training    finished" in said.read_text(), 120, "the run to end")
        assert "Log in as admin" not in said.read_text()
        assert set(before) < set(steps(grow_home))
        assert steps(grow_home)[-1] == 20
        wait_for(lambda: "scores" in said.read_text(), 60, "scores in the terminal")
        assert httpx.get(f"http://127.0.0.1:{port}/runs/tiny").status_code == 200
        stop = subprocess.run(
            [sys.executable, "-m", "grow", "down"],
            cwd=ROOT,
            env={**os.environ},
            capture_output=True,
            text=True,
            timeout=100,
        )
        assert "Stopped." in stop.stdout
        assert demo.wait(timeout=10) == 0
    finally:
        if demo.poll() is None:
            os.killpg(demo.pid, signal.SIGTERM)
            demo.wait(timeout=60)
