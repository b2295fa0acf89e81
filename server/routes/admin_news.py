"""Routes of administrators about news: writing, planning, editing, and incidents that last."""

import datetime as dt
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated

from fastapi import APIRouter, Form, Request, Response
from fastapi.responses import HTMLResponse, RedirectResponse
from sqlalchemy.orm import Session

from registry import db, events, news, runs
from registry.errors import Invalid, NotFound, RegistryError
from registry.models import Post, Run
from registry.models.base import utcnow
from server import auth, csrf, incidents, render
from server.deps import ReadSession
from server.i18n import error_text, gettext

router = APIRouter(prefix="/admin/news", route_class=csrf.FormRoute, include_in_schema=False)
LOCAL_TIME = "%Y-%m-%dT%H:%M"
"""As browsers send a date and time; the site's clock is UTC."""


@dataclass(frozen=True)
class NewsPage:
    """Context of admin/news.html."""

    runs: Sequence[Run]
    posts: Sequence[Post]
    planned: Sequence[Post]
    lasting: Sequence[Post]
    """Incidents that every page tells of now."""
    now: dt.datetime
    post: Post | None = None
    """What is being edited; None: a new one is written."""
    typed: Mapping[str, str] = field(default_factory=dict)
    error: str = ""
    done: str = ""


@dataclass(frozen=True)
class PreviewFragment:
    """Context of admin/_preview.html."""

    title: str
    body: str


@dataclass(frozen=True)
class PostForm:
    """What the form of a post sends."""

    title: str = ""
    body: str = ""
    kind: str = "news"
    run: str = ""
    step: str = ""
    unit: str = "step"
    publish_at: str = ""
    lasts: str = ""

    def typed(self) -> dict[str, str]:
        """The fields again, for the form that is shown with what is wrong."""
        return dict(vars(self))


@router.get("")
def show_news_form(
    request: Request,
    session: ReadSession,
    _admin: auth.Admin,
    done: str = "",
    kind: str = "",
    run: str = "",
    step: str = "",
) -> HTMLResponse:
    """What has been written, and a form for more; an address may fill in what a post is pinned to."""
    return _news(request, session, typed={"kind": kind, "run": run, "step": step}, done=done)


@router.post("")
def publish_news(
    request: Request,
    admin: auth.Admin,
    title: Annotated[str, Form()] = "",
    body: Annotated[str, Form()] = "",
    kind: Annotated[str, Form()] = "news",
    run: Annotated[str, Form()] = "",
    step: Annotated[str, Form()] = "",
    unit: Annotated[str, Form()] = "step",
    publish_at: Annotated[str, Form()] = "",
    lasts: Annotated[str, Form()] = "",
) -> Response:
    """Publish a post now, and tell open pages; or plan it."""
    form = PostForm(title, body, kind, run, step, unit, publish_at, lasts)
    try:
        with db.transaction() as session:
            pinned, at = _pin(session, form)
            post = news.publish_post(
                session,
                title=title,
                body=body,
                author=admin,
                kind=kind,
                run=pinned,
                step=at,
                publish_at=_moment(publish_at),
                lasts=bool(lasts),
            )
    except RegistryError as error:
        return _refused(request, form, error)
    _tell(post)
    return RedirectResponse(f"/admin/news?done={'published' if post.is_announced else 'planned'}", 303)


@router.post("/preview")
def preview_news(
    request: Request, _admin: auth.Admin, title: Annotated[str, Form()] = "", body: Annotated[str, Form()] = ""
) -> HTMLResponse:
    """How a post will look."""
    return render.page(request, "admin/_preview.html", PreviewFragment(title, body))


@router.get("/{post_id}")
def show_edit_form(request: Request, session: ReadSession, _admin: auth.Admin, post_id: int) -> HTMLResponse:
    """The form of a post that is there."""
    post = news.get_post(session, post_id)
    run = session.get(Run, post.run_id) if post.run_id else None
    typed = {"title": post.title, "body": post.body, "kind": post.kind, "run": run.name if run else ""}
    typed["step"] = "" if post.step is None else str(post.step)
    typed["publish_at"] = post.published_at.strftime(LOCAL_TIME) if news.is_planned(post) else ""
    return _news(request, session, post=post, typed=typed)


@router.post("/{post_id}")
def edit_news(
    request: Request,
    admin: auth.Admin,
    post_id: int,
    title: Annotated[str, Form()] = "",
    body: Annotated[str, Form()] = "",
    kind: Annotated[str, Form()] = "news",
    run: Annotated[str, Form()] = "",
    step: Annotated[str, Form()] = "",
    unit: Annotated[str, Form()] = "step",
    publish_at: Annotated[str, Form()] = "",
) -> Response:
    """Change a post."""
    form = PostForm(title, body, kind, run, step, unit, publish_at)
    try:
        with db.transaction() as session:
            post = news.get_post(session, post_id)
            pinned, at = _pin(session, form)
            changed = {"title": title, "body": body, "kind": kind, "run": pinned, "step": at}
            news.edit_post(session, admin, post, **changed, publish_at=_moment(publish_at))  # type: ignore[arg-type]
    except NotFound:
        raise
    except RegistryError as error:
        return _refused(request, form, error, post_id)
    _tell(post)
    return RedirectResponse("/admin/news?done=edited", 303)


@router.post("/{post_id}/resolve")
def resolve(admin: auth.Admin, post_id: int) -> Response:
    """An incident is over."""
    with db.transaction() as session:
        news.resolve(session, admin, news.get_post(session, post_id))
    incidents.forget()
    return RedirectResponse("/admin/news?done=resolved", 303)


@router.post("/{post_id}/reopen")
def reopen(admin: auth.Admin, post_id: int) -> Response:
    """An incident lasts after all."""
    with db.transaction() as session:
        news.reopen(session, admin, news.get_post(session, post_id))
    incidents.forget()
    return RedirectResponse("/admin/news?done=reopened", 303)


@router.post("/{post_id}/delete")
def delete_news(admin: auth.Admin, post_id: int) -> Response:
    """Take a post down."""
    with db.transaction() as session:
        news.delete_post(session, post_id, admin)
    incidents.forget()
    return RedirectResponse("/admin/news?done=deleted", 303)


def _tell(post: Post) -> None:
    incidents.forget()
    if post.is_announced:
        events.publish_board("post", {"id": post.id})


def _moment(text: str) -> dt.datetime | None:
    """The time that a form sends, in UTC; None for an empty field.

    Raises:
        Invalid: it is no time.
    """
    if not text.strip():
        return None
    try:
        return dt.datetime.strptime(text.strip()[:16], LOCAL_TIME).replace(tzinfo=dt.UTC)
    except ValueError:
        raise Invalid(gettext("'%(text)s' is no date and time.", text=text[:40])) from None


def _pin(session: Session, form: PostForm) -> tuple[Run | None, int | None]:
    run = runs.get_run(session, form.run) if form.run else None
    if not form.step.strip():
        return run, None
    if run is None:
        raise Invalid(gettext("Choose the run to pin it to, or leave the step empty."))
    number = _whole_number(form.step, gettext("Tokens seen") if form.unit == "tokens" else gettext("Step"))
    return run, runs.step_at(session, run, number) if form.unit == "tokens" else number


def _whole_number(text: str, name: str) -> int:
    text = text.strip().replace(",", "").replace("_", "")
    if not re.fullmatch(r"[0-9]{1,15}", text):
        raise Invalid(gettext("%(name)s must be a whole number, 0 or more.", name=name))
    return int(text)


def _refused(request: Request, form: PostForm, error: RegistryError, post_id: int | None = None) -> HTMLResponse:
    with db.read_session() as session:
        post = news.get_post(session, post_id) if post_id is not None else None
        return _news(request, session, post=post, typed=form.typed(), error=error_text(error), status=422)


def _news(
    request: Request,
    session: Session,
    *,
    post: Post | None = None,
    typed: Mapping[str, str] | None = None,
    error: str = "",
    done: str = "",
    status: int = 200,
) -> HTMLResponse:
    context = NewsPage(
        runs=runs.list_runs(session),
        posts=news.list_posts(session),
        planned=news.list_planned(session),
        lasting=news.open_incidents(session),
        now=utcnow(),
        post=post,
        typed=typed or {},
        error=error,
        done=done,
    )
    return render.page(request, "admin/news.html", context, status_code=status)
