"""Checkpoints: folders that Hugging Face transformers can load, at a step of a run."""

import datetime as dt
from typing import Any

from sqlalchemy import JSON, BigInteger, Boolean, Float, ForeignKey, Integer, String, Text, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column, relationship

from registry.models.base import VERIFYING, Base, UtcDateTime, utcnow
from registry.models.runs import Run

TRAINING, UPLOAD, PUSH, HUB, IMPORT_HUB = "training", "upload", "push", "hub", "import-hub"
QUANTIZATION, AVERAGE = "quantization", "average"
ORIGINS = (TRAINING, UPLOAD, PUSH, HUB, IMPORT_HUB, QUANTIZATION, AVERAGE)
"""Our trainer, the browser, `grow push` and `grow watch`, the Hub protocol, `grow import-hub`; and the derived ones."""


class Checkpoint(Base):
    """A whole checkpoint. Its folder is never written again; `digest` is the sha256 of its manifest."""

    __tablename__ = "checkpoints"
    __table_args__ = (UniqueConstraint("run_id", "step", "kind", "precision"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    run_id: Mapped[int] = mapped_column(ForeignKey("runs.id"), index=True)
    step: Mapped[int] = mapped_column(BigInteger)
    kind: Mapped[str] = mapped_column(String(16), default="pretrained")
    """`pretrained`, `chat`, or `avg5` for the mean of five."""
    precision: Mapped[int] = mapped_column(Integer, default=16)
    """Bits per weight: 16, 8 or 4."""
    tokens_seen: Mapped[int | None] = mapped_column(BigInteger)
    flops: Mapped[float | None] = mapped_column(Float(53))
    folder: Mapped[str] = mapped_column(String(255))
    """Path relative to `Settings.checkpoints_dir`."""
    digest: Mapped[str] = mapped_column(String(64), index=True)
    manifest: Mapped[dict[str, Any]] = mapped_column(JSON)
    size_bytes: Mapped[int] = mapped_column(BigInteger, default=0, index=True)
    num_parameters: Mapped[int | None] = mapped_column(BigInteger)
    state: Mapped[str] = mapped_column(String(16), default=VERIFYING, index=True)
    reason: Mapped[str] = mapped_column(Text, default="")
    """Why it was rejected or retired."""
    weights_digest: Mapped[str] = mapped_column(String(64), default="", index=True)
    """sha256 over the hashes of the weight files alone: two steps may not share it."""
    tokenizer: Mapped[str] = mapped_column(String(16), default="")
    """Digest of the tokenizer; the checkpoints of a run share one."""
    fingerprint: Mapped[dict[str, Any]] = mapped_column(JSON, default=dict)
    """Log-probabilities of 64 fixed strings, in nats, by `<engine>/<dtype>`."""
    warnings: Mapped[list[dict[str, Any]]] = mapped_column(JSON, default=list)
    """What looks wrong although it loads: `{kind, step, ...}`; see `registry.fingerprints`."""
    is_milestone: Mapped[bool] = mapped_column(Boolean, default=False)
    """Gets the full suites, not only the panel."""
    is_released: Mapped[bool] = mapped_column(Boolean, default=False, index=True)
    """Offered to the public: in 16, 8 and 4 bit, with a card, and never deleted by a retention rule."""
    origin: Mapped[str] = mapped_column(String(24), default=TRAINING)
    """How it came: one of `ORIGINS`."""
    user_id: Mapped[int | None] = mapped_column(ForeignKey("users.id", ondelete="SET NULL"))
    """Who brought it; None for what the site's own processes made."""
    derivation: Mapped[dict[str, Any]] = mapped_column(JSON, default=dict)
    """How a derived one was made from its parents: the method and its settings."""
    created_at: Mapped[dt.datetime] = mapped_column(UtcDateTime, default=utcnow, index=True)

    run: Mapped[Run] = relationship(lazy="joined", innerjoin=True)

    @property
    def label(self) -> str:
        """`run@step`, with kind and precision where they are not the usual ones."""
        return label_of(self.run.name, self.step, self.kind, self.precision)


class CheckpointParent(Base):
    """A checkpoint was made from another one: by quantization, as one of several that were averaged, by fine-tuning."""

    __tablename__ = "checkpoint_parents"

    child_id: Mapped[int] = mapped_column(ForeignKey("checkpoints.id", ondelete="CASCADE"), primary_key=True)
    parent_id: Mapped[int] = mapped_column(ForeignKey("checkpoints.id", ondelete="CASCADE"), primary_key=True)
    role: Mapped[str] = mapped_column(String(24))
    """`quantization`, `average` or `fine-tune`."""


def label_of(run: str, step: int, kind: str, precision: int) -> str:
    """What a checkpoint is called, from its columns alone."""
    suffix = ("" if kind == "pretrained" else f"-{kind}") + (f"-{precision}bit" if precision != 16 else "")
    return f"{run}@{step}{suffix}"
