"""The files of a revision as the Hub protocol tells them: sizes, git's names, and the folders that they lie in."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy.orm import Session

from registry import db, gitblobs
from registry.hub import Revision
from server import stored


@dataclass(frozen=True)
class Entry:
    """One file."""

    path: str
    size: int
    sha256: str
    oid: str
    """sha1 of the git blob; for a large file of the pointer in its place."""
    is_large: bool

    @property
    def etag(self) -> str:
        """What the client keeps the file under: the sha256 of a large file, git's name of a regular one."""
        return self.sha256 if self.is_large else self.oid

    @property
    def lfs(self) -> dict[str, Any]:
        """What is told of a large file."""
        pointer_size = len(gitblobs.pointer(self.sha256, self.size))
        return {"oid": self.sha256, "size": self.size, "pointerSize": pointer_size}

    def told(self) -> dict[str, Any]:
        """The entry in a list of files."""
        plain = {"type": "file", "oid": self.oid, "size": self.size, "path": self.path}
        return {**plain, "lfs": self.lfs} if self.is_large else plain

    def sibling(self, *, blobs: bool) -> dict[str, Any]:
        """The entry in a model's description; `blobs` asks for sizes and names too."""
        if not blobs:
            return {"rfilename": self.path}
        told = {"rfilename": self.path, "size": self.size, "blobId": self.oid}
        lfs = {"sha256": self.sha256, "size": self.size, "pointerSize": self.lfs["pointerSize"]}
        return {**told, "lfs": lfs} if self.is_large else told


def entries(session: Session, revision: Revision, names: Sequence[str] | None = None) -> list[Entry]:
    """The files of a revision by path, or those of the given names that it has.

    Git's names of small files that nobody has asked for before are worked out now and kept.
    """
    chosen = revision.files if names is None else [name for name in names if name in revision.files]
    files = {name: revision.files[name] for name in chosen}
    large = {
        name: not file.oid if revision.commit is not None else gitblobs.is_large(name, file.size)
        for name, file in files.items()
    }
    wanted = {
        file.sha256: stored.Content(revision.place(name), file.sha256, file.size)
        for name, file in files.items()
        if not large[name] and not file.oid
    }
    oids = gitblobs.known(session, wanted) if wanted else {}
    if missing := [content for sha256, content in wanted.items() if sha256 not in oids]:
        found = gitblobs.work_out({content.sha256: stored.here(content) for content in missing})
        with db.transaction() as writing:
            gitblobs.keep(writing, found)
        oids |= found
    return [
        Entry(
            name,
            file.size,
            file.sha256,
            gitblobs.oid_of(gitblobs.pointer(file.sha256, file.size)) if large[name] else file.oid or oids[file.sha256],
            large[name],
        )
        for name, file in sorted(files.items())
    ]


def listing(found: Sequence[Entry], folder: str = "", *, recursive: bool) -> list[dict[str, Any]]:
    """The files and folders below a folder; only those directly in it unless `recursive`. A file lists itself."""
    own = [one for one in found if one.path == folder]
    inside = f"{folder}/" if folder else ""
    below = [one for one in found if one.path.startswith(inside)]
    if own or not below:
        return [one.told() for one in own]
    folders = _folders(below, inside)
    shown = [one for one in below if recursive or "/" not in one.path[len(inside) :]]
    kept = [path for path in folders if recursive or "/" not in path[len(inside) :]]
    told = [one.told() for one in shown] + [folder_told(path, below) for path in kept]
    return sorted(told, key=lambda one: str(one["path"]))


def folder_told(path: str, found: Sequence[Entry]) -> dict[str, Any]:
    """A folder in a list."""
    inside = {one.path[len(path) + 1 :]: one.oid for one in found if one.path.startswith(f"{path}/")}
    return {"type": "directory", "oid": gitblobs.tree_oid(inside), "size": 0, "path": path}


def _folders(found: Sequence[Entry], inside: str) -> set[str]:
    paths = set()
    for one in found:
        parts = one.path[len(inside) :].split("/")
        paths |= {inside + "/".join(parts[:number]) for number in range(1, len(parts))}
    return paths
