"""Verbs of mirrors: web servers that hold a copy of the checkpoints' folder, offered beside our own downloads."""

import datetime as dt
from collections.abc import Sequence
from typing import NamedTuple
from urllib.parse import quote, urlsplit

from pydantic import HttpUrl, TypeAdapter, ValidationError
from sqlalchemy import select
from sqlalchemy.orm import Session

from registry import audit
from registry.errors import Conflict, Invalid, NotFound
from registry.models import Checkpoint, Mirror, User
from registry.models.base import READY

MAX_LABEL, MAX_URL, MAX_MIRRORS = 60, 300, 20
_address = TypeAdapter(HttpUrl)


class Sample(NamedTuple):
    """A file by which a mirror is checked: where it should be there, and its size in bytes."""

    url: str
    size: int


def list_mirrors(session: Session) -> Sequence[Mirror]:
    """Every mirror, in the order in which they were added."""
    return session.scalars(select(Mirror).order_by(Mirror.id)).all()


def offered(session: Session) -> list[Mirror]:
    """Those that are offered: not one that was found wanting when it was checked last."""
    return [mirror for mirror in list_mirrors(session) if not mirror.problem]


def add(session: Session, label: str, base_url: str, user: User | None) -> Mirror:
    """Offer a mirror. `base_url` is where its copy of the folder `checkpoints` lies.

    Raises:
        Invalid: no label, an overlong one, or an address that files cannot be below.
        Conflict: the address is known, or there are too many.
    """
    label, base_url = " ".join(label.split()), checked_url(base_url)
    if not 1 <= len(label) <= MAX_LABEL or not label.isprintable():
        raise Invalid("A mirror has a label of 1 to %(limit)s characters, which readers see.", limit=MAX_LABEL)
    present = list_mirrors(session)
    if any(mirror.base_url == base_url for mirror in present):
        raise Conflict("The mirror %(address)s is in the list already.", address=base_url)
    if len(present) >= MAX_MIRRORS:
        raise Conflict("There are %(limit)s mirrors, as many as there can be.", limit=MAX_MIRRORS)
    mirror = Mirror(label=label, base_url=base_url)
    session.add(mirror)
    session.flush()  # the trail names it by its id
    audit.note(session, user, "mirror_added", f"mirror:{mirror.id}", {"address": base_url})
    return mirror


def checked_url(address: str) -> str:
    """An address to which paths can be added, without a slash at its end.

    Raises:
        Invalid: it is none, or it holds a password, a query or a fragment.
    """
    address = address.strip()
    try:
        _address.validate_python(address)
        parts = urlsplit(address)
        hidden = parts.username or parts.password or parts.query or parts.fragment or address.endswith(("?", "#"))
        _ = parts.port
    except (ValidationError, ValueError):
        hidden, parts = "", None
    plain = address.isascii() and address.isprintable() and not set(" \"'<>\\^`{|}") & set(address)
    if parts is None or not plain or len(address) > MAX_URL:
        raise Invalid(
            "'%(address)s' is no address of a folder on a web server, such as https://mirror.example/grow/.",
            address=address[:80],
        )
    if hidden:
        raise Invalid("The address of a mirror is public: it holds no name, no password, no '?' and no '#'.")
    if any(part in (".", "..") for part in parts.path.split("/")):
        raise Invalid("The address of a mirror goes straight to its folder, without '.' and '..'.")
    return address.rstrip("/")


def remove(session: Session, mirror_id: int, user: User | None) -> Mirror:
    """Offer a mirror no longer; returns what it was.

    Raises:
        NotFound: there is none of that id.
    """
    mirror = get_mirror(session, mirror_id)
    session.delete(mirror)
    audit.note(session, user, "mirror_removed", f"mirror:{mirror.id}", {"address": mirror.base_url})
    return mirror


def get_mirror(session: Session, mirror_id: int) -> Mirror:
    """The mirror of that id.

    Raises:
        NotFound: there is none.
    """
    mirror = session.get(Mirror, mirror_id)
    if mirror is None:
        raise NotFound("There is no such mirror any more.")
    return mirror


def file_url(mirror: Mirror, checkpoint: Checkpoint, name: str) -> str:
    """Where a mirror has a file of a checkpoint."""
    return f"{mirror.base_url}/{quote(f'{checkpoint.folder}/{name}')}"


def sample(session: Session, mirror: Mirror) -> Sample:
    """The largest file of the newest ready checkpoint: what a mirror that is not whole lacks first.

    Raises:
        Conflict: no checkpoint is ready.
    """
    query = select(Checkpoint).where(Checkpoint.state == READY).order_by(Checkpoint.id.desc())
    checkpoint = session.scalars(query.limit(1)).first()
    files = checkpoint.manifest.get("files", {}) if checkpoint is not None else {}
    if checkpoint is None or not files:
        raise Conflict("There is no checkpoint that is ready, so there is nothing to look for on a mirror.")
    name = max(files, key=lambda one: int(files[one]["size"]))
    return Sample(file_url(mirror, checkpoint, name), int(files[name]["size"]))


def note_check(session: Session, mirror_id: int, problem: str, now: dt.datetime) -> None:
    """Keep what a check found; `problem` is a sentence, or empty."""
    mirror = get_mirror(session, mirror_id)
    mirror.checked_at, mirror.problem = now, problem
