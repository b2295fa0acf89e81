"""Verbs of posts."""

from collections.abc import Sequence

from sqlalchemy import select
from sqlalchemy.orm import Session

from registry.errors import Invalid, NotFound
from registry.models import Post, Run, User

KINDS = ("news", "checkpoint", "incident")
MAX_TITLE_CHARS = 160
MAX_BODY_CHARS = 50_000


def publish_post(
    session: Session,
    *,
    title: str,
    body: str,
    author: User | None = None,
    kind: str = "news",
    run: Run | None = None,
    step: int | None = None,
) -> Post:
    """Publish a post in Markdown.

    Raises:
        Invalid: no title, too long, or an unknown kind.
    """
    title = title.strip()
    if not 1 <= len(title) <= MAX_TITLE_CHARS:
        raise Invalid("A title has 1 to %(limit)s characters.", limit=MAX_TITLE_CHARS)
    if len(body) > MAX_BODY_CHARS:
        raise Invalid("A post has at most %(limit)s characters.", limit=f"{MAX_BODY_CHARS:,}")
    if kind not in KINDS:
        raise Invalid("There is no kind of post '%(kind)s'. Kinds: %(known)s.", kind=kind, known=", ".join(KINDS))
    post = Post(title=title, body=body, kind=kind, author_id=author.id if author else None)
    post.run_id, post.step = (run.id, step) if run else (None, None)
    session.add(post)
    session.flush()  # callers link to the id
    return post


def list_posts(session: Session, limit: int = 50) -> Sequence[Post]:
    """The newest posts first."""
    return session.scalars(select(Post).order_by(Post.published_at.desc(), Post.id.desc()).limit(limit)).all()


def get_post(session: Session, post_id: int) -> Post:
    """The post of that id.

    Raises:
        NotFound: there is none.
    """
    post = session.get(Post, post_id)
    if post is None:
        raise NotFound("There is no post with the number %(post_id)s.", post_id=post_id)
    return post


def delete_post(session: Session, post_id: int) -> None:
    """Take a post down."""
    session.delete(get_post(session, post_id))
