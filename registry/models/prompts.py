"""Beginnings that visitors propose for the time-lapse."""

import datetime as dt

from sqlalchemy import ForeignKey, Index, String, Text
from sqlalchemy.orm import Mapped, mapped_column, relationship

from registry.models.accounts import User
from registry.models.base import Base, UtcDateTime, utcnow
from registry.models.suites import Task

WAITING, ACCEPTED, DECLINED, WITHDRAWN = "waiting", "accepted", "declined", "withdrawn"
"""States of a proposed prompt."""


class ProposedPrompt(Base):
    """A beginning that somebody proposed. The text never changes; an accepted one is a probe task of its own."""

    __tablename__ = "proposed_prompts"
    __table_args__ = (Index("ix_proposed_prompts_state", "state", "created_at"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    item: Mapped[str] = mapped_column(String(16), unique=True)
    """The key of its item in sample files: a hash of the text, so nobody proposes the same twice."""
    text: Mapped[str] = mapped_column(Text)
    state: Mapped[str] = mapped_column(String(16), default=WAITING)
    """`waiting`, `accepted`, `declined` or `withdrawn`."""
    reason: Mapped[str] = mapped_column(Text, default="")
    """Why it was declined or withdrawn."""
    user_id: Mapped[int | None] = mapped_column(ForeignKey("users.id", ondelete="SET NULL"), index=True)
    decided_by_id: Mapped[int | None] = mapped_column(ForeignKey("users.id", ondelete="SET NULL"))
    task_id: Mapped[int | None] = mapped_column(ForeignKey("tasks.id"), unique=True)
    """The probe task that asks it; kept when it is withdrawn."""
    created_at: Mapped[dt.datetime] = mapped_column(UtcDateTime, default=utcnow)
    decided_at: Mapped[dt.datetime | None] = mapped_column(UtcDateTime)

    user: Mapped[User | None] = relationship(lazy="raise", foreign_keys=[user_id])
    task: Mapped[Task | None] = relationship(lazy="raise")
