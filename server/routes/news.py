"""News: the list and single posts."""

from collections.abc import Sequence
from dataclasses import dataclass

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse
from sqlalchemy import select
from sqlalchemy.orm import Session

from registry import news
from registry.models import Checkpoint, Post, Run
from server import render
from server.deps import ReadSession

router = APIRouter(include_in_schema=False)


@dataclass(frozen=True)
class NewsPage:
    """Context of news/list.html."""

    posts: Sequence[Post]


@dataclass(frozen=True)
class PostPage:
    """Context of news/post.html."""

    post: Post
    run: Run | None
    pinned_href: str
    """Address of what it is pinned to; empty where it is pinned to no run."""


@router.get("/news")
def list_news(request: Request, session: ReadSession) -> HTMLResponse:
    """The newest posts."""
    return render.page(request, "news/list.html", NewsPage(news.list_posts(session)))


@router.get("/news/{post_id}")
def show_post(request: Request, session: ReadSession, post_id: int) -> HTMLResponse:
    """One post."""
    post = news.shown_post(session, post_id)
    run = session.get(Run, post.run_id) if post.run_id else None
    return render.page(request, "news/post.html", PostPage(post, run, _pinned_href(session, post, run) if run else ""))


def _pinned_href(session: Session, post: Post, run: Run) -> str:
    """An incident is on the training page; anything else at its checkpoint, where there is one."""
    if post.kind == "incident":
        return f"/runs/{run.name}/training#incidents"
    at = select(Checkpoint.id).where(Checkpoint.run_id == run.id, Checkpoint.step == post.step).limit(1)
    exists = post.step is not None and session.scalar(at) is not None
    return f"/runs/{run.name}" + (f"/checkpoints/{post.step}" if exists else "")
