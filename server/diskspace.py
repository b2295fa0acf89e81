"""What takes space on the disk of the site. Folders are walked, at most once a minute: they may hold many files."""

import os
import shutil
import time
from collections.abc import Sequence
from pathlib import Path
from threading import Lock
from typing import NamedTuple

from sqlalchemy import func, select, text
from sqlalchemy.orm import Session

from registry import blobs
from registry.models import Checkpoint, Run
from registry.models.base import REJECTED
from registry.settings import get_settings

FRESH_SECONDS = 60.0


class OfRun(NamedTuple):
    """What the checkpoints of a run have, files that several share counted for each."""

    run: str
    num: int
    num_rejected: int
    size_bytes: int
    rejected_bytes: int


class Part(NamedTuple):
    """One part of the disk."""

    name: str
    size_bytes: int


class Space(NamedTuple):
    """The disk as it was a moment ago."""

    parts: Sequence[Part]
    free_bytes: int
    total_bytes: int
    other_bytes: int
    """What is not ours, or lies in places that are not counted."""
    blobs: blobs.Usage


class _Cache:
    def __init__(self) -> None:
        self.lock = Lock()  # one request walks, the others use what it finds
        self.taken_at = float("-inf")
        self.home: Path | None = None
        self.space: Space | None = None


_cache = _Cache()


def look(session: Session) -> Space:
    """What takes space, as of a minute ago at most."""
    with _cache.lock:
        home = get_settings().home
        stale = time.monotonic() - _cache.taken_at > FRESH_SECONDS
        if _cache.space is None or stale or home != _cache.home:
            _cache.space, _cache.home, _cache.taken_at = _measure(session), home, time.monotonic()
        return _cache.space


def of_runs(session: Session) -> list[OfRun]:
    """Every run with checkpoints, the largest first; one query."""
    rejected = Checkpoint.state == REJECTED
    figures = (
        func.count(),
        func.count().filter(rejected),
        func.coalesce(func.sum(Checkpoint.size_bytes), 0),
        func.coalesce(func.sum(Checkpoint.size_bytes).filter(rejected), 0),
    )
    query = select(Run.name, *figures).join(Checkpoint, Checkpoint.run_id == Run.id).group_by(Run.name)
    rows = session.execute(query.order_by(figures[2].desc(), Run.name)).all()
    return [OfRun(name, num, refused, int(size), int(lost)) for name, num, refused, size, lost in rows]


def _measure(session: Session) -> Space:
    settings = get_settings()
    settings.home.mkdir(parents=True, exist_ok=True)
    seen: set[tuple[int, int]] = set()
    # Blobs first: a folder of checkpoints holds links to them, and each file is counted once.
    parts = [
        Part("checkpoints", _size(settings.blobs_dir, seen) + _size(settings.checkpoints_dir, seen)),
        Part("samples", _size(settings.samples_dir, seen)),
        Part("uploads", _size(settings.uploads_dir, seen)),
        Part("database", _database_size(session, seen)),
        Part("training", _size(settings.home / "runs", seen) + _size(settings.home / "corpus", seen)),
        Part("logs", _size(settings.home / "logs", seen)),
    ]
    disk = shutil.disk_usage(settings.home)
    other = max(0, disk.used - sum(part.size_bytes for part in parts))
    return Space(parts, disk.free, disk.total, other, blobs.usage())


def _size(folder: Path, seen: set[tuple[int, int]]) -> int:
    """Bytes of the files below a folder that were not counted yet; a file that goes meanwhile counts nothing."""
    total, waiting = 0, [folder]
    while waiting:
        try:
            with os.scandir(waiting.pop()) as entries:
                for entry in entries:
                    if entry.is_dir(follow_symlinks=False):
                        waiting.append(Path(entry.path))
                    else:
                        total += _once(entry.stat(follow_symlinks=False), seen)
        except FileNotFoundError:
            continue
    return total


def _once(found: os.stat_result, seen: set[tuple[int, int]]) -> int:
    if found.st_nlink > 1:
        if (found.st_dev, found.st_ino) in seen:
            return 0
        seen.add((found.st_dev, found.st_ino))
    return found.st_size


def _database_size(session: Session, seen: set[tuple[int, int]]) -> int:
    if session.get_bind().dialect.name == "postgresql":
        return int(session.execute(text("SELECT pg_database_size(current_database())")).scalar_one())
    file = Path(get_settings().database.removeprefix("sqlite:///"))
    return sum(_once(one.stat(), seen) for one in file.parent.glob(f"{file.name}*") if one.is_file())
