"""News: the list and single posts."""

from collections.abc import Sequence
from dataclasses import dataclass

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse

from registry import news
from registry.models import Post, Run
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


@router.get("/news")
def list_news(request: Request, session: ReadSession) -> HTMLResponse:
    """The newest posts."""
    return render.page(request, "news/list.html", NewsPage(news.list_posts(session)))


@router.get("/news/{post_id}")
def show_post(request: Request, session: ReadSession, post_id: int) -> HTMLResponse:
    """One post."""
    post = news.get_post(session, post_id)
    run = session.get(Run, post.run_id) if post.run_id else None
    return render.page(request, "news/post.html", PostPage(post, run))
