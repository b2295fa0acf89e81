"""The most memory that an engine has held with a checkpoint, for the hardware table (`analysis.memory` computes it)."""

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

STATUS = Path("/proc")


@dataclass(frozen=True)
class Peak:
    """What was held at most, and under which load."""

    engine: str
    version: str
    dtype: str
    device: str
    """`cpu` or `cuda`."""
    folder: Path
    """The checkpoint that was held."""
    num_bytes: int
    kv_tokens: int
    """Tokens that the KV cache had room for, or held."""
    step_tokens: int
    """Tokens that were computed at a time at most."""


def resident_peak(pid: int) -> int:
    """Bytes of main memory that a process has held at most, 0 where the system does not say (VmHWM of Linux)."""
    try:
        lines = (STATUS / str(pid) / "status").read_text().splitlines()
    except OSError:
        return 0  # it has just ended, or this is no Linux
    found = next((line for line in lines if line.startswith("VmHWM:")), "VmHWM: 0 kB")
    return int(found.split()[1]) * 1024


def group_peak(group: int) -> int:
    """The same for all processes of a group together: an upper limit, since they need not have peaked at one time."""
    return sum(resident_peak(pid) for pid in _members(group))


def _members(group: int) -> Iterable[int]:
    for entry in STATUS.iterdir():
        if entry.name.isdecimal():
            try:
                if os.getpgid(int(entry.name)) == group:
                    yield int(entry.name)
            except ProcessLookupError:
                continue  # it has just ended
