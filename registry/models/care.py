"""How a run's checkpoints are looked after: names that move along, and rules of what may be deleted."""

import datetime as dt

from sqlalchemy import Boolean, ForeignKey, Integer, String, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column, relationship

from registry.models.base import Base, UtcDateTime, utcnow
from registry.models.checkpoints import Checkpoint


class Alias(Base):
    """A name that administrators let point at a checkpoint of a run; those that are computed have no row."""

    __tablename__ = "aliases"
    __table_args__ = (UniqueConstraint("run_id", "name"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    run_id: Mapped[int] = mapped_column(ForeignKey("runs.id", ondelete="CASCADE"))
    name: Mapped[str] = mapped_column(String(40))
    checkpoint_id: Mapped[int] = mapped_column(ForeignKey("checkpoints.id", ondelete="CASCADE"), index=True)
    user_id: Mapped[int | None] = mapped_column(ForeignKey("users.id", ondelete="SET NULL"))
    """Who set it last."""
    updated_at: Mapped[dt.datetime] = mapped_column(UtcDateTime, default=utcnow)

    checkpoint: Mapped[Checkpoint] = relationship(lazy="joined", innerjoin=True)


class RetentionRule(Base):
    """Which checkpoints of a run keep their files; a run without a row keeps all of them."""

    __tablename__ = "retention_rules"

    run_id: Mapped[int] = mapped_column(ForeignKey("runs.id", ondelete="CASCADE"), primary_key=True)
    keep_newest: Mapped[int] = mapped_column(Integer, default=3)
    """So many with the highest steps."""
    keep_best: Mapped[int] = mapped_column(Integer, default=1)
    """So many for each task, by its headline metric."""
    keep_milestones: Mapped[bool] = mapped_column(Boolean, default=True)
    is_scheduled: Mapped[bool] = mapped_column(Boolean, default=False)
    """Applied by itself once a day; otherwise only when an administrator asks for it."""
    user_id: Mapped[int | None] = mapped_column(ForeignKey("users.id", ondelete="SET NULL"))
    """Who set it last."""
    updated_at: Mapped[dt.datetime] = mapped_column(UtcDateTime, default=utcnow)
    applied_at: Mapped[dt.datetime | None] = mapped_column(UtcDateTime)
    """When it was last asked to be applied."""
