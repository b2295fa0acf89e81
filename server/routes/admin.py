"""How the site stands, for its administrators."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse
from sqlalchemy.orm import Session

from registry import accounts, chats, checkpoints, inventory, joblog, news, reports, tickets, votes, webhooks
from registry.inventory import Row, Wanted
from registry.models import Post, User, Webhook
from registry.models.base import REJECTED
from server import auth, csrf, pulse, render
from server.deps import ReadSession

router = APIRouter(route_class=csrf.FormRoute, include_in_schema=False)

RECENT = 12


@dataclass(frozen=True)
class OverviewPage:
    """Context of admin/page.html."""

    queue: Mapping[tuple[str, str], int]
    workers: Mapping[str, str]
    broker: bool
    states: Mapping[str, int]
    recent: Sequence[Row]
    rejected: Sequence[Row]
    jobs: Mapping[str, int]
    """Long jobs by status."""
    users: Sequence[User]
    num_users: int
    num_turns: int
    num_reports: int
    """Answers that wait for a decision."""
    num_odd_votes: int
    """Votes that wait for one."""
    unsigned: Sequence[int]
    """Ids of votes without this site's signature."""
    incidents: Sequence[Post]
    planned: Sequence[Post]
    paused: Sequence[Webhook]
    """Those that the site itself has paused."""


@router.get("/admin")
def show_overview(request: Request, session: ReadSession, _admin: auth.Admin) -> HTMLResponse:
    """How things stand."""
    return render.page(request, "admin/page.html", _overview(session))


@router.get("/admin/overview")
def show_overview_fragment(request: Request, session: ReadSession, _admin: auth.Admin) -> HTMLResponse:
    """The part of the overview that changes by itself."""
    return render.page(request, "admin/_overview.html", _overview(session))


def _overview(session: Session) -> OverviewPage:
    seen = pulse.take()
    return OverviewPage(
        queue=tickets.count_by_lane(session),
        workers=seen.workers,
        broker=seen.broker,
        states=checkpoints.count_by_state(session),
        recent=inventory.find(session, Wanted()).rows[:RECENT],
        rejected=inventory.find(session, Wanted(state=REJECTED)).rows[:RECENT],
        jobs=joblog.count(session),
        users=accounts.list_users(session, RECENT),
        num_users=accounts.count_users(session),
        num_turns=chats.count_turns(session),
        num_reports=reports.count_open(session),
        num_odd_votes=votes.count_waiting(session),
        unsigned=votes.unsigned(session),
        incidents=news.open_incidents(session),
        planned=news.list_planned(session),
        paused=webhooks.paused_by_site(session),
    )
