"""Blind votes between two checkpoints of one run."""

import datetime as dt
from typing import Any

from sqlalchemy import JSON, ForeignKey, Index, Integer, String
from sqlalchemy.orm import Mapped, mapped_column

from registry.models.base import Base, UtcDateTime, utcnow


class Vote(Base):
    """One preference. It outlives its conversation and its voter's account, without a name."""

    __tablename__ = "votes"
    __table_args__ = (Index("ix_votes_run", "run_id", "created_at"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    group_id: Mapped[int | None] = mapped_column(ForeignKey("chat_groups.id", ondelete="SET NULL"), unique=True)
    """The battle; one vote each."""
    run_id: Mapped[int] = mapped_column(ForeignKey("runs.id", ondelete="CASCADE"))
    left_id: Mapped[int] = mapped_column(ForeignKey("checkpoints.id"))
    right_id: Mapped[int] = mapped_column(ForeignKey("checkpoints.id"))
    choice: Mapped[str] = mapped_column(String(8))
    """`left`, `right`, `tie` or `bad` (both bad)."""
    left_tokens: Mapped[int] = mapped_column(Integer)
    right_tokens: Mapped[int] = mapped_column(Integer)
    prompt_hash: Mapped[str] = mapped_column(String(64))
    user_id: Mapped[int | None] = mapped_column(ForeignKey("users.id", ondelete="SET NULL"), index=True)
    voter: Mapped[str] = mapped_column(String(16))
    """A name for the voter in the raw data that leads back to nobody."""
    address_hash: Mapped[str] = mapped_column(String(64))
    signature: Mapped[str] = mapped_column(String(64))
    """HMAC of the vote under the site's key: a row that was changed by hand is found."""
    flags: Mapped[list[Any]] = mapped_column(JSON, default=list)
    """Words for what is odd about it; a flagged vote is kept and does not count."""
    created_at: Mapped[dt.datetime] = mapped_column(UtcDateTime, default=utcnow)
