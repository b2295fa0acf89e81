"""The line for the GPU."""

import datetime as dt

from sqlalchemy import CheckConstraint, ForeignKey, Index, Integer, String, Text
from sqlalchemy.orm import Mapped, mapped_column

from registry.models.base import QUEUED, Base, UtcDateTime, utcnow


class Ticket(Base):
    """One place in the line, for a chat turn or for an evaluation.

    A worker holds it by a lease it keeps renewing. `fence` grows with each claim: a worker
    whose lease ran out carries an old number, and what it reports is refused.
    """

    __tablename__ = "tickets"
    __table_args__ = (
        CheckConstraint("(turn_id IS NULL) <> (evaluation_id IS NULL)", name="one_subject"),
        # claim(): the oldest queued ticket of the best lane
        Index("ix_tickets_line", "status", "lane", "issued_at"),
    )

    id: Mapped[int] = mapped_column(primary_key=True)
    lane: Mapped[int] = mapped_column(Integer)
    """0 chat, 1 evaluation; the lower goes first."""
    status: Mapped[str] = mapped_column(String(16), default=QUEUED)
    checkpoint_id: Mapped[int] = mapped_column(ForeignKey("checkpoints.id"))
    turn_id: Mapped[int | None] = mapped_column(ForeignKey("turns.id", ondelete="CASCADE"), unique=True)
    evaluation_id: Mapped[int | None] = mapped_column(ForeignKey("evaluations.id", ondelete="CASCADE"), unique=True)
    issued_at: Mapped[dt.datetime] = mapped_column(UtcDateTime, default=utcnow)
    worker: Mapped[str] = mapped_column(String(96), default="")
    lease_until: Mapped[dt.datetime | None] = mapped_column(UtcDateTime)
    fence: Mapped[int] = mapped_column(Integer, default=0)
    claimed_at: Mapped[dt.datetime | None] = mapped_column(UtcDateTime)
    finished_at: Mapped[dt.datetime | None] = mapped_column(UtcDateTime)
    error: Mapped[str] = mapped_column(Text, default="")
