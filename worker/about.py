"""What a worker says of itself besides what it does: its version, its queues, its engine, what it holds."""

import os
import socket
import subprocess
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from registry.models.base import utcnow
from registry.settings import get_settings
from worker.engine import Engine
from worker.line import Residency

_BEGAN = utcnow()
_ROOT = Path(__file__).resolve().parent.parent


def about(line: Residency, engine: Engine | None, queues: Sequence[str]) -> dict[str, Any]:
    """For the administrators' page of workers; everything in it can be written as JSON."""
    return {
        "version": version(),
        "host": socket.gethostname(),
        "pid": os.getpid(),
        "began_at": _BEGAN.isoformat(),
        "queues": list(queues),
        "engine": get_settings().engine if engine is None else f"{engine.name} {engine.version}".strip(),
        "is_engine_up": engine is not None,
        **line.holdings(),
    }


@lru_cache
def version() -> str:
    """GROW_GIT_REVISION (images have no git), or git's, with a `+` where files were changed; empty where unknown."""
    if revision := os.environ.get("GROW_GIT_REVISION"):
        return revision[:9]
    command = ["git", "-C", str(_ROOT), "describe", "--always", "--dirty=+", "--abbrev=9"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""  # no git here: an installed image
    return done.stdout.strip()
