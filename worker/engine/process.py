"""One engine child: its command runs in a process group of its own and never outlives this process."""

import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from worker.engine import child

_MAX_LOG_BYTES = 5_000_000
_TAIL_BYTES = 20_000
_MAX_LINE_CHARS = 400
_NOISE = "Failed to load "
"""What torchao says of kernels for other devices at every start."""


class EngineProcess:
    """Starts on creation; `stop` ends the command and everything it started."""

    def __init__(self, command: Sequence[str], environment: Mapping[str, str], log_file: Path) -> None:
        self.log_file = log_file
        log_file.parent.mkdir(parents=True, exist_ok=True)
        if log_file.exists() and log_file.stat().st_size > _MAX_LOG_BYTES:
            log_file.replace(log_file.with_suffix(".old.log"))
        with log_file.open("ab") as log:
            self._log_start = log.tell()
            self._process = subprocess.Popen(
                [sys.executable, child.__file__, *command],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                env=dict(environment),
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        """Also the id of the process group."""
        return self._process.pid

    @property
    def is_alive(self) -> bool:
        """Whether the command still runs."""
        return self._process.poll() is None

    def stop(self) -> None:
        """End the group; returns when the head of it is gone."""
        if self._process.stdin is not None and not self._process.stdin.closed:
            self._process.stdin.close()
        try:
            self._process.wait(child.GRACE_SECONDS + 4)
        except subprocess.TimeoutExpired:
            self._kill_group()
            self._process.wait()
        self._kill_group()

    def kill(self) -> None:
        """End the group at once, without a word."""
        self._kill_group()
        self._process.wait()

    def last_words(self) -> str:
        """The line of the log that best tells why the command ended."""
        lines = [line.strip() for line in self._tail() if not line.startswith(_NOISE)]
        errors = [line for line in lines if "Error" in line and "raise " not in line]
        return (errors or lines or ["it wrote nothing"])[-1][-400:]

    def last_lines(self, num_lines: int = 20) -> str:
        """The end of what the command wrote, for people."""
        return "\n".join(line[:_MAX_LINE_CHARS] for line in self._tail()[-num_lines:])

    def _tail(self) -> list[str]:
        with self.log_file.open("rb") as log:
            log.seek(max(self._log_start, log.seek(0, os.SEEK_END) - _TAIL_BYTES))
            lines = log.read().decode(errors="replace").splitlines()
        return [line.rstrip() for line in lines if line.strip()]

    def _kill_group(self) -> None:
        try:
            os.killpg(self.pid, signal.SIGKILL)
        except ProcessLookupError:
            return  # everybody is gone already
