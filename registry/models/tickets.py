"""The line for the GPU."""

import datetime as dt

from sqlalchemy import CheckConstraint, Float, ForeignKey, Index, Integer, String, Text
from sqlalchemy.orm import Mapped, mapped_column

from registry.models.base import NEVER_AGAIN, QUEUED, Base, UtcDateTime, utcnow


class Ticket(Base):
    """One place in the line: for a chat turn, for a request to the interface, or for an evaluation.

    A worker holds it by a lease it keeps renewing. `fence` grows with each claim: a worker
    whose lease ran out carries an old number, and what it reports is refused.
    """

    __tablename__ = "tickets"
    __table_args__ = (
        CheckConstraint(
            "(CASE WHEN turn_id IS NULL THEN 0 ELSE 1 END) + (CASE WHEN evaluation_id IS NULL THEN 0 ELSE 1 END)"
            " + (CASE WHEN call_id IS NULL THEN 0 ELSE 1 END) = 1",
            name="one_subject",
        ),
        # claim(): the oldest queued ticket of the best lane
        Index("ix_tickets_line", "status", "lane", "issued_at"),
        # since when a lane has had nothing, and how long its last tickets took
        Index("ix_tickets_lane", "lane", "claimed_at"),
        NEVER_AGAIN,
    )

    id: Mapped[int] = mapped_column(primary_key=True)
    lane: Mapped[int] = mapped_column(Integer)
    """0 chat, 1 arena, 2 film strips, 3 panel evaluation, 4 milestone evaluation, 5 visitors' prompts,
    6 quantization; the lower goes first."""
    status: Mapped[str] = mapped_column(String(16), default=QUEUED)
    checkpoint_id: Mapped[int] = mapped_column(ForeignKey("checkpoints.id"))
    turn_id: Mapped[int | None] = mapped_column(ForeignKey("turns.id", ondelete="CASCADE"), unique=True)
    evaluation_id: Mapped[int | None] = mapped_column(ForeignKey("evaluations.id", ondelete="CASCADE"), unique=True)
    call_id: Mapped[int | None] = mapped_column(ForeignKey("api_calls.id", ondelete="CASCADE"), unique=True)
    user_id: Mapped[int | None] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"))
    """Whose it is: the line is shared fairly between people. None for evaluations."""
    size: Mapped[int] = mapped_column(Integer, default=0)
    """Tokens that it may write at most."""
    issued_at: Mapped[dt.datetime] = mapped_column(UtcDateTime, default=utcnow)
    worker: Mapped[str] = mapped_column(String(96), default="")
    lease_until: Mapped[dt.datetime | None] = mapped_column(UtcDateTime)
    fence: Mapped[int] = mapped_column(Integer, default=0)
    attempts: Mapped[int] = mapped_column(Integer, default=0)
    """Claims since the last slice that was recorded."""
    claimed_at: Mapped[dt.datetime | None] = mapped_column(UtcDateTime)
    started_at: Mapped[dt.datetime | None] = mapped_column(UtcDateTime)
    """When its first word came; the wait that was foretold ends here."""
    expected_seconds: Mapped[float | None] = mapped_column(Float)
    """The wait as it was computed when the ticket was issued."""
    low_seconds: Mapped[float | None] = mapped_column(Float)
    high_seconds: Mapped[float | None] = mapped_column(Float)
    """The interval that was shown for it."""
    finished_at: Mapped[dt.datetime | None] = mapped_column(UtcDateTime)
    error: Mapped[str] = mapped_column(Text, default="")
