"""Programs that nobody has read: right ones pass, and each kind of mischief stays inside."""

import contextlib
import os
import platform
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from worker import sandbox
from worker.sandbox import SandboxMissing, is_available, run_python

needs_bubblewrap = pytest.mark.skipif(
    not is_available(), reason="bubblewrap is not installed or may not make user namespaces here"
)

FOREVER = "while True:\n    pass"
DEAF = """
import signal
for number in set(signal.valid_signals()) - {signal.SIGKILL, signal.SIGSTOP}:
    signal.signal(number, signal.SIG_IGN)
"""
WORKER = """
from worker import sandbox
sandbox.BOOT += "# {mark}"
sandbox.run_python({source!r}, seconds=600)
"""


def running(mark: str) -> list[int]:
    """Numbers of the processes of this machine with `mark` in their command line."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # it may end meanwhile
            if mark.encode() in (folder / "cmdline").read_bytes():
                found.append(int(folder.name))
    return found


@pytest.fixture
def mark(monkeypatch: pytest.MonkeyPatch) -> str:
    """Stands in the command lines of this test's sandboxes and of no others'."""
    found = uuid.uuid4().hex
    monkeypatch.setattr(sandbox, "BOOT", f"{sandbox.BOOT}# {found}")
    return found


@pytest.fixture
def listener() -> Iterator[int]:
    """A port of this machine where somebody listens."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield int(server.getsockname()[1])


@needs_bubblewrap
class TestRightAndWrong:
    def test_a_program_that_reaches_its_end_passes(self) -> None:
        ran = run_python("import collections, heapq, math, re\nassert math.gcd(12, 18) == 6\nprint('fine')")
        assert ran.passed
        assert ran.output == "fine\n"

    def test_a_failed_check_fails_and_says_where(self) -> None:
        ran = run_python("def double(n):\n    return n\n\nassert double(2) == 4")
        assert ran.reason == "failed"
        assert "line 4, in <module>\nAssertionError" in ran.output

    @pytest.mark.parametrize("source", ["import sys; sys.exit(0)", "import os; os._exit(0)", "raise SystemExit"])
    def test_leaving_early_is_no_success(self, source: str) -> None:
        assert run_python(f"{source}\nassert False").reason == "failed"

    @pytest.mark.parametrize("source", ["def f(:", "\0", "import numpy", "input()", "def f():\n    f()\nf()"])
    def test_what_does_not_run_fails(self, source: str) -> None:
        assert run_python(source).reason == "failed"

    def test_sets_have_the_same_order_each_time(self) -> None:
        source = "print(list({'one', 'two', 'three', 'four', 'five'}))"
        assert run_python(source).output == run_python(source).output


@needs_bubblewrap
class TestLimits:
    def test_an_endless_loop_is_stopped(self) -> None:
        assert run_python(f"print('here', flush=True)\n{FOREVER}", seconds=0.5) == sandbox.Ran("timeout", "here\n")

    def test_a_program_that_hides_its_output_and_goes_on_is_stopped(self) -> None:
        ran = run_python(f"import os\nos.close(1)\nos.close(2)\n{FOREVER}", seconds=0.5)
        assert ran.reason == "timeout"

    def test_memory_is_refused_beyond_the_limit(self) -> None:
        ran = run_python("held = []\nwhile True:\n    held.append(bytearray(2**20))")
        assert ran.reason == "failed"
        assert "MemoryError" in ran.output

    def test_shared_memory_outside_that_limit_is_refused(self) -> None:
        attempt = "import ctypes\nassert ctypes.CDLL(None).shmget(0, 2**30, 0o1600) == -1"
        assert run_python(attempt).passed

    def test_a_flood_of_output_is_stopped_and_only_its_end_kept(self) -> None:
        ran = run_python("while True:\n    print('x' * 1000)")
        assert ran.reason == "output"
        assert len(ran.output) <= sandbox.KEPT_OUTPUT_BYTES

    def test_large_files_are_refused(self) -> None:
        assert "File too large" in run_python("open('/tmp/one', 'wb').write(bytes(9 * 2**20))").output
        many = "for number in range(100):\n    open(f'/tmp/{number}', 'wb').write(bytes(2**20))"
        assert "No space left" in run_python(many).output

    def test_limits_cannot_be_raised(self) -> None:
        ran = run_python("import resource\nresource.setrlimit(resource.RLIMIT_AS, (-1, -1))")
        assert "not allowed to raise" in ran.output


@needs_bubblewrap
class TestNothingElseStarts:
    @pytest.mark.parametrize(
        "source",
        [
            "import os\nwhile True:\n    os.fork()",
            "import subprocess\nsubprocess.Popen(['/python/bin/python', '-c', 'while True: pass'])",
            "import threading\nthreading.Thread(target=print).start()",
            "import multiprocessing\nmultiprocessing.Process(target=print).start()",
        ],
    )
    def test_neither_processes_nor_threads(self, source: str) -> None:
        ran = run_python(source)
        assert ran.reason == "failed"
        assert "not permitted" in ran.output or "can't start new thread" in ran.output

    def test_new_namespaces_are_refused(self) -> None:
        assert run_python("import ctypes\nassert ctypes.CDLL(None).unshare(0x10000000) == -1").passed

    def test_nothing_survives_a_stopped_program(self, mark: str) -> None:
        assert run_python(DEAF + FOREVER, seconds=0.5).reason == "timeout"
        assert running(mark) == []

    def test_the_sandbox_dies_with_the_worker(self, mark: str) -> None:
        with subprocess.Popen([sys.executable, "-c", WORKER.format(mark=mark, source=DEAF + FOREVER)]) as worker:
            # the worker's own command line bears the mark too: wait for bubblewrap and the program
            while len(running(mark)) < 3:
                assert worker.poll() is None
            worker.kill()
        while running(mark):
            time.sleep(0.01)


@needs_bubblewrap
class TestTheHostStaysUnseen:
    def test_the_secret_key_and_the_data_cannot_be_read(self, grow_home: Path) -> None:
        (grow_home / "secret_key").write_text("hunter2")
        ran = run_python(f"print(open({str(grow_home / 'secret_key')!r}).read())")
        assert ran.reason == "failed"
        assert "No such file" in ran.output

    def test_only_python_and_the_systems_libraries_are_there(self) -> None:
        found = run_python("import os\nprint(*os.listdir('/'))").output.split()
        assert set(found) <= {"answer.py", "lib", "lib64", "python", "tmp", "usr"}

    def test_packages_are_hidden(self) -> None:
        assert run_python("import glob\nassert glob.glob('/python/lib/*/*-packages/*') == []").passed

    def test_neither_environment_nor_host_name_nor_open_files(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("GROW_SECRET_KEY", "hunter2")
        ran = run_python(
            "import os\n"
            "print(sorted(os.environ), os.uname().nodename)\n"
            "for number in range(3, 32):\n"
            "    try:\n"
            "        print(number, os.fstat(number))\n"
            "    except OSError:\n"
            "        pass\n"
        )
        assert ran.output == "['LD_LIBRARY_PATH', 'PWD', 'PYTHONHASHSEED'] sandbox\n"

    @pytest.mark.parametrize("place", ["/written", "/usr/written", "/python/lib/written", "/answer.py"])
    def test_nothing_can_be_written_outside_tmp(self, place: str) -> None:
        ran = run_python(f"open({place!r}, 'w')")
        assert ran.reason == "failed"
        assert "Read-only" in ran.output or "denied" in ran.output

    def test_what_is_written_in_tmp_is_gone_afterwards(self) -> None:
        assert run_python("open('/tmp/note', 'w').write('x')").passed
        assert run_python("import os\nassert os.listdir('/tmp') == []").passed

    def test_there_is_no_network(self, listener: int) -> None:
        ran = run_python(f"import socket\nsocket.create_connection(('127.0.0.1', {listener}), 5)")
        assert ran.reason == "failed"
        assert "not permitted" in ran.output

    def test_other_processes_cannot_be_signalled(self) -> None:
        ran = run_python(f"import os\nos.kill({os.getpid()}, 9)")
        assert "No such process" in ran.output


class TestWithoutASandbox:
    def test_it_says_what_to_install(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("PATH", "/nonexistent")
        with pytest.raises(SandboxMissing, match="apt-get install bubblewrap"):
            run_python("")
        assert not is_available()

    def test_a_bubblewrap_that_does_not_work_is_no_wrong_answer(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        broken = tmp_path / "bwrap"
        broken.write_text("#!/bin/sh\necho 'bwrap: No permissions to create new namespace'\nexit 1\n")
        broken.chmod(0o755)
        monkeypatch.setenv("PATH", str(tmp_path))
        with pytest.raises(SandboxMissing, match="No permissions to create new namespace"):
            run_python("")

    def test_a_processor_whose_calls_are_not_known_is_refused(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(platform, "machine", lambda: "riscv64")
        with pytest.raises(SandboxMissing, match="not riscv64"):
            run_python("")
