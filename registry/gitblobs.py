"""The names under which git knows files: the Hub protocol speaks of small files by them, and of large ones by pointers.

A large file ("LFS") is known by its sha256; what git itself holds in its place is a pointer of three lines.
"""

import hashlib
from collections.abc import Collection, Mapping
from pathlib import Path

from sqlalchemy import select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session

from registry.models import GitBlob

LARGE_SUFFIXES = (".safetensors", ".model")
REGULAR_BYTES = 10 * 2**20
"""No file above this is a regular one: its whole content is read to name it."""
LINES = "version https://git-lfs.github.com/spec/v1\noid sha256:{sha256}\nsize {size}\n"


def is_large(name: str, size: int) -> bool:
    """Whether the protocol treats a file as large."""
    return name.endswith(LARGE_SUFFIXES) or size > REGULAR_BYTES


def pointer(sha256: str, size: int) -> bytes:
    """What git holds in place of a large file."""
    return LINES.format(sha256=sha256, size=size).encode()


def oid_of(content: bytes) -> str:
    """sha1 of the git blob with that content."""
    return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()


def tree_oid(oids: Mapping[str, str]) -> str:
    """sha1 of the git tree that holds blobs under these paths, such as `a.json` and `folder/b.json`."""
    files = {name: oid for name, oid in oids.items() if "/" not in name}
    below: dict[str, dict[str, str]] = {}
    for name, oid in oids.items():
        folder, slash, rest = name.partition("/")
        if slash:
            below.setdefault(folder, {})[rest] = oid
    # git sorts a folder as if its name ended with a slash
    rows = [(name.encode(), b"100644 ", name, oid) for name, oid in files.items()]
    rows += [(f"{name}/".encode(), b"40000 ", name, tree_oid(inside)) for name, inside in below.items()]
    content = b"".join(mode + name.encode() + b"\0" + bytes.fromhex(oid) for _, mode, name, oid in sorted(rows))
    return hashlib.sha1(b"tree %d\0" % len(content) + content, usedforsecurity=False).hexdigest()


def known(session: Session, hashes: Collection[str]) -> dict[str, str]:
    """The names that were worked out before, by sha256."""
    rows = session.execute(select(GitBlob.sha256, GitBlob.oid).where(GitBlob.sha256.in_(hashes)))
    return {sha256: oid for sha256, oid in rows}


def work_out(files: Mapping[str, Path]) -> dict[str, str]:
    """Read regular files and name them, by sha256."""
    return {sha256: oid_of(path.read_bytes()) for sha256, path in files.items()}


def keep(session: Session, oids: Mapping[str, str]) -> None:
    """Write names down; another process may have done so meanwhile."""
    dialect = postgresql if session.get_bind().dialect.name == "postgresql" else sqlite
    rows = [{"sha256": sha256, "oid": oid} for sha256, oid in oids.items()]
    session.execute(dialect.insert(GitBlob).values(rows).on_conflict_do_nothing())
