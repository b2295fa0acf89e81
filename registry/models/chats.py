"""Conversations with checkpoints."""

import datetime as dt
from typing import Any

from sqlalchemy import JSON, ForeignKey, Integer, String, Text, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column, relationship

from registry.models.base import QUEUED, Base, UtcDateTime, utcnow
from registry.models.checkpoints import Checkpoint


class Chat(Base):
    """A visitor's thread with one checkpoint. `public_id` stands in addresses and cannot be guessed."""

    __tablename__ = "chats"

    id: Mapped[int] = mapped_column(primary_key=True)
    public_id: Mapped[str] = mapped_column(String(32), unique=True)
    user_id: Mapped[int] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"), index=True)
    checkpoint_id: Mapped[int] = mapped_column(ForeignKey("checkpoints.id"))
    title: Mapped[str] = mapped_column(String(120), default="")
    created_at: Mapped[dt.datetime] = mapped_column(UtcDateTime, default=utcnow)
    cleared_at: Mapped[dt.datetime | None] = mapped_column(UtcDateTime)
    """Set by the visitor's "clear": the thread is hidden and never offered again."""

    checkpoint: Mapped[Checkpoint] = relationship(lazy="joined", innerjoin=True)
    turns: Mapped[list["Turn"]] = relationship(lazy="raise", order_by="Turn.position", back_populates="chat")


class Turn(Base):
    """One prompt and its answer. The answer is whole once `status` is finished, failed or cancelled."""

    __tablename__ = "turns"
    __table_args__ = (UniqueConstraint("chat_id", "position"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    chat_id: Mapped[int] = mapped_column(ForeignKey("chats.id", ondelete="CASCADE"))
    position: Mapped[int] = mapped_column(Integer)
    prompt: Mapped[str] = mapped_column(Text)
    answer: Mapped[str] = mapped_column(Text, default="")
    status: Mapped[str] = mapped_column(String(16), default=QUEUED)
    finish_reason: Mapped[str] = mapped_column(String(16), default="")
    """OpenAI's word: `stop`, `length`; or `cancelled`, `error`."""
    error: Mapped[str] = mapped_column(Text, default="")
    params: Mapped[dict[str, Any]] = mapped_column(JSON, default=dict)
    """Sampling parameters in OpenAI's names: max_tokens, temperature, top_p, seed."""
    prompt_tokens: Mapped[int | None] = mapped_column(Integer)
    completion_tokens: Mapped[int | None] = mapped_column(Integer)
    rating: Mapped[int | None] = mapped_column(Integer)
    """1 thumbs up, -1 thumbs down."""
    created_at: Mapped[dt.datetime] = mapped_column(UtcDateTime, default=utcnow)
    started_at: Mapped[dt.datetime | None] = mapped_column(UtcDateTime)
    finished_at: Mapped[dt.datetime | None] = mapped_column(UtcDateTime)

    chat: Mapped[Chat] = relationship(lazy="raise", back_populates="turns")
