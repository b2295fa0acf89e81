"""Pushes every checkpoint that a trainer writes below a folder, once, as soon as it is whole."""

import json
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from grow import folders
from grow.folders import Place
from registry.errors import Conflict, Invalid, NoRoom, Refused, RegistryError

STATE_FILE = ".grow-watch.json"
MAX_DEPTH = 2
SETTLE_SECONDS = 5.0
"""A folder that has not changed for so long is done, if its weights can be read to their end."""

Push = Callable[[Path, Place], str]
Say = Callable[[str], None]
FINAL = (Conflict, Invalid, Refused)
"""Refusals that another try of the same files would meet again."""


class Watcher:
    """Remembers beside the folders what it has pushed, so that a restart pushes nothing twice."""

    def __init__(self, root: Path, push: Push, say: Say, *, settle_seconds: float = SETTLE_SECONDS) -> None:
        self._root, self._push, self._say, self._settle_seconds = root, push, say, settle_seconds
        self._state_path = root / STATE_FILE
        self._done: dict[str, str] = self._load()
        self._seen: dict[str, tuple[str, float]] = {}
        self._told: set[tuple[str, str]] = set()

    def poll(self) -> int:
        """Push what has become whole since; returns how many checkpoints."""
        return sum(self._look_at(folder) for folder in sorted(self._candidates(), key=_order))

    def _candidates(self) -> Iterator[Path]:
        waiting = [(self._root, 0)]
        while waiting:
            folder, depth = waiting.pop()
            if folders.looks_like_one(folder):
                yield folder
            if depth < MAX_DEPTH:
                inside = (path for path in folder.iterdir() if path.is_dir() and not path.is_symlink())
                # What begins so is being written and will be renamed.
                waiting += [(path, depth + 1) for path in inside if not path.name.startswith((".", "tmp"))]

    def _look_at(self, folder: Path) -> bool:
        name = folder.relative_to(self._root).as_posix()
        try:
            signature = folders.signature(folder)
        except OSError:
            return False  # the trainer has just deleted or renamed it
        if self._done.get(name) == signature or not self._is_settled(name, signature, folder):
            return False
        place = folders.place_of(folder)
        if place is None:
            self._say_once(name, f"{name}: neither its name nor {folders.STATE} says the step; it is left alone.")
            return False
        try:
            label = self._push(folder, place)
        except FINAL as error:
            self._say(f"{name}: {error}")
            self._remember(name, signature)
            return False
        except (RegistryError, NoRoom) as error:
            self._say_once(name, f"{name}: {error} It is tried again.")
            return False
        self._say(f"{name}: pushed as {label}")
        self._remember(name, signature)
        return True

    def _is_settled(self, name: str, signature: str, folder: Path) -> bool:
        before, since = self._seen.get(name, ("", 0.0))
        now = time.monotonic()
        if before != signature:
            self._seen[name] = (signature, now)
            return False
        return now - since >= self._settle_seconds and folders.is_readable(folder)

    def _say_once(self, name: str, sentence: str) -> None:
        if (name, sentence) not in self._told:
            self._told.add((name, sentence))
            self._say(sentence)

    def _load(self) -> dict[str, str]:
        try:
            found = json.loads(self._state_path.read_text())
        except FileNotFoundError:
            return {}
        except ValueError as error:
            raise Invalid(
                f"{self._state_path} cannot be read ({error}). Delete it to push everything again."
            ) from error
        return {str(name): str(signature) for name, signature in found.items()} if isinstance(found, dict) else {}

    def _remember(self, name: str, signature: str) -> None:
        self._done[name] = signature
        temporary = self._state_path.with_suffix(".tmp")
        temporary.write_text(json.dumps(self._done, indent=1))
        os.replace(temporary, self._state_path)


def _order(folder: Path) -> tuple[int, str]:
    place = folders.place_of(folder)
    return (place.step if place is not None else 0, str(folder))
