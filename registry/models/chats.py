"""Conversations with checkpoints."""

import datetime as dt
from typing import Any

from sqlalchemy import JSON, ForeignKey, Index, Integer, String, Text
from sqlalchemy.orm import Mapped, mapped_column, relationship

from registry.models.base import NEVER_AGAIN, QUEUED, Base, UtcDateTime, utcnow
from registry.models.checkpoints import Checkpoint

SIDE, FILM, BATTLE = "side", "film", "battle"


class ChatGroup(Base):
    """Chats that were asked the same thing: columns side by side, a film strip through the ages, or a blind battle."""

    __tablename__ = "chat_groups"

    id: Mapped[int] = mapped_column(primary_key=True)
    public_id: Mapped[str] = mapped_column(String(32), unique=True)
    user_id: Mapped[int] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"), index=True)
    kind: Mapped[str] = mapped_column(String(16))
    """`side`, `film` or `battle`."""
    title: Mapped[str] = mapped_column(String(120), default="")
    created_at: Mapped[dt.datetime] = mapped_column(UtcDateTime, default=utcnow)
    cleared_at: Mapped[dt.datetime | None] = mapped_column(UtcDateTime)

    chats: Mapped[list["Chat"]] = relationship(lazy="raise", order_by="Chat.place", back_populates="group")


class Chat(Base):
    """A visitor's thread with one checkpoint, a tree of turns; `public_id` stands in addresses, not to be guessed."""

    __tablename__ = "chats"

    id: Mapped[int] = mapped_column(primary_key=True)
    public_id: Mapped[str] = mapped_column(String(32), unique=True)
    user_id: Mapped[int] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"), index=True)
    checkpoint_id: Mapped[int] = mapped_column(ForeignKey("checkpoints.id"))
    title: Mapped[str] = mapped_column(String(120), default="")
    leaf_id: Mapped[int | None] = mapped_column(Integer)
    """The last turn of the branch that is shown; its ancestors are the conversation."""
    group_id: Mapped[int | None] = mapped_column(ForeignKey("chat_groups.id", ondelete="CASCADE"), index=True)
    place: Mapped[int] = mapped_column(Integer, default=0)
    """Which column of its group it is."""
    forked_from_id: Mapped[int | None] = mapped_column(ForeignKey("chats.id", ondelete="SET NULL"))
    share_token: Mapped[str | None] = mapped_column(String(32), unique=True)
    """Whoever has it may read the thread; None: nobody but its owner."""
    created_at: Mapped[dt.datetime] = mapped_column(UtcDateTime, default=utcnow)
    cleared_at: Mapped[dt.datetime | None] = mapped_column(UtcDateTime)
    """Set by the visitor's "delete": the thread is hidden and never offered again."""

    checkpoint: Mapped[Checkpoint] = relationship(lazy="joined", innerjoin=True)
    group: Mapped[ChatGroup | None] = relationship(lazy="raise", back_populates="chats")
    turns: Mapped[list["Turn"]] = relationship(
        lazy="raise", order_by="Turn.id", back_populates="chat", passive_deletes=True
    )


class Turn(Base):
    """One prompt and its answer. The answer is whole once `status` is finished, failed or cancelled.

    Turns of the same parent are other ways the conversation went: an edited question, or another answer to it.
    """

    __tablename__ = "turns"
    __table_args__ = (Index("ix_turns_chat", "chat_id", "id"), NEVER_AGAIN)

    id: Mapped[int] = mapped_column(primary_key=True)
    chat_id: Mapped[int] = mapped_column(ForeignKey("chats.id", ondelete="CASCADE"))
    parent_id: Mapped[int | None] = mapped_column(ForeignKey("turns.id", ondelete="CASCADE"), index=True)
    position: Mapped[int] = mapped_column(Integer)
    """How many turns go before it on its branch."""
    prompt: Mapped[str] = mapped_column(Text)
    answer: Mapped[str] = mapped_column(Text, default="")
    status: Mapped[str] = mapped_column(String(16), default=QUEUED)
    finish_reason: Mapped[str] = mapped_column(String(16), default="")
    """OpenAI's word: `stop`, `length`, `content_filter`; or `cancelled`, `error`."""
    error: Mapped[str] = mapped_column(Text, default="")
    params: Mapped[dict[str, Any]] = mapped_column(JSON, default=dict)
    """Sampling parameters in OpenAI's names (max_tokens, temperature, top_p, seed, logprobs), vLLM's
    repetition_penalty, and `system`, the system prompt."""
    tokens: Mapped[list[Any] | None] = mapped_column(JSON)
    """Where `params` asks for logprobs: [text, logprob, [[text, logprob] of the likeliest …]] a token."""
    prompt_tokens: Mapped[int | None] = mapped_column(Integer)
    completion_tokens: Mapped[int | None] = mapped_column(Integer)
    rating: Mapped[int | None] = mapped_column(Integer)
    """1 thumbs up, -1 thumbs down."""
    rating_reason: Mapped[str] = mapped_column(String(500), default="")
    created_at: Mapped[dt.datetime] = mapped_column(UtcDateTime, default=utcnow)
    started_at: Mapped[dt.datetime | None] = mapped_column(UtcDateTime)
    """When its first word came."""
    finished_at: Mapped[dt.datetime | None] = mapped_column(UtcDateTime)

    chat: Mapped[Chat] = relationship(lazy="raise", back_populates="turns")
