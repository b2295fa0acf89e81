"""Routes of administrators about checkpoints: finding some among thousands, and doing something to several at once."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any
from urllib.parse import parse_qsl, urlencode

from fastapi import APIRouter, Form, Request, Response
from fastapi.responses import HTMLResponse, RedirectResponse
from sqlalchemy import select
from sqlalchemy.orm import Session

from registry import db, events, inventory
from registry.errors import RegistryError
from registry.inventory import Page, Wanted
from registry.models import Checkpoint
from server import auth, csrf, growth, render
from server.deps import ReadSession
from server.i18n import error_text

router = APIRouter(prefix="/admin/checkpoints", route_class=csrf.FormRoute, include_in_schema=False)
FIELDS = ("search", "state", "origin", "kind", "precision", "released", "run", "order", "done", "num")
"""What stands in an address."""


@dataclass(frozen=True)
class CheckpointsPage:
    """Context of admin/checkpoints.html."""

    found: Page
    hrefs: Mapping[int, str]
    """Address of each checkpoint's own page."""
    wanted: Wanted
    values: Mapping[str, Sequence[Any]]
    """What the filter offers."""
    orders: Sequence[str]
    actions: Sequence[str]
    query: str
    """The filter, for the addresses of other pages."""
    done: str = ""
    num: int = 0
    refused: Sequence[tuple[str, str]] = ()
    """Checkpoints that were left out, and why."""
    error: str = ""


@dataclass(frozen=True)
class DeletePage:
    """Context of admin/delete.html."""

    checkpoints: Sequence[Checkpoint]
    query: str


@router.get("")
def show_checkpoints(
    request: Request,
    session: ReadSession,
    _admin: auth.Admin,
    page: int = 1,
    done: str = "",
    num: int = 0,
) -> HTMLResponse:
    """Those that are looked for, fifty at a time."""
    return _page(request, session, dict(request.query_params), page=page, done=done, num=num)


@router.post("")
def act(
    request: Request,
    admin: auth.Admin,
    action: Annotated[str, Form()] = "",
    one: Annotated[list[int] | None, Form()] = None,
    query: Annotated[str, Form()] = "",
    sure: Annotated[str, Form()] = "",
) -> Response:
    """Do one thing to the chosen ones; deleting asks once more."""
    ids = one or []
    fields = dict(parse_qsl(query[:1_000]))
    if action == inventory.DELETE and ids and not sure:
        with db.read_session() as session:
            chosen = session.scalars(select(Checkpoint).where(Checkpoint.id.in_(ids)).order_by(Checkpoint.id)).all()
            return render.page(request, "admin/delete.html", DeletePage(chosen, _query(fields)))
    try:
        with db.transaction() as session:
            done = inventory.act(session, admin, action, ids)
    except RegistryError as error:
        with db.read_session() as session:
            return _page(request, session, fields, error=error_text(error), status=422)
    inventory.delete_folders(session)
    if done.num:
        events.publish_board("checkpoint", {})
    if done.refused:
        refused = [(label, error_text(error)) for label, error in done.refused]
        with db.read_session() as session:
            return _page(request, session, fields, done=action, num=done.num, refused=refused)
    return RedirectResponse(f"/admin/checkpoints?{_query({**fields, 'done': action, 'num': str(done.num)})}", 303)


def _page(
    request: Request,
    session: Session,
    fields: Mapping[str, str],
    *,
    page: int = 1,
    done: str = "",
    num: int = 0,
    refused: Sequence[tuple[str, str]] = (),
    error: str = "",
    status: int = 200,
) -> HTMLResponse:
    wanted = _wanted(fields)
    found = inventory.find(session, wanted, page)
    context = CheckpointsPage(
        found=found,
        hrefs={row.checkpoint.id: growth.checkpoint_href(row.checkpoint) for row in found.rows},
        wanted=wanted,
        values=inventory.known_values(session),
        orders=tuple(inventory.ORDERS),
        actions=inventory.ACTIONS,
        query=_query({name: value for name, value in fields.items() if name not in ("done", "num", "page")}),
        done=done if done in inventory.ACTIONS else "",
        num=num,
        refused=refused,
        error=error,
    )
    return render.page(request, "admin/checkpoints.html", context, status_code=status)


def _wanted(fields: Mapping[str, str]) -> Wanted:
    """What an address asks for; what makes no sense does not matter."""
    precision = fields.get("precision", "")
    return Wanted(
        search=fields.get("search", "")[:100],
        state=fields.get("state", "")[:24],
        origin=fields.get("origin", "")[:24],
        kind=fields.get("kind", "")[:24],
        precision=int(precision) if precision.isascii() and precision.isdecimal() and len(precision) < 3 else 0,
        released={"yes": True, "no": False}.get(fields.get("released", "")),
        run=fields.get("run", "")[:100],
        order=fields.get("order", "newest")[:24],
    )


def _query(fields: Mapping[str, str]) -> str:
    return urlencode({name: fields[name] for name in FIELDS if fields.get(name)})
