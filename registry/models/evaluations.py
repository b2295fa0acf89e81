"""Evaluations of checkpoints and their results."""

import datetime as dt
from typing import Any

from sqlalchemy import JSON, Float, ForeignKey, Integer, String, Text, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column, relationship

from registry.models.base import QUEUED, Base, UtcDateTime, utcnow
from registry.models.checkpoints import Checkpoint
from registry.models.suites import Task


class Evaluation(Base):
    """One checkpoint on one task. Finished rows are immutable."""

    __tablename__ = "evaluations"
    __table_args__ = (UniqueConstraint("checkpoint_id", "task_id"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    checkpoint_id: Mapped[int] = mapped_column(ForeignKey("checkpoints.id"))
    task_id: Mapped[int] = mapped_column(ForeignKey("tasks.id"), index=True)
    status: Mapped[str] = mapped_column(String(16), default=QUEUED)
    error: Mapped[str] = mapped_column(Text, default="")
    protocol: Mapped[dict[str, Any]] = mapped_column(JSON, default=dict)
    """What the numbers depend on: engine and version, dtype, few-shot count, library versions."""
    num_items: Mapped[int | None] = mapped_column(Integer)
    engine_seconds: Mapped[float | None] = mapped_column(Float)
    samples_file: Mapped[str] = mapped_column(String(255), default="")
    """Path relative to `Settings.samples_dir`."""
    created_at: Mapped[dt.datetime] = mapped_column(UtcDateTime, default=utcnow)
    finished_at: Mapped[dt.datetime | None] = mapped_column(UtcDateTime)

    checkpoint: Mapped[Checkpoint] = relationship(lazy="raise")
    task: Mapped[Task] = relationship(lazy="raise")
    results: Mapped[list["Result"]] = relationship(lazy="raise", order_by="Result.metric")


class Result(Base):
    """A number of an evaluation: lm-eval's `acc` and `acc_stderr` in one row."""

    __tablename__ = "results"
    __table_args__ = (UniqueConstraint("evaluation_id", "metric"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    evaluation_id: Mapped[int] = mapped_column(ForeignKey("evaluations.id", ondelete="CASCADE"))
    metric: Mapped[str] = mapped_column(String(48))
    value: Mapped[float] = mapped_column(Float(53))
    stderr: Mapped[float | None] = mapped_column(Float(53))
    low: Mapped[float | None] = mapped_column(Float(53))
    """Lower end of the 95% interval."""
    high: Mapped[float | None] = mapped_column(Float(53))
    n: Mapped[int] = mapped_column(Integer)
