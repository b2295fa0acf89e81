"""The administrators' page of workers: who lives, what each holds, how fast it is, and who has fallen silent."""

import datetime as dt
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, NamedTuple

from fastapi import APIRouter, Form, Request, Response
from fastapi.responses import HTMLResponse, RedirectResponse
from sqlalchemy import select
from sqlalchemy.orm import Session

from registry import events
from registry.models import Checkpoint, Job
from registry.models.base import RUNNING
from server import auth, csrf, growth, pulse, render
from server.deps import ReadSession

router = APIRouter(prefix="/admin/workers", route_class=csrf.FormRoute, include_in_schema=False)


class Worker(NamedTuple):
    """A worker as the page shows it."""

    name: str
    is_alive: bool
    heard_at: dt.datetime
    doing: str
    version: str
    began_at: dt.datetime | None
    queues: Sequence[str]
    engine: str
    is_engine_up: bool
    checkpoint: Checkpoint | None
    """The one that its engine holds."""
    checkpoint_href: str
    tickets: Sequence[Mapping[str, Any]]
    tokens_per_second: float | None
    load_seconds: float | None
    jobs: Sequence[Job]
    """Long jobs that it does."""


@dataclass(frozen=True)
class WorkersPage:
    """Context of admin/workers.html and admin/_workers.html."""

    broker: bool
    alive: Sequence[Worker]
    silent: Sequence[Worker]
    versions: Sequence[str]
    """Of those that live: more than one means that some were not restarted."""
    done: str = ""


@router.get("")
def show_workers(request: Request, session: ReadSession, _admin: auth.Admin, done: str = "") -> HTMLResponse:
    """Every worker that was heard from."""
    return render.page(request, "admin/workers.html", _workers(session, done))


@router.get("/list")
def show_workers_fragment(request: Request, session: ReadSession, _admin: auth.Admin) -> HTMLResponse:
    """The part of that page which changes."""
    return render.page(request, "admin/_workers.html", _workers(session))


@router.post("/forget")
def forget(_admin: auth.Admin, worker: Annotated[str, Form()] = "") -> Response:
    """Let go of one that is gone."""
    events.forget_worker(worker)
    pulse.forget()
    return RedirectResponse("/admin/workers?done=forgotten", 303)


def _workers(session: Session, done: str = "") -> WorkersPage:
    marks = events.known_workers()
    found = [_worker(session, mark) for mark in marks or ()]
    alive = [one for one in found if one.is_alive]
    return WorkersPage(
        broker=marks is not None,
        alive=alive,
        silent=[one for one in found if not one.is_alive],
        versions=sorted({one.version for one in alive if one.version}),
        done=done,
    )


def _worker(session: Session, mark: events.Mark) -> Worker:
    about = mark.about
    checkpoint_id = about.get("checkpoint_id") or mark.facts.get("checkpoint_id")
    checkpoint = session.get(Checkpoint, checkpoint_id) if isinstance(checkpoint_id, int) else None
    jobs = select(Job).where(Job.worker == mark.worker, Job.status == RUNNING).order_by(Job.id)
    began = about.get("began_at")
    return Worker(
        name=mark.worker,
        is_alive=mark.is_alive,
        heard_at=dt.datetime.fromtimestamp(mark.at, dt.UTC),
        doing=mark.doing,
        version=str(about.get("version", "")),
        began_at=dt.datetime.fromisoformat(began) if began else None,
        queues=about.get("queues", ()),
        engine=str(about.get("engine", "")),
        is_engine_up=bool(about.get("is_engine_up")),
        checkpoint=checkpoint,
        checkpoint_href=growth.checkpoint_href(checkpoint) if checkpoint is not None else "",
        tickets=about.get("tickets", ()),
        tokens_per_second=about.get("tokens_per_second"),
        load_seconds=mark.facts.get("load_seconds"),
        jobs=session.scalars(jobs).all(),
    )
