"""The administrators' page of the disk: what takes space, what quotas are left, and where to make room."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from registry import quota
from registry.models import Checkpoint, User
from registry.quota import Usage
from registry.settings import get_settings
from server import auth, csrf, diskspace, render
from server.deps import ReadSession
from server.diskspace import OfRun, Space
from server.i18n import N_

router = APIRouter(prefix="/admin/disk", route_class=csrf.FormRoute, include_in_schema=False)
WORDS = {
    "checkpoints": N_("Checkpoints"),
    "samples": N_("Answers of evaluations"),
    "uploads": N_("Uploads on their way"),
    "database": N_("Database"),
    "training": N_("Training: states and corpus"),
    "logs": N_("Logs"),
}
MAX_PEOPLE = 20


class Segment(NamedTuple):
    """A part of the bar, in per cent of the disk."""

    name: str
    size_bytes: int
    start: float
    width: float
    number: int


class Person(NamedTuple):
    """What one person's checkpoints have."""

    name: str
    usage: Usage


@dataclass(frozen=True)
class DiskPage:
    """Context of admin/disk.html."""

    space: Space
    segments: Sequence[Segment]
    words: Mapping[str, str]
    runs: Sequence[OfRun]
    site: Usage
    people: Sequence[Person]
    must_stay_free: int
    is_tight: bool
    """Less is free than must stay so: nothing is taken in."""


@router.get("")
def show_disk(request: Request, session: ReadSession, _admin: auth.Admin) -> HTMLResponse:
    """What takes space."""
    space, kept = diskspace.look(session), get_settings().free_disk_bytes
    context = DiskPage(
        space=space,
        segments=_segments(space),
        words=WORDS,
        runs=diskspace.of_runs(session),
        site=quota.site_usage(session),
        people=_people(session),
        must_stay_free=kept,
        is_tight=space.free_bytes < kept,
    )
    return render.page(request, "admin/disk.html", context)


def _segments(space: Space) -> list[Segment]:
    parts = [*space.parts, ("other", space.other_bytes)]
    start, found = 0.0, []
    for number, (name, size_bytes) in enumerate(parts, 1):
        width = 100 * size_bytes / max(1, space.total_bytes)
        found.append(Segment(name, size_bytes, round(start, 3), round(width, 3), number))
        start += width
    return found


def _people(session: Session) -> list[Person]:
    size = func.sum(Checkpoint.size_bytes)
    query = select(User).join(Checkpoint, Checkpoint.user_id == User.id).group_by(User.id).order_by(size.desc())
    return [Person(user.name, quota.user_usage(session, user)) for user in session.scalars(query.limit(MAX_PEOPLE))]
