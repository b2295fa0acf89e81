"""Verbs of posts: writing, planning and editing them, and incidents that last.

A post whose time is in the future is planned: only administrators see it. It appears by its time alone; the sweep then
tells open pages of it.
"""

import datetime as dt
from collections.abc import Collection, Sequence

from sqlalchemy import ColumnElement, select, update
from sqlalchemy.orm import Session

from registry import audit
from registry.errors import Conflict, Invalid, NotFound
from registry.models import Post, Run, User
from registry.models.base import utcnow

KINDS = ("news", "checkpoint", "incident")
INCIDENT = "incident"
MAX_TITLE_CHARS = 160
MAX_BODY_CHARS = 50_000
MAX_AHEAD = dt.timedelta(days=366)


def publish_post(
    session: Session,
    *,
    title: str,
    body: str,
    author: User | None = None,
    kind: str = "news",
    run: Run | None = None,
    step: int | None = None,
    publish_at: dt.datetime | None = None,
    lasts: bool = False,
) -> Post:
    """Publish a post in Markdown, now or later.

    Args:
        session: the transaction.
        title: one line.
        body: Markdown.
        author: who wrote it.
        kind: one of `KINDS`.
        run: what it is pinned to.
        step: where in the run.
        publish_at: in the future: it is planned for then; else it is published now.
        lasts: an incident that goes on from its publication: every page says so until it is resolved.

    Raises:
        Invalid: no title, too long, an unknown kind, or a time that is too far away.
    """
    now = utcnow()
    post = Post(author_id=author.id if author else None, published_at=now)
    _fill(post, title, body, kind, run, step)
    if publish_at is not None and publish_at > now:
        _plan(post, publish_at)
    if lasts:
        post.began_at = post.published_at if kind == INCIDENT else None
    session.add(post)
    session.flush()  # callers link to the id
    if author is not None:
        audit.note(session, author, "post_written", f"post:{post.id}", {"kind": kind, "planned": not post.is_announced})
    return post


def edit_post(
    session: Session,
    editor: User,
    post: Post,
    *,
    title: str,
    body: str,
    kind: str,
    run: Run | None = None,
    step: int | None = None,
    publish_at: dt.datetime | None = None,
) -> None:
    """Change what a post says; one that is planned may be moved, or published now (no time, or one that is past).

    Raises:
        Invalid: as for `publish_post`.
    """
    was_planned = is_planned(post)
    _fill(post, title, body, kind, run, step)
    if kind != INCIDENT:
        post.began_at = post.resolved_at = None
    if was_planned:
        if publish_at is not None and publish_at > utcnow():
            _plan(post, publish_at)
        else:
            post.published_at, post.is_announced = utcnow(), True
        post.began_at = post.published_at if post.began_at is not None else None
    else:
        post.edited_at = utcnow()
    audit.note(session, editor, "post_edited", f"post:{post.id}", {"kind": kind})


def resolve(session: Session, editor: User, post: Post) -> None:
    """An incident is over.

    Raises:
        Conflict: it does not last.
    """
    if post.began_at is None or post.resolved_at is not None:
        raise Conflict("This incident is over already.")
    post.resolved_at = utcnow()
    audit.note(session, editor, "incident_resolved", f"post:{post.id}")


def reopen(session: Session, editor: User, post: Post) -> None:
    """An incident lasts after all, or has come back.

    Raises:
        Conflict: it is no incident, or it lasts.
    """
    if post.kind != INCIDENT or (post.began_at is not None and post.resolved_at is None):
        raise Conflict("Only an incident that is over can be opened again.")
    post.began_at, post.resolved_at = post.began_at or utcnow(), None
    audit.note(session, editor, "incident_opened", f"post:{post.id}")


def is_planned(post: Post) -> bool:
    """Whether visitors do not see it yet."""
    return post.published_at > utcnow()


def list_posts(session: Session, limit: int = 50) -> Sequence[Post]:
    """What is published, the newest first."""
    query = select(Post).where(is_published()).order_by(Post.published_at.desc(), Post.id.desc())
    return session.scalars(query.limit(limit)).all()


def list_planned(session: Session) -> Sequence[Post]:
    """What will be published, the next first."""
    return session.scalars(select(Post).where(Post.published_at > utcnow()).order_by(Post.published_at, Post.id)).all()


def list_incidents(session: Session, run_ids: Collection[int]) -> list[Post]:
    """What happened to some runs, by step; what is pinned to no step comes last."""
    query = select(Post).where(Post.kind == INCIDENT, Post.run_id.in_(run_ids), is_published())
    return sorted(session.scalars(query.order_by(Post.id)), key=lambda post: (post.step is None, post.step or 0))


def open_incidents(session: Session) -> Sequence[Post]:
    """Incidents that last, the newest first: every page says so."""
    lasts = Post.began_at.is_not(None) & Post.resolved_at.is_(None)
    query = select(Post).where(Post.kind == INCIDENT, lasts, is_published())
    return session.scalars(query.order_by(Post.published_at.desc(), Post.id.desc())).all()


def get_post(session: Session, post_id: int) -> Post:
    """The post of that id, planned ones too.

    Raises:
        NotFound: there is none.
    """
    post = session.get(Post, post_id)
    if post is None:
        raise NotFound("There is no post with the number %(post_id)s.", post_id=post_id)
    return post


def shown_post(session: Session, post_id: int) -> Post:
    """The post of that id, as a visitor may see it.

    Raises:
        NotFound: there is none, or it is planned.
    """
    post = get_post(session, post_id)
    if is_planned(post):
        raise NotFound("There is no post with the number %(post_id)s.", post_id=post_id)
    return post


def delete_post(session: Session, post_id: int, editor: User | None = None) -> None:
    """Take a post down."""
    session.delete(get_post(session, post_id))
    if editor is not None:
        audit.note(session, editor, "post_deleted", f"post:{post_id}")


def announce_due(session: Session) -> Sequence[int]:
    """Planned posts whose time has come, each once; the caller tells open pages after the commit."""
    due = update(Post).where(Post.is_announced.is_(False), is_published()).values(is_announced=True)
    return session.scalars(due.returning(Post.id)).all()


def is_published() -> ColumnElement[bool]:
    """Picks what visitors see."""
    return Post.published_at <= utcnow()


def _plan(post: Post, publish_at: dt.datetime) -> None:
    if publish_at > utcnow() + MAX_AHEAD:
        raise Invalid("A post can be planned for a year at most.")
    post.published_at, post.is_announced = publish_at, False


def _fill(post: Post, title: str, body: str, kind: str, run: Run | None, step: int | None) -> None:
    title = title.strip()
    if not 1 <= len(title) <= MAX_TITLE_CHARS:
        raise Invalid("A title has 1 to %(limit)s characters.", limit=MAX_TITLE_CHARS)
    if len(body) > MAX_BODY_CHARS:
        raise Invalid("A post has at most %(limit)s characters.", limit=f"{MAX_BODY_CHARS:,}")
    if kind not in KINDS:
        raise Invalid("There is no kind of post '%(kind)s'. Kinds: %(known)s.", kind=kind, known=", ".join(KINDS))
    post.title, post.body, post.kind = title, body, kind
    post.run_id, post.step = (run.id, step) if run else (None, None)
