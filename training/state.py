"""What a run can be resumed from: DeepSpeed's own files under a mark that is written last.

`<home>/runs/<run>/state/step-<N>/` counts only with its `COMPLETE.json`. DeepSpeed's `latest` file is
neither written nor read: it is not atomic, and says nothing about the files it points at.
"""

import json
import os
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

MARK = "COMPLETE.json"


def tag(step: int) -> str:
    """Name of the folder of a step."""
    return f"step-{step}"


def complete_steps(states: Path) -> list[int]:
    """The steps one can resume from, in order; half-written ones are not among them."""
    if not states.is_dir():
        return []
    steps = []
    for folder in states.iterdir():
        match = re.fullmatch(r"step-(\d+)", folder.name)
        if match and (folder / MARK).is_file():
            steps.append(int(match[1]))
    return sorted(steps)


def mark_complete(folder: Path, facts: Mapping[str, Any]) -> None:
    """Flush every file of the folder to disk, then write the mark."""
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            _sync(path)
    _sync(folder)
    write_json(folder / MARK, facts)


def read_mark(folder: Path) -> dict[str, Any]:
    """The facts given with the mark."""
    return read_json(folder / MARK)


def read_json(path: Path) -> dict[str, Any]:
    """The content of a small file."""
    content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return content


def remove(folder: Path) -> None:
    """Delete a state, its mark first: a deletion that is cut short leaves no state that looks whole."""
    (folder / MARK).unlink(missing_ok=True)
    shutil.rmtree(folder, ignore_errors=True)


def remove_incomplete(states: Path) -> None:
    """Delete what a killed process left half-written."""
    if not states.is_dir():
        return
    for folder in states.iterdir():
        if folder.is_dir() and not (folder / MARK).is_file():
            shutil.rmtree(folder)


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write a small file so that a reader sees all of it or nothing."""
    temporary = path.with_name(f".{path.name}.tmp")
    with temporary.open("w", encoding="utf-8") as file:
        json.dump(content, file, indent=1, sort_keys=True)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)
    _sync(path.parent)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
