"""Routes of administrators: how things stand, news, and checkpoints sent by browser."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, NamedTuple

from fastapi import APIRouter, Form, Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import HTMLResponse, JSONResponse, RedirectResponse
from sqlalchemy import select
from sqlalchemy.orm import Session

from registry import accounts, chats, checkpoints, db, evaluations, events, intake, news, runs, store, tickets
from registry.errors import Conflict, Invalid, RegistryError
from registry.models import Checkpoint, Evaluation, Post, Run, User
from registry.models.base import FINISHED, READY, REJECTED, RETIRED, VERIFYING
from registry.settings import get_settings
from server import auth, csrf, pulse, render, uploads
from server.deps import ReadSession, WriteSession
from server.i18n import error_text, gettext

router = APIRouter(route_class=csrf.FormRoute, include_in_schema=False)
# The upload reads its own body, so its token is checked by `_read_request` instead.
streamed = APIRouter(include_in_schema=False)

RECENT = 12


@dataclass(frozen=True)
class OverviewPage:
    """Context of admin/page.html."""

    queue: Mapping[tuple[str, str], int]
    workers: Mapping[str, str]
    broker: bool
    states: Mapping[str, int]
    recent: Sequence[Checkpoint]
    rejected: Sequence[Checkpoint]
    users: Sequence[User]
    num_users: int
    num_turns: int
    posts: Sequence[Post]


@dataclass(frozen=True)
class NewsPage:
    """Context of admin/news.html."""

    runs: Sequence[Run]
    posts: Sequence[Post]
    typed: Mapping[str, str] = field(default_factory=dict)
    error: str = ""
    done: str = ""


@dataclass(frozen=True)
class PreviewFragment:
    """Context of admin/_preview.html."""

    title: str
    body: str


@dataclass(frozen=True)
class UploadPage:
    """Context of admin/upload.html."""

    runs: Sequence[Run]
    max_bytes: int
    suffixes: Sequence[str]
    typed: Mapping[str, str] = field(default_factory=dict)
    error: str = ""


@dataclass(frozen=True)
class UploadedPage:
    """Context of admin/uploaded.html and admin/_uploaded.html."""

    checkpoint: Checkpoint
    evaluations: Sequence[Evaluation]

    @property
    def num_done(self) -> int:
        """How many of its evaluations have ended."""
        return sum(one.status == FINISHED for one in self.evaluations)


class UploadFields(NamedTuple):
    """The fields of the upload form, in the types they stand for."""

    run: str
    step: int
    tokens_seen: int | None
    kind: str


@router.get("/admin")
def show_overview(request: Request, session: ReadSession, _admin: auth.Admin) -> HTMLResponse:
    """How things stand."""
    return render.page(request, "admin/page.html", _overview(session))


@router.get("/admin/overview")
def show_overview_fragment(request: Request, session: ReadSession, _admin: auth.Admin) -> HTMLResponse:
    """The part of the overview that changes by itself."""
    return render.page(request, "admin/_overview.html", _overview(session))


@router.get("/admin/news")
def show_news_form(request: Request, session: ReadSession, _admin: auth.Admin, done: str = "") -> HTMLResponse:
    """What has been written, and a form for more."""
    return _news(request, session, done=done)


@router.post("/admin/news")
def publish_news(
    request: Request,
    admin: auth.Admin,
    title: Annotated[str, Form()] = "",
    body: Annotated[str, Form()] = "",
    kind: Annotated[str, Form()] = "news",
    run: Annotated[str, Form()] = "",
    step: Annotated[str, Form()] = "",
) -> Response:
    """Publish a post, and tell open pages."""
    try:
        with db.transaction() as session:
            pinned = runs.get_run(session, run) if run else None
            at = _whole_number(step, gettext("Step")) if step.strip() and pinned is not None else None
            post = news.publish_post(session, title=title, body=body, author=admin, kind=kind, run=pinned, step=at)
    except RegistryError as error:
        typed = {"title": title, "body": body, "kind": kind, "run": run, "step": step}
        with db.read_session() as session:
            return _news(request, session, typed=typed, error=error_text(error), status=422)
    events.publish_board("post", {"id": post.id})
    return RedirectResponse("/admin/news?done=published", 303)


@router.post("/admin/news/preview")
def preview_news(
    request: Request, _admin: auth.Admin, title: Annotated[str, Form()] = "", body: Annotated[str, Form()] = ""
) -> HTMLResponse:
    """How a post will look."""
    return render.page(request, "admin/_preview.html", PreviewFragment(title, body))


@router.post("/admin/news/{post_id}/delete")
def delete_news(session: WriteSession, _admin: auth.Admin, post_id: int) -> Response:
    """Take a post down."""
    news.delete_post(session, post_id)
    return RedirectResponse("/admin/news?done=deleted", 303)


@router.get("/admin/upload")
def show_upload_form(request: Request, session: ReadSession, _admin: auth.Admin) -> HTMLResponse:
    """The form for a checkpoint."""
    return _upload_form(request, session)


@streamed.post("/admin/upload")
async def upload(request: Request, _admin: auth.Admin) -> Response:
    """Take a checkpoint in, or say why not and keep nothing of it."""
    csrf.check_origin(request)
    typed: dict[str, str] = {}

    def check(fields: uploads.Fields) -> None:
        typed.update(fields)
        _check_form(request, fields)

    try:
        async with uploads.incoming() as folder:
            fields = await uploads.receive(request, folder, check)
            checkpoint_id = await run_in_threadpool(accept, folder, read_fields(fields))
    except RegistryError as error:
        status = 409 if isinstance(error, Conflict) else 413 if isinstance(error, uploads.TooLarge) else 422
        return await run_in_threadpool(_refused, request, typed, error_text(error), status)
    address = f"/admin/uploads/{checkpoint_id}"
    return JSONResponse({"location": address}) if _is_script(request) else RedirectResponse(address, 303)


@router.get("/admin/uploads/{checkpoint_id}")
def show_uploaded(request: Request, session: ReadSession, _admin: auth.Admin, checkpoint_id: int) -> HTMLResponse:
    """What becomes of an upload."""
    return render.page(request, "admin/uploaded.html", _uploaded(session, checkpoint_id))


@router.get("/admin/uploads/{checkpoint_id}/state")
def show_uploaded_state(request: Request, session: ReadSession, _admin: auth.Admin, checkpoint_id: int) -> HTMLResponse:
    """The part of that page which changes."""
    return render.page(request, "admin/_uploaded.html", _uploaded(session, checkpoint_id))


router.include_router(streamed)


def read_fields(fields: Mapping[str, str]) -> UploadFields:
    """The typed fields of the form.

    Raises:
        Invalid: naming the field and what it takes.
    """
    name = fields.get("run", "").strip() or fields.get("known_run", "").strip()
    if not name:
        raise Invalid(gettext("Choose a run or give a new one a name."))
    if not runs.NAME.fullmatch(name):
        raise Invalid(
            gettext(
                "'%(name)s' cannot be a run's name: use a-z, 0-9, dot, dash and underscore, 63 at most.",
                name=name[:80],
            )
        )
    kind = fields.get("kind", "pretrained")
    if kind not in intake.KINDS:
        raise Invalid(gettext("There is no kind '%(kind)s'.", kind=kind[:40]))
    tokens = fields.get("tokens_seen", "")
    return UploadFields(
        run=name,
        step=_whole_number(fields.get("step", ""), gettext("Step")),
        tokens_seen=_whole_number(tokens, gettext("Tokens seen")) if tokens.strip() else None,
        kind=kind,
    )


def accept(folder: Path, fields: UploadFields) -> int:
    """Register what was received; returns the checkpoint's id.

    Raises:
        Invalid: it is no checkpoint that is safe to load.
        Conflict: the step is taken.
    """
    return intake.admit(uploads.unpack(folder), **fields._asdict()).id


def _check_form(request: Request, sent: Mapping[str, str]) -> None:
    """Everything that can be refused before a file is kept."""
    csrf.check_token(request, request.headers.get(csrf.HEADER) or sent.get(csrf.FIELD, ""))
    fields = read_fields(sent)
    with db.read_session() as session:
        run = session.scalar(select(Run).where(Run.name == fields.run))
        if run is not None and run.kind != "upload":
            raise Conflict(
                gettext("The name '%(name)s' belongs to a training run. Choose another name.", name=fields.run)
            )
        if run is not None:
            _check_free(session, run, fields)


def _check_free(session: Session, run: Run, fields: UploadFields) -> None:
    states = (READY, VERIFYING, RETIRED)  # a rejected one makes room
    taken = checkpoints.list_checkpoints(session, run, states, fields.kind)
    if any(one.step == fields.step and one.precision == 16 for one in taken):
        raise Conflict(
            gettext(
                "%(run)s has a checkpoint at step %(step)s already. Choose another step or another run.",
                run=run.name,
                step=fields.step,
            )
        )


def _whole_number(text: str, name: str) -> int:
    text = text.strip().replace(",", "").replace("_", "")
    if not re.fullmatch(r"[0-9]{1,15}", text):
        raise Invalid(gettext("%(name)s must be a whole number, 0 or more.", name=name))
    return int(text)


def _is_script(request: Request) -> bool:
    return "application/json" in request.headers.get("accept", "")


def _refused(request: Request, typed: Mapping[str, str], message: str, status: int) -> Response:
    if _is_script(request):
        return JSONResponse({"error": message}, status)
    with db.read_session() as session:
        return _upload_form(request, session, typed=typed, error=message, status=status)


def _upload_form(
    request: Request,
    session: Session,
    *,
    typed: Mapping[str, str] | None = None,
    error: str = "",
    status: int = 200,
) -> HTMLResponse:
    context = UploadPage(
        runs=[run for run in runs.list_runs(session) if run.kind == "upload"],
        max_bytes=get_settings().max_upload_bytes,
        suffixes=store.ALLOWED_SUFFIXES,
        typed=typed or {},
        error=error,
    )
    return render.page(request, "admin/upload.html", context, status_code=status)


def _uploaded(session: Session, checkpoint_id: int) -> UploadedPage:
    checkpoint = checkpoints.get_by_id(session, checkpoint_id)
    return UploadedPage(checkpoint, evaluations.for_checkpoint(session, checkpoint))


def _news(
    request: Request,
    session: Session,
    *,
    typed: Mapping[str, str] | None = None,
    error: str = "",
    done: str = "",
    status: int = 200,
) -> HTMLResponse:
    context = NewsPage(
        runs=runs.list_runs(session), posts=news.list_posts(session), typed=typed or {}, error=error, done=done
    )
    return render.page(request, "admin/news.html", context, status_code=status)


def _overview(session: Session) -> OverviewPage:
    seen = pulse.take()
    everything = checkpoints.list_checkpoints(session, states=(READY, VERIFYING, REJECTED, "retired"))
    newest = sorted(everything, key=lambda one: one.id, reverse=True)
    return OverviewPage(
        queue=tickets.count_by_lane(session),
        workers=seen.workers,
        broker=seen.broker,
        states=checkpoints.count_by_state(session),
        recent=newest[:RECENT],
        rejected=[one for one in newest if one.state == REJECTED][:RECENT],
        users=accounts.list_users(session),
        num_users=accounts.count_users(session),
        num_turns=chats.count_turns(session),
        posts=news.list_posts(session, 5),
    )
