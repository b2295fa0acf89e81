"""Runs Python that nobody has read: one process in a bubblewrap sandbox, with limits, and dead at its deadline.

The sandbox has the Python standard library and the system's C libraries, read-only, and 16 MiB of
`/tmp`. It has no network, no `/proc`, no device, no other file and no environment of the host; no
capability; and no system call that starts a process or a thread. What is left to trust: the kernel.
"""

import json
import math
import os
import platform
import secrets
import selectors
import shutil
import signal
import struct
import subprocess
import sys
import sysconfig
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

MEBIBYTE = 2**20
MAX_MEMORY_BYTES = 512 * MEBIBYTE
MAX_FILE_BYTES = 8 * MEBIBYTE
MAX_TMP_BYTES = 16 * MEBIBYTE
MAX_OPEN_FILES = 32
START_SECONDS = 60
MAX_OUTPUT_BYTES = MEBIBYTE
"""A program that writes more is stopped."""
KEPT_OUTPUT_BYTES = 2_000
"""How much of the end of the output is told."""

USER = "65534"
"""Who the program believes to be."""

AUDIT_ARCH = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
"""linux/audit.h: the machine that a system call was made for."""
REFUSED_CALLS = {
    # fork, vfork, clone, clone3, shmget, msgget, semget, socket, unshare, setns, mount,
    # ptrace, keyctl, add_key, request_key, bpf, perf_event_open, userfaultfd, io_uring_setup
    "x86_64": (57, 58, 56, 435, 29, 68, 64, 41, 272, 308, 165, 101, 250, 248, 249, 321, 298, 323, 425),
    "aarch64": (220, 435, 194, 186, 190, 198, 97, 268, 40, 117, 219, 217, 218, 280, 241, 282, 425),
}
"""Numbers of the calls that are refused (asm/unistd.h): those that start something, that get memory which no
limit counts, or that lead into parts of the kernel which an exercise has no business in. A limit on the
number of processes would not do alone: the kernel does not count those of root."""

Reason = Literal["passed", "failed", "timeout", "output"]


class SandboxMissing(Exception):
    """There is no safe place here to run code in; says what to install."""


@dataclass(frozen=True)
class Ran:
    """How a program ended: at its last line, before it, at the time limit, or for writing too much."""

    reason: Reason
    output: str
    """The end of what it wrote to its standard output and error."""

    @property
    def passed(self) -> bool:
        """Whether it came to its last line, in time and without an exception."""
        return self.reason == "passed"


READY = b"\x06"
BOOT = """
import os, resource, sys
for name, value in {limits}.items():
    resource.setrlimit(getattr(resource, name), (value, value))
with open("/answer.py", "rb") as file:
    program = file.read()
os.write(1, b"\\x06")
mark = sys.stdin.buffer.read()
if not mark:
    os._exit(1)
exec(compile(program, "answer.py", "exec"), {{"__name__": "answer"}})
sys.stdout.flush()
os.write(1, mark)
os._exit(0)
"""
"""Runs first in the sandbox: says that it is ready, and begins when told to. Whoever started it lives then, so
bubblewrap cannot have missed their death. The mark at the end, which the program is not told, means that its
last line was reached: leaving early with status 0 is no success. Its name is not `__main__`, as in OpenAI's
human-eval."""


def run_python(source: str, *, seconds: float = 10.0) -> Ran:
    """Run a program for at most `seconds`.

    Raises:
        SandboxMissing: bubblewrap is not installed, too old, or not allowed to work here.
    """
    mark = secrets.token_bytes(16)
    with ExitStack() as held:
        process, information = _start(source, math.ceil(seconds) + 1, held)
        try:
            _begin(process, mark)
            output, stopped = _read(process, time.monotonic() + seconds)
        finally:
            _stop(process, information)
    reason: Reason = stopped or ("passed" if output.endswith(mark) else "failed")
    return Ran(reason, output.removesuffix(mark)[-KEPT_OUTPUT_BYTES:].decode(errors="replace"))


def is_available() -> bool:
    """Whether programs can be run here."""
    try:
        return run_python("").passed
    except SandboxMissing:
        return False


def _start(source: str, cpu_seconds: int, held: ExitStack) -> "tuple[subprocess.Popen[bytes], int]":
    """The sandbox, about to begin, and a file that tells the number of its process."""
    program = _memory_file(source.encode(errors="replace"), held)
    refusals = _memory_file(_refusals(platform.machine()), held)
    information = _memory_file(b"", held)
    command = _bubblewrap(program, refusals, information)
    process = subprocess.Popen(
        [*command, "/python/bin/python", "-B", "-S", "-s", "-c", _boot(cpu_seconds)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env={},
        cwd="/",
        pass_fds=[program, refusals, information],
    )
    return held.enter_context(process), information


def _begin(process: "subprocess.Popen[bytes]", mark: bytes) -> None:
    assert process.stdin is not None
    assert process.stdout is not None
    if not _speaks(process, START_SECONDS):
        raise SandboxMissing(f"Code cannot be run here: bubblewrap did not start within {START_SECONDS} s.")
    first = os.read(process.stdout.fileno(), 1)
    if first != READY:
        told = (first + process.stdout.read()).decode(errors="replace").strip().splitlines() or ["no answer"]
        raise SandboxMissing(
            f"Code cannot be run here: bubblewrap does not work ({told[-1]}). "
            "It needs version 0.8 or later and the right to make user namespaces."
        )
    process.stdin.write(mark)
    process.stdin.close()


def _bubblewrap(program: int, refusals: int, information: int) -> list[str]:
    command = shutil.which("bwrap")
    if command is None:
        raise SandboxMissing("Code cannot be run here: install bubblewrap (`apt-get install bubblewrap`).")
    return [
        command,
        *("--unshare-all", "--unshare-user", "--disable-userns", "--uid", USER, "--gid", USER),
        *("--cap-drop", "ALL", "--seccomp", str(refusals), "--info-fd", str(information)),
        *("--as-pid-1", "--new-session", "--die-with-parent", "--hostname", "sandbox"),
        *("--clearenv", "--setenv", "PYTHONHASHSEED", "0", "--setenv", "LD_LIBRARY_PATH", "/python/lib"),
        *(part for path, place in _readable() for part in ("--ro-bind", str(path), place)),
        *_covers(),
        *("--perms", "0444", "--file", str(program), "/answer.py"),
        *("--size", str(MAX_TMP_BYTES), "--tmpfs", "/tmp", "--chdir", "/tmp"),
        *("--remount-ro", "/", "--"),
    ]


def _readable() -> Iterator[tuple[Path, str]]:
    """What the sandbox can read of the host, and where: the interpreter, its library, the system's libraries."""
    library = Path(sysconfig.get_path("stdlib"))
    yield Path(sys.executable).resolve(), "/python/bin/python"
    yield library, f"/python/lib/{library.name}"
    shared = Path(sysconfig.get_config_var("LIBDIR"), sysconfig.get_config_var("INSTSONAME"))
    if shared.suffix != ".a" and shared.is_file():
        yield shared, f"/python/lib/{shared.name}"
    architecture = sysconfig.get_config_var("MULTIARCH") or f"{platform.machine()}-linux-gnu"
    for folder in ("/lib64", f"/lib/{architecture}", "/usr/lib64", f"/usr/lib/{architecture}"):
        if Path(folder).is_dir():
            yield Path(folder), folder


def _covers() -> Iterator[str]:
    """Empty folders over the packages that were installed into this Python."""
    library = Path(sysconfig.get_path("stdlib"))
    for packages in sorted(library.glob("*-packages")):
        place = f"/python/lib/{library.name}/{packages.name}"
        yield from ("--tmpfs", place, "--remount-ro", place)


def _boot(cpu_seconds: int) -> str:
    limits = {
        "RLIMIT_CPU": cpu_seconds,
        "RLIMIT_AS": MAX_MEMORY_BYTES,
        "RLIMIT_FSIZE": MAX_FILE_BYTES,
        "RLIMIT_NOFILE": MAX_OPEN_FILES,
        "RLIMIT_NPROC": 1,
        "RLIMIT_CORE": 0,
        "RLIMIT_MEMLOCK": 0,
    }
    return BOOT.format(limits=limits)


def _refusals(machine: str) -> bytes:
    """A seccomp filter (linux/filter.h, linux/seccomp.h): the calls of `REFUSED_CALLS` fail with EPERM.

    Raises:
        SandboxMissing: the numbers of this machine's system calls are not known here.
    """
    if machine not in REFUSED_CALLS:
        raise SandboxMissing(f"Code cannot be run here: the sandbox knows {', '.join(AUDIT_ARCH)}, not {machine}.")
    load, equal, at_least, leave = 0x20, 0x15, 0x35, 0x06
    kill, refuse, allow = 0x80000000, 0x00050001, 0x7FFF0000
    steps = [(load, 0, 0, 4), (equal, 1, 0, AUDIT_ARCH[machine]), (leave, 0, 0, kill), (load, 0, 0, 0)]
    if machine == "x86_64":  # the same calls by other numbers, from 2^30 on
        steps += [(at_least, 0, 1, 0x40000000), (leave, 0, 0, kill)]
    for number in REFUSED_CALLS[machine]:
        steps += [(equal, 0, 1, number), (leave, 0, 0, refuse)]
    return _packed([*steps, (leave, 0, 0, allow)])


def _packed(steps: Sequence[tuple[int, int, int, int]]) -> bytes:
    return b"".join(struct.pack("=HBBI", *step) for step in steps)


def _memory_file(content: bytes, held: ExitStack) -> int:
    descriptor = os.memfd_create("sandbox")
    held.callback(os.close, descriptor)
    with os.fdopen(os.dup(descriptor), "wb") as file:
        file.write(content)
    os.lseek(descriptor, 0, os.SEEK_SET)
    return descriptor


def _read(process: "subprocess.Popen[bytes]", deadline: float) -> tuple[bytes, Reason | None]:
    """What the program wrote until it ended, and why it must be stopped if it has not."""
    assert process.stdout is not None
    output = b""
    while _speaks(process, deadline - time.monotonic()):
        piece = os.read(process.stdout.fileno(), 65_536)
        if not piece:
            return output, _wait(process, deadline)
        output += piece
        if len(output) > MAX_OUTPUT_BYTES:
            return output, "output"
    return output, "timeout"


def _speaks(process: "subprocess.Popen[bytes]", seconds: float) -> bool:
    """Whether there is output, or its end, within `seconds`."""
    with selectors.DefaultSelector() as selector:
        selector.register(process.stdout, selectors.EVENT_READ)  # type: ignore[arg-type]  # it is a pipe
        return bool(selector.select(max(seconds, 0)))


def _wait(process: "subprocess.Popen[bytes]", deadline: float) -> Reason | None:
    """A program that closed its output may still run."""
    try:
        process.wait(max(deadline - time.monotonic(), 0))
    except subprocess.TimeoutExpired:
        return "timeout"
    return None


def _stop(process: "subprocess.Popen[bytes]", information: int) -> None:
    """End what still runs. The program is killed and bubblewrap reaps it, which nobody might do the other way round."""
    told = os.pread(information, 4096, 0)
    if process.poll() is None and told:
        with suppress(ProcessLookupError):
            os.kill(json.loads(told)["child-pid"], signal.SIGKILL)
    elif process.poll() is None:
        process.kill()
