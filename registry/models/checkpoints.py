"""Checkpoints: folders that Hugging Face transformers can load, at a step of a run."""

import datetime as dt
from typing import Any

from sqlalchemy import JSON, BigInteger, Float, ForeignKey, Integer, String, Text, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column, relationship

from registry.models.base import VERIFYING, Base, UtcDateTime, utcnow
from registry.models.runs import Run


class Checkpoint(Base):
    """A whole checkpoint. Its folder is never written again; `digest` is the sha256 of its manifest."""

    __tablename__ = "checkpoints"
    __table_args__ = (UniqueConstraint("run_id", "step", "kind", "precision"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    run_id: Mapped[int] = mapped_column(ForeignKey("runs.id"), index=True)
    step: Mapped[int] = mapped_column(BigInteger)
    kind: Mapped[str] = mapped_column(String(16), default="pretrained")
    """`pretrained` or `chat`."""
    precision: Mapped[int] = mapped_column(Integer, default=16)
    """Bits per weight: 16, 8 or 4."""
    tokens_seen: Mapped[int | None] = mapped_column(BigInteger)
    flops: Mapped[float | None] = mapped_column(Float(53))
    folder: Mapped[str] = mapped_column(String(255))
    """Path relative to `Settings.checkpoints_dir`."""
    digest: Mapped[str] = mapped_column(String(64))
    manifest: Mapped[dict[str, Any]] = mapped_column(JSON)
    size_bytes: Mapped[int] = mapped_column(BigInteger, default=0)
    num_parameters: Mapped[int | None] = mapped_column(BigInteger)
    state: Mapped[str] = mapped_column(String(16), default=VERIFYING, index=True)
    reason: Mapped[str] = mapped_column(Text, default="")
    """Why it was rejected or retired."""
    created_at: Mapped[dt.datetime] = mapped_column(UtcDateTime, default=utcnow, index=True)

    run: Mapped[Run] = relationship(lazy="joined", innerjoin=True)

    @property
    def label(self) -> str:
        """`run@step`, with kind and precision where they are not the usual ones."""
        suffix = ("-chat" if self.kind == "chat" else "") + (f"-{self.precision}bit" if self.precision != 16 else "")
        return f"{self.run.name}@{self.step}{suffix}"
