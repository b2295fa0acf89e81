"""The Chromium of the tests and of `benchmarks/growth.py`."""

from pathlib import Path

SHELL, WHOLE = Path("/usr/bin/chromium-headless-shell"), Path("/usr/bin/chromium")
PATH = SHELL if SHELL.exists() else WHOLE
"""The shell has no windows to keep: a page in a context of its own takes a third of the processor time (3.4 over 10.8 s
for twelve of them on two busy cores)."""
ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
