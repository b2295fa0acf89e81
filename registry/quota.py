"""How much of this site's disk checkpoints may take: all together, each person's, and what must stay free.

Sizes are those that checkpoints have for whoever loads them: a file that two share counts for both, so what somebody
has used never depends on what others hold.
"""

import errno
import shutil
from typing import NamedTuple

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from registry.errors import NoRoom
from registry.models import Checkpoint, User
from registry.models.base import READY, REJECTED, VERIFYING
from registry.settings import get_settings

HELD = (VERIFYING, READY, REJECTED)
"""States of checkpoints whose files are kept."""
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class Usage(NamedTuple):
    """Bytes that are used, and how many may be; a limit of 0 is none."""

    used: int
    limit: int

    @property
    def left(self) -> int | None:
        """Bytes that may still come; None: as many as you like."""
        return max(0, self.limit - self.used) if self.limit else None


def site_usage(session: Session) -> Usage:
    """What all checkpoints have together."""
    return Usage(_used(session, None), get_settings().checkpoints_bytes)


def user_usage(session: Session, user: User) -> Usage:
    """What the checkpoints have that this person brought."""
    return Usage(_used(session, user), get_settings().user_checkpoints_bytes)


class Promised(NamedTuple):
    """Bytes of what was announced and is no checkpoint yet: this person's, and everybody's together."""

    own: int = 0
    all: int = 0


NOTHING_PROMISED = Promised()


def check(session: Session, user: User | None, new_bytes: int, promised: Promised = NOTHING_PROMISED) -> None:
    """Whether there is room for so many bytes more; call it before they are sent, and again before they are kept.

    Args:
        session: a read session will do.
        user: who brings them; None: the site itself, which has no limit of its own.
        new_bytes: of the whole checkpoint, or 0 to ask only whether anything may come at all.
        promised: what counts as if it were here already.

    Raises:
        NoRoom: in one sentence for whoever brings them.
    """
    settings = get_settings()
    if new_bytes > settings.max_upload_bytes:
        raise NoRoom(
            "A checkpoint of %(size)s is too large: at most %(limit)s are accepted.",
            size=readable(new_bytes),
            limit=readable(settings.max_upload_bytes),
        )
    check_quotas(session, user, new_bytes, promised)
    check_disk(new_bytes)


def check_quotas(session: Session, user: User | None, new_bytes: int, promised: Promised = NOTHING_PROMISED) -> None:
    """Whether the quotas alone have room for so many bytes more; arguments as of `check`.

    Raises:
        NoRoom: one of them has not.
    """
    if user is not None:
        own = user_usage(session, user)
        _check_own(own._replace(used=own.used + promised.own), new_bytes)
    whole = site_usage(session)
    whole = whole._replace(used=whole.used + promised.all)
    if whole.left is not None and new_bytes > whole.left:
        raise NoRoom(
            "The checkpoints of this site may have %(limit)s and have %(used)s: there is no room for %(size)s more. "
            "An administrator can delete some or raise the limit.",
            limit=readable(whole.limit),
            used=readable(whole.used),
            size=readable(new_bytes),
        )


def check_disk(new_bytes: int) -> None:
    """Whether the disk holds so many bytes more and keeps `Settings.free_disk_bytes`.

    Raises:
        NoRoom: it does not.
    """
    settings = get_settings()
    settings.home.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(settings.home).free - settings.free_disk_bytes
    if new_bytes > free:
        raise NoRoom(
            "The disk of this site has no room for it: %(size)s are needed and %(free)s can be used.",
            size=readable(new_bytes),
            free=readable(max(0, free)),
        )


def is_full(error: OSError) -> bool:
    """Whether a write failed because there is no room: the disk is full, or a limit of the system was reached."""
    return error.errno in _FULL


def disk_full() -> NoRoom:
    """What to say when the disk filled up half-way."""
    return NoRoom("The disk of this site is full, so nothing was kept. An administrator must make room first.")


def readable(number: int) -> str:
    """Bytes in the unit that leaves a number of few digits; the same in every language."""
    size, units = float(number), ["bytes", "kB", "MB", "GB", "TB", "PB"]
    while size >= 1000 and len(units) > 1:
        size, units = size / 1000, units[1:]
    return f"{number:,} bytes" if units[0] == "bytes" else f"{size:.3g} {units[0]}"


def _check_own(own: Usage, new_bytes: int) -> None:
    if own.left is not None and new_bytes > own.left:
        raise NoRoom(
            "Your checkpoints may have %(limit)s and have %(used)s: there is no room for %(size)s more.",
            limit=readable(own.limit),
            used=readable(own.used),
            size=readable(new_bytes),
        )


def _used(session: Session, user: User | None) -> int:
    query = select(func.coalesce(func.sum(Checkpoint.size_bytes), 0)).where(Checkpoint.state.in_(HELD))
    if user is not None:
        query = query.where(Checkpoint.user_id == user.id)
    return int(session.scalar(query) or 0)
