"""Work on folders that only one process of this data folder may do at a time."""

import fcntl
import hashlib
from collections.abc import Iterator
from contextlib import contextmanager

from registry.settings import get_settings


@contextmanager
def hold(name: str) -> Iterator[None]:
    """Wait until nobody else holds the name, and hold it; never hold two at a time.

    The lock ends with the process, however that ends. Names share 256 files, so that those do not grow with them:
    now and then somebody waits for a name that is not theirs.
    """
    with _hold_file(hashlib.sha256(name.encode()).hexdigest()[:2]):
        yield


@contextmanager
def hold_registering() -> Iterator[None]:
    """Wait until nobody else registers a checkpoint, for the moment between what a quota allows and the row.

    It may be held inside of `hold`, and nothing inside of it.
    """
    with _hold_file("registering"):
        yield


@contextmanager
def _hold_file(name: str) -> Iterator[None]:
    folder = get_settings().locks_dir
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / name).open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
