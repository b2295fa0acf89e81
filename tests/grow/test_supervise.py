"""The supervisor: nothing it started outlives it, and what crashes comes back."""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from grow.services import Service
from grow.supervise import Supervisor, running_supervisor
from registry.settings import get_settings

SLEEP = "import time; time.sleep(600)"


def service(name: str, code: str, **fields: object) -> Service:
    """A Python one-liner as a service."""
    return Service(name, [sys.executable, "-c", code], **fields)  # type: ignore[arg-type]


def alive(pid: int) -> bool:
    """Whether the process runs (a zombie does not)."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def wait_until(condition: object, seconds: float = 20) -> None:
    """Fails when the condition does not come true in time."""
    assert callable(condition)
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.05)


@pytest.fixture
def said() -> list[tuple[str, str]]:
    """What the supervisor reported."""
    return []


def run_for(supervisor: Supervisor, until: object) -> None:
    """Runs the loop until the condition holds, then asks it to stop."""
    assert callable(until)

    def watch() -> None:
        wait_until(until)
        supervisor.stop()

    thread = threading.Thread(target=watch)
    thread.start()
    supervisor.run()
    thread.join()


def test_stopping_ends_every_child_even_one_that_ignores_sigterm(grow_home: Path, said: list[tuple[str, str]]) -> None:
    stubborn = (
        "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up', flush=True); time.sleep(600)"
    )
    services = [service("good", SLEEP), service("stubborn", stubborn, stop_seconds=0.5)]
    with Supervisor(get_settings(), services, lambda *line: said.append(line)) as supervisor:
        run_for(supervisor, lambda: "up" in (grow_home / "logs" / "stubborn.log").read_text())
        pids = [int(line.split()[-1].rstrip(")")) for _, line in said if line.startswith("started")]
    assert len(pids) == 2
    assert not any(alive(pid) for pid in pids)
    assert running_supervisor(get_settings()) is None


def test_a_crashed_service_starts_again_and_its_code_is_told(grow_home: Path, said: list[tuple[str, str]]) -> None:
    marks = grow_home / "marks"
    crash = f"open({str(marks)!r}, 'a').write('x'); raise SystemExit(3)"
    with Supervisor(get_settings(), [service("weak", crash)], lambda *line: said.append(line)) as supervisor:
        run_for(supervisor, lambda: marks.exists() and len(marks.read_text()) >= 2)
    assert any("ended with code 3; starting again in 2 s" in line for _, line in said)


def test_a_service_that_may_end_is_not_started_again(grow_home: Path, said: list[tuple[str, str]]) -> None:
    services = [service("once", "pass", ends=True), service("other", SLEEP)]
    with Supervisor(get_settings(), services, lambda *line: said.append(line)) as supervisor:
        run_for(supervisor, lambda: ("once", "finished") in said)
        time.sleep(0.2)
    assert [line for name, line in said if name == "once" and line.startswith("started")] != []
    assert len([line for name, line in said if name == "once" and line.startswith("started")]) == 1


def test_children_end_when_the_supervisor_is_killed(grow_home: Path) -> None:
    program = (
        "from grow.supervise import Supervisor; from grow.services import Service; import sys\n"
        "from registry.settings import get_settings\n"
        f"s = Service('child', [sys.executable, '-c', {SLEEP!r}])\n"
        "with Supervisor(get_settings(), [s], lambda n, t: print(t, flush=True)) as v: v.run()\n"
    )
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline().split()[-1].rstrip(")\n"))
        assert alive(child)
        parent.send_signal(signal.SIGKILL)
    wait_until(lambda: not alive(child))


def test_a_stale_pid_file_is_not_a_running_supervisor(grow_home: Path) -> None:
    (grow_home / "run").mkdir()
    for content in ("", "not a number", str(2**22 - 1), str(os.getppid())):
        (grow_home / "run" / "supervisor.pid").write_text(content)
        command = Path(f"/proc/{content}/cmdline") if content.isdigit() else None
        expected = command is not None and command.exists() and b"grow" in command.read_bytes()
        assert (running_supervisor(get_settings()) is not None) == expected
