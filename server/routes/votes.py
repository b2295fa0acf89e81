"""Routes of administrators about the arena: votes that look odd, and rows that were changed by hand."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from fastapi import APIRouter, Request, Response
from fastapi.responses import RedirectResponse

from registry import votes
from registry.models import Checkpoint
from registry.votes import Docket
from server import arena, auth, csrf, render
from server.deps import ReadSession, WriteSession

router = APIRouter(prefix="/admin/votes", route_class=csrf.FormRoute, include_in_schema=False)


@dataclass(frozen=True)
class VotesPage:
    """Context of admin/votes.html."""

    docket: Docket
    checkpoints: Mapping[int, Checkpoint]
    unsigned: Sequence[int]
    """Ids of votes without this site's signature."""
    done: str = ""
    is_checked: bool = False
    """Whether all of them were looked at just now."""


@router.get("")
def show_votes(
    request: Request, session: ReadSession, _admin: auth.Admin, page: int = 1, done: str = "", verify: bool = False
) -> Response:
    """Flagged votes that nobody has decided about; with `verify` every signature is checked again."""
    docket = votes.flagged(session, page=page)
    unsigned = votes.unsigned(session, afresh=verify)
    context = VotesPage(docket, arena.by_id(session, docket.votes), unsigned, done, verify)
    return render.page(request, "admin/votes.html", context)


@router.post("/{vote_id}/clear")
def clear_vote(session: WriteSession, admin: auth.Admin, vote_id: int) -> Response:
    """It counts after all."""
    votes.settle(session, admin, vote_id, does_count=True)
    return RedirectResponse("/admin/votes?done=cleared", 303)


@router.post("/{vote_id}/confirm")
def confirm_vote(session: WriteSession, admin: auth.Admin, vote_id: int) -> Response:
    """It stays out."""
    votes.settle(session, admin, vote_id, does_count=False)
    return RedirectResponse("/admin/votes?done=confirmed", 303)
