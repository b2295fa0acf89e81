"""News, announcements and incidents."""

import datetime as dt

from sqlalchemy import BigInteger, Boolean, ForeignKey, String, Text
from sqlalchemy.orm import Mapped, mapped_column

from registry.models.base import Base, UtcDateTime, utcnow


class Post(Base):
    """One dated post, in Markdown, optionally pinned to a step of a run."""

    __tablename__ = "posts"

    id: Mapped[int] = mapped_column(primary_key=True)
    kind: Mapped[str] = mapped_column(String(16), default="news")
    """`news`, `checkpoint` or `incident`."""
    title: Mapped[str] = mapped_column(String(160))
    body: Mapped[str] = mapped_column(Text, default="")
    author_id: Mapped[int | None] = mapped_column(ForeignKey("users.id", ondelete="SET NULL"))
    run_id: Mapped[int | None] = mapped_column(ForeignKey("runs.id", ondelete="SET NULL"))
    step: Mapped[int | None] = mapped_column(BigInteger)
    published_at: Mapped[dt.datetime] = mapped_column(UtcDateTime, default=utcnow, index=True)
    """In the future: planned, and hidden until then."""
    is_announced: Mapped[bool] = mapped_column(Boolean, default=True)
    """Whether open pages were told of it; a planned one is announced when it is due."""
    edited_at: Mapped[dt.datetime | None] = mapped_column(UtcDateTime)
    began_at: Mapped[dt.datetime | None] = mapped_column(UtcDateTime)
    """Since when an incident lasts; None: it is a note about the past, and no banner says it."""
    resolved_at: Mapped[dt.datetime | None] = mapped_column(UtcDateTime)
    """When an incident that lasted was over."""
