"""The learn-and-forget ledger of a task, the pages of its items, and the data of both."""

import gzip
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

from fastapi import APIRouter, Depends, Query, Request, Response
from fastapi.responses import HTMLResponse
from markupsafe import Markup

from registry import suites
from registry.errors import NotFound
from registry.models import Run, Task
from server import figures, item_history, ledger, render
from server.deps import ReadSession, RunInPath
from server.heatmap import LedgerOut, words
from server.item_history import ItemOut, ItemView
from server.ledger import PAGE_ITEMS, Entry, Ledger, Selected, Selection, View
from server.outputs import ErrorOut

router = APIRouter(include_in_schema=False)
api = APIRouter(prefix="/api/v1", tags=["v1"])

Selecting = Annotated[Selection, Depends()]
NOT_FOUND: dict[int | str, dict[str, object]] = {404: {"model": ErrorOut}}
QUICK = 1
"""Level of compression: the middleware's own takes longer than the rest of the answer."""


@dataclass(frozen=True)
class LedgerPage:
    """Context of ledger/page.html."""

    run: Run
    task: Task
    title: str
    selection: Selection
    empty: str
    """Why there is nothing to see, in a sentence; the fields below are then unset."""
    whole: Ledger | None
    selected: Selected | None
    view: View
    entries: Sequence[Entry]
    """Those of this page of the table."""
    page: int
    num_pages: int
    first: int
    data_href: str
    words: Markup
    """JSON of what the heat map says."""


@dataclass(frozen=True)
class ItemPage:
    """Context of ledger/item.html."""

    run: Run
    task: Task
    title: str
    ledger_href: str
    data_href: str
    whole: Ledger
    view: ItemView


@router.get("/runs/{run}/tasks/{task}")
def show_ledger(
    request: Request,
    session: ReadSession,
    run: RunInPath,
    task: str,
    selection: Selecting,
    page: Annotated[int, Query(ge=1, le=100_000)] = 1,
) -> HTMLResponse:
    """The ledger of a task: heat map, counts by state, filters, and the items as a table."""
    found = suites.get_task(session, task)
    whole = ledger.load(session, run, found, selection)
    selected = None if isinstance(whole, str) else ledger.select_entries(whole, selection)
    entries = selected.entries if selected else []
    num_pages = max(1, -(-len(entries) // PAGE_ITEMS))
    page = min(page, num_pages)
    context = LedgerPage(
        run=run,
        task=found,
        title=figures.task_title(found),
        selection=selection,
        empty=whole if isinstance(whole, str) else "",
        whole=None if isinstance(whole, str) else whole,
        selected=selected,
        view=selection.view if isinstance(whole, str) else whole.view(selection.view),
        entries=entries[(page - 1) * PAGE_ITEMS : page * PAGE_ITEMS],
        page=page,
        num_pages=num_pages,
        first=(page - 1) * PAGE_ITEMS + 1,
        data_href=f"/api/v1/runs/{run.name}/tasks/{found.name}/ledger{selection.query().rstrip('?')}",
        words=words(),
    )
    return render.page(request, "ledger/page.html", context)


@router.get("/runs/{run}/tasks/{task}/items/{item}")
def show_item(
    request: Request, session: ReadSession, run: RunInPath, task: str, item: str, selection: Selecting
) -> HTMLResponse:
    """One item: the question, and every answer to it through training."""
    found = suites.get_task(session, task)
    life = item_history.life_of(session, run, found, item, selection)
    own = f"/runs/{run.name}/tasks/{found.name}"
    context = ItemPage(
        run=run,
        task=found,
        title=figures.task_title(found),
        ledger_href=own + selection.of_line,
        data_href=f"/api/v1{own}/items/{item}{selection.of_line}",
        whole=life.whole,
        view=item_history.view_of(life, selection),
    )
    return render.page(request, "ledger/item.html", context)


@api.get("/runs/{run}/tasks/{task}/ledger", responses=NOT_FOUND, response_model=LedgerOut)
def get_ledger(request: Request, session: ReadSession, run: RunInPath, task: str, selection: Selecting) -> Response:
    """Every item of a task by every checkpoint: right or wrong, or how likely; with what became of each item."""
    whole = ledger.load(session, run, suites.get_task(session, task), selection)
    if isinstance(whole, str):
        raise NotFound("%(why)s", why=whole)
    content = LedgerOut.of(whole, ledger.select_entries(whole, selection), selection).model_dump_json().encode()
    headers = {"Vary": "Accept-Encoding"}
    if "gzip" in request.headers.get("accept-encoding", ""):
        content, headers["Content-Encoding"] = gzip.compress(content, QUICK, mtime=0), "gzip"
    return Response(content, media_type="application/json", headers=headers)


@api.get("/runs/{run}/tasks/{task}/items/{item}", responses=NOT_FOUND)
def get_item(session: ReadSession, run: RunInPath, task: str, item: str, selection: Selecting) -> ItemOut:
    """One item with every answer to it through training."""
    return ItemOut.of(item_history.life_of(session, run, suites.get_task(session, task), item, selection))
