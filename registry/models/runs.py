"""Training runs and the scalars they log."""

import datetime as dt
from typing import Any

from sqlalchemy import JSON, BigInteger, Boolean, Float, ForeignKey, Integer, String
from sqlalchemy.orm import Mapped, mapped_column

from registry.models.base import RUNNING, Base, UtcDateTime, utcnow


class Run(Base):
    """One training run, or the home of uploaded checkpoints (`kind` = `upload`)."""

    __tablename__ = "runs"

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(String(64), unique=True)
    """Stands in addresses: lower-case letters, digits, dot, dash and underscore."""
    kind: Mapped[str] = mapped_column(String(16), default="training")
    status: Mapped[str] = mapped_column(String(16), default=RUNNING)
    config: Mapped[dict[str, Any]] = mapped_column(JSON, default=dict)
    git_revision: Mapped[str] = mapped_column(String(64), default="")
    num_parameters: Mapped[int | None] = mapped_column(BigInteger)
    tokens_per_step: Mapped[int | None] = mapped_column(BigInteger)
    max_steps: Mapped[int | None] = mapped_column(BigInteger)
    parent_run_id: Mapped[int | None] = mapped_column(ForeignKey("runs.id"))
    parent_step: Mapped[int | None] = mapped_column(BigInteger)
    is_rewind: Mapped[bool] = mapped_column(Boolean, default=False)
    """It takes its parent's place: what the parent did after `parent_step` is superseded."""
    created_at: Mapped[dt.datetime] = mapped_column(UtcDateTime, default=utcnow)
    heartbeat_at: Mapped[dt.datetime] = mapped_column(UtcDateTime, default=utcnow)
    """Last sign of life from the trainer."""


class MetricPoint(Base):
    """One scalar of a run at a step, as a W&B history row: loss, learning rate, gradient norm, tokens/s."""

    __tablename__ = "metric_points"

    run_id: Mapped[int] = mapped_column(ForeignKey("runs.id", ondelete="CASCADE"), primary_key=True)
    key: Mapped[str] = mapped_column(String(64), primary_key=True)
    step: Mapped[int] = mapped_column(BigInteger, primary_key=True)
    value: Mapped[float] = mapped_column(Float(53))
    tokens_seen: Mapped[int] = mapped_column(BigInteger, default=0)
    created_at: Mapped[dt.datetime] = mapped_column(UtcDateTime, default=utcnow)


class SupersededPoint(Base):
    """A scalar that was measured, then done again from an earlier step: kept, but no part of the curve any more."""

    __tablename__ = "superseded_points"

    run_id: Mapped[int] = mapped_column(ForeignKey("runs.id", ondelete="CASCADE"), primary_key=True)
    attempt: Mapped[int] = mapped_column(Integer, primary_key=True)
    """1 for what the first rewind of the run gave up, 2 for the second, …"""
    key: Mapped[str] = mapped_column(String(64), primary_key=True)
    step: Mapped[int] = mapped_column(BigInteger, primary_key=True)
    value: Mapped[float] = mapped_column(Float(53))
    tokens_seen: Mapped[int] = mapped_column(BigInteger, default=0)
    created_at: Mapped[dt.datetime] = mapped_column(UtcDateTime, default=utcnow)
