"""Forecasts as they were made, and what became of them."""

import datetime as dt

from sqlalchemy import BigInteger, Float, ForeignKey, Index, String, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from registry.models.base import Base, UtcDateTime, utcnow


class Forecast(Base):
    """One number of one run foretold; only the outcome is ever added, once the number is there."""

    __tablename__ = "forecasts"
    __table_args__ = (
        UniqueConstraint("run_id", "task", "metric", "protocol_key", "made_step", "horizon", name="uq_forecasts_made"),
        Index("ix_forecasts_due", "run_id", "outcome"),
    )

    id: Mapped[int] = mapped_column(primary_key=True)
    run_id: Mapped[int] = mapped_column(ForeignKey("runs.id", ondelete="CASCADE"))
    task: Mapped[str] = mapped_column(String(96), default="")
    """Name of the task; empty for a scalar of the training."""
    metric: Mapped[str] = mapped_column(String(64))
    """Of the task, or the scalar's key."""
    protocol_key: Mapped[str] = mapped_column(String(16), default="")
    """The line of the task's curve that it goes on."""
    horizon: Mapped[str] = mapped_column(String(16))
    """`next` checkpoint, `half` as many tokens again, `double` the tokens, or the `end` of the run."""
    made_step: Mapped[int] = mapped_column(BigInteger)
    made_tokens: Mapped[int] = mapped_column(BigInteger)
    target_step: Mapped[int] = mapped_column(BigInteger)
    target_tokens: Mapped[int] = mapped_column(BigInteger)
    value: Mapped[float] = mapped_column(Float(53))
    low: Mapped[float] = mapped_column(Float(53))
    """Lower end of the 90% interval."""
    high: Mapped[float] = mapped_column(Float(53))
    method: Mapped[str] = mapped_column(String(16))
    created_at: Mapped[dt.datetime] = mapped_column(UtcDateTime, default=utcnow)
    outcome: Mapped[float | None] = mapped_column(Float(53))
    """What was measured there; empty until then."""
    outcome_step: Mapped[int | None] = mapped_column(BigInteger)
    """Where it was; without an outcome, how far the curve had come when it was past the aim with no point near."""
