"""The OpenAI-compatible interface: its keys and what was asked with them."""

import datetime as dt
from typing import Any

from sqlalchemy import JSON, ForeignKey, Index, Integer, String, Text
from sqlalchemy.orm import Mapped, mapped_column, relationship

from registry.models.accounts import User
from registry.models.base import NEVER_AGAIN, QUEUED, Base, UtcDateTime, utcnow
from registry.models.checkpoints import Checkpoint


class ApiKey(Base):
    """A secret that stands for its owner. Only its SHA-256 is kept, and the first letters to know it by."""

    __tablename__ = "api_keys"

    id: Mapped[int] = mapped_column(primary_key=True)
    user_id: Mapped[int] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"), index=True)
    name: Mapped[str] = mapped_column(String(60))
    prefix: Mapped[str] = mapped_column(String(16))
    key_hash: Mapped[str] = mapped_column(String(64), unique=True)
    scopes: Mapped[str] = mapped_column(String(120))
    """Comma-separated: what it may be used for."""
    created_at: Mapped[dt.datetime] = mapped_column(UtcDateTime, default=utcnow)
    last_used_at: Mapped[dt.datetime | None] = mapped_column(UtcDateTime)
    expires_at: Mapped[dt.datetime | None] = mapped_column(UtcDateTime)
    revoked_at: Mapped[dt.datetime | None] = mapped_column(UtcDateTime)

    user: Mapped[User] = relationship(lazy="raise")


class ApiCall(Base):
    """One request for completions, with one ticket, however many prompts it brings."""

    __tablename__ = "api_calls"
    __table_args__ = (
        # what was used today, from the index alone
        Index("ix_api_calls_usage", "user_id", "created_at", "prompt_tokens", "completion_tokens"),
        # what is under way
        Index("ix_api_calls_open", "user_id", "status"),
        NEVER_AGAIN,
    )

    id: Mapped[int] = mapped_column(primary_key=True)
    public_id: Mapped[str] = mapped_column(String(48), unique=True)
    """As OpenAI names them: `chatcmpl-…`, `cmpl-…`."""
    user_id: Mapped[int] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"))
    key_id: Mapped[int | None] = mapped_column(ForeignKey("api_keys.id", ondelete="SET NULL"))
    checkpoint_id: Mapped[int] = mapped_column(ForeignKey("checkpoints.id"))
    status: Mapped[str] = mapped_column(String(16), default=QUEUED)
    request: Mapped[dict[str, Any]] = mapped_column(JSON, default=dict)
    """`prompts` (texts or lists of token ids) or `messages`, `params` as a turn's, `echo`, `logprobs`."""
    result: Mapped[list[Any] | None] = mapped_column(JSON)
    """One entry a choice; emptied some time after it was delivered."""
    finish_reason: Mapped[str] = mapped_column(String(16), default="")
    error: Mapped[str] = mapped_column(Text, default="")
    prompt_tokens: Mapped[int | None] = mapped_column(Integer)
    completion_tokens: Mapped[int | None] = mapped_column(Integer)
    created_at: Mapped[dt.datetime] = mapped_column(UtcDateTime, default=utcnow)
    started_at: Mapped[dt.datetime | None] = mapped_column(UtcDateTime)
    finished_at: Mapped[dt.datetime | None] = mapped_column(UtcDateTime)

    checkpoint: Mapped[Checkpoint] = relationship(lazy="joined", innerjoin=True)
