"""Runs a command as the head of this process group and ends the whole group when standard input closes.

The engine's supervisor holds the other end of that pipe: however it dies, no engine is left behind.
Uses the standard library only, so that it costs a few megabytes.
"""

import os
import select
import signal
import subprocess
import sys

GRACE_SECONDS = 5.0


def main(command: list[str]) -> None:
    """Run until the command ends or the supervisor is gone, then end everything in the group."""
    signal.signal(signal.SIGTERM, lambda _number, _frame: None)
    child = subprocess.Popen(command, stdin=subprocess.DEVNULL)
    while child.poll() is None:
        readable, _, _ = select.select([0], [], [], 0.5)
        if readable and not os.read(0, 1):
            break
    os.killpg(0, signal.SIGTERM)
    try:
        child.wait(GRACE_SECONDS)
    except subprocess.TimeoutExpired:
        sys.stderr.write("The engine did not end in time and is killed.\n")
    os.killpg(0, signal.SIGKILL)


if __name__ == "__main__":
    main(sys.argv[1:])
