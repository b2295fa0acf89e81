"""News, announcements and incidents."""

import datetime as dt

from sqlalchemy import BigInteger, ForeignKey, String, Text
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
