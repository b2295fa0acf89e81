"""The most memory that engines were seen to hold."""

import datetime as dt

from sqlalchemy import BigInteger, ForeignKey, Integer, String, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from registry.models.base import Base, UtcDateTime, utcnow


class MemoryPeak(Base):
    """Of one architecture in one precision, held by one engine: the highest figure that any worker reported."""

    __tablename__ = "memory_peaks"
    __table_args__ = (UniqueConstraint("architecture", "engine", "dtype", "device"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    architecture: Mapped[str] = mapped_column(String(16))
    """See `analysis.memory.architecture_key`: checkpoints of a run share it."""
    engine: Mapped[str] = mapped_column(String(32))
    """With its version."""
    dtype: Mapped[str] = mapped_column(String(16))
    device: Mapped[str] = mapped_column(String(8))
    """`cpu` or `cuda`."""
    num_bytes: Mapped[int] = mapped_column(BigInteger)
    kv_tokens: Mapped[int] = mapped_column(Integer)
    """Tokens that the KV cache had room for, or held."""
    step_tokens: Mapped[int] = mapped_column(Integer)
    """Tokens that were computed at a time at most."""
    checkpoint_id: Mapped[int | None] = mapped_column(ForeignKey("checkpoints.id", ondelete="SET NULL"))
    """The one that was held."""
    measured_at: Mapped[dt.datetime] = mapped_column(UtcDateTime, default=utcnow)
