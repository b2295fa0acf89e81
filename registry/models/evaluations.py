"""Evaluations of checkpoints: their slices, their results, and how they compare with the checkpoint before."""

import datetime as dt
from typing import Any

from sqlalchemy import (
    JSON,
    Boolean,
    Float,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    String,
    Text,
    UniqueConstraint,
    text,
)
from sqlalchemy.orm import Mapped, mapped_column, relationship

from registry.models.base import QUEUED, Base, UtcDateTime, utcnow
from registry.models.checkpoints import Checkpoint
from registry.models.suites import Task


class Evaluation(Base):
    """One checkpoint on one task under one protocol. Finished rows are immutable."""

    __tablename__ = "evaluations"
    __table_args__ = (
        # NULL while it is open: what the protocol is shows when an engine has answered.
        UniqueConstraint("checkpoint_id", "task_id", "protocol_key", name="uq_evaluations_checkpoint_task_protocol"),
        # those that the comparing job has still to look at
        Index("ix_evaluations_compared", "is_compared", "status"),
        # counted for each run on many pages, without reading the rows
        Index("ix_evaluations_status", "checkpoint_id", "status", "task_id"),
        Index(
            "ix_evaluations_failed",
            "task_id",
            sqlite_where=text("status = 'failed'"),
            postgresql_where=text("status = 'failed'"),
        ),
    )

    id: Mapped[int] = mapped_column(primary_key=True)
    checkpoint_id: Mapped[int] = mapped_column(ForeignKey("checkpoints.id"))
    task_id: Mapped[int] = mapped_column(ForeignKey("tasks.id"), index=True)
    status: Mapped[str] = mapped_column(String(16), default=QUEUED)
    error: Mapped[str] = mapped_column(Text, default="")
    """Why it failed or was cancelled, in a sentence."""
    log: Mapped[str] = mapped_column(Text, default="")
    """Last lines of the engine's log where it died of this."""
    protocol: Mapped[dict[str, Any]] = mapped_column(JSON, default=dict)
    """What the numbers depend on beside the weights; see `registry.protocol`."""
    protocol_key: Mapped[str | None] = mapped_column(String(16))
    """Two evaluations are comparable, and on one line of the chart, where this is the same."""
    num_items: Mapped[int | None] = mapped_column(Integer)
    num_done: Mapped[int] = mapped_column(Integer, default=0)
    """Items answered so far; the next slice begins there."""
    num_truncated: Mapped[int] = mapped_column(Integer, default=0)
    """Items that were longer than the model can read, so that their beginning was left out."""
    engine_seconds: Mapped[float | None] = mapped_column(Float)
    ignore_budget: Mapped[bool] = mapped_column(Boolean, default=False)
    """Somebody asked for it by hand."""
    items_file: Mapped[str] = mapped_column(String(255), default="")
    """Path relative to `Settings.samples_dir`."""
    is_compared: Mapped[bool] = mapped_column(Boolean, default=False)
    """Whether `change` is up to date with the checkpoint before."""
    created_at: Mapped[dt.datetime] = mapped_column(UtcDateTime, default=utcnow)
    finished_at: Mapped[dt.datetime | None] = mapped_column(UtcDateTime)

    checkpoint: Mapped[Checkpoint] = relationship(lazy="raise")
    task: Mapped[Task] = relationship(lazy="raise")
    results: Mapped[list["Result"]] = relationship(lazy="raise", order_by="Result.metric")
    slices: Mapped[list["Slice"]] = relationship(lazy="raise", order_by="Slice.start")
    change: Mapped["Change | None"] = relationship(lazy="raise", foreign_keys="Change.evaluation_id")


class Slice(Base):
    """A stretch of an evaluation's items and the immutable file with their answers."""

    __tablename__ = "slices"
    __table_args__ = (UniqueConstraint("evaluation_id", "start"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    evaluation_id: Mapped[int] = mapped_column(ForeignKey("evaluations.id", ondelete="CASCADE"))
    start: Mapped[int] = mapped_column(Integer)
    stop: Mapped[int] = mapped_column(Integer)
    """Position after the last item."""
    file: Mapped[str] = mapped_column(String(255))
    """Path relative to `Settings.samples_dir`."""
    engine_seconds: Mapped[float] = mapped_column(Float)
    created_at: Mapped[dt.datetime] = mapped_column(UtcDateTime, default=utcnow)


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


class ScoreColumn(Base):
    """The scores of a checkpoint in one metric, for reading many checkpoints at once; see `registry.columns`."""

    __tablename__ = "score_columns"

    checkpoint_id: Mapped[int] = mapped_column(ForeignKey("checkpoints.id", ondelete="CASCADE"), primary_key=True)
    metric: Mapped[str] = mapped_column(String(48), primary_key=True)
    records: Mapped[bytes] = mapped_column(LargeBinary)
    """An array of `registry.columns.RECORD`."""


class Change(Base):
    """An evaluation against the one of the checkpoint before, on the headline metric."""

    __tablename__ = "changes"

    evaluation_id: Mapped[int] = mapped_column(ForeignKey("evaluations.id", ondelete="CASCADE"), primary_key=True)
    against_id: Mapped[int] = mapped_column(ForeignKey("evaluations.id", ondelete="CASCADE"), index=True)
    value: Mapped[float] = mapped_column(Float(53))
    """After minus before."""
    stderr: Mapped[float | None] = mapped_column(Float(53))
    low: Mapped[float | None] = mapped_column(Float(53))
    high: Mapped[float | None] = mapped_column(Float(53))
    p_value: Mapped[float | None] = mapped_column(Float(53))
    n: Mapped[int] = mapped_column(Integer)
    is_paired: Mapped[bool] = mapped_column(Boolean)
    """Compared item by item; else by the two results alone."""
    verdict: Mapped[str] = mapped_column(String(16))
    """`gain`, `loss` or `within noise`, corrected over the tasks of the two checkpoints."""
