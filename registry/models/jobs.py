"""Long jobs that people watch: quantizing, averaging, importing, deleting by rule."""

import datetime as dt
from typing import Any

from sqlalchemy import JSON, Boolean, Float, ForeignKey, Index, Integer, String, Text
from sqlalchemy.orm import Mapped, mapped_column, relationship

from registry.models.base import NEVER_AGAIN, QUEUED, Base, UtcDateTime, utcnow
from registry.models.checkpoints import Checkpoint


class Job(Base):
    """One piece of long work. A worker holds it by a lease; `fence` grows with each claim, as a ticket's does."""

    __tablename__ = "jobs"
    __table_args__ = (
        Index("ix_jobs_status", "status", "id"),
        Index("ix_jobs_checkpoint", "checkpoint_id", "kind"),
        NEVER_AGAIN,
    )

    id: Mapped[int] = mapped_column(primary_key=True)
    kind: Mapped[str] = mapped_column(String(24))
    """One of `registry.joblog.QUEUES`."""
    status: Mapped[str] = mapped_column(String(16), default=QUEUED)
    checkpoint_id: Mapped[int | None] = mapped_column(ForeignKey("checkpoints.id", ondelete="CASCADE"))
    args: Mapped[dict[str, Any]] = mapped_column(JSON, default=dict)
    progress: Mapped[float] = mapped_column(Float(53), default=0.0)
    """From 0 to 1."""
    log: Mapped[str] = mapped_column(Text, default="")
    """Lines of what it did, the newest `registry.joblog.LOG_CHARS` characters."""
    error: Mapped[str] = mapped_column(Text, default="")
    """Why it failed, in a sentence for whoever can act on it."""
    is_cancel_asked: Mapped[bool] = mapped_column(Boolean, default=False)
    user_id: Mapped[int | None] = mapped_column(ForeignKey("users.id", ondelete="SET NULL"))
    """Who asked for it; None: the site itself."""
    worker: Mapped[str] = mapped_column(String(96), default="")
    lease_until: Mapped[dt.datetime | None] = mapped_column(UtcDateTime)
    fence: Mapped[int] = mapped_column(Integer, default=0)
    attempts: Mapped[int] = mapped_column(Integer, default=0)
    created_at: Mapped[dt.datetime] = mapped_column(UtcDateTime, default=utcnow)
    started_at: Mapped[dt.datetime | None] = mapped_column(UtcDateTime)
    finished_at: Mapped[dt.datetime | None] = mapped_column(UtcDateTime)

    checkpoint: Mapped[Checkpoint | None] = relationship(lazy="joined")
