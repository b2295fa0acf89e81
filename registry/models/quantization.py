"""What the answers of a checkpoint lose when it is quantized."""

from sqlalchemy import Boolean, Float, ForeignKey, Integer
from sqlalchemy.orm import Mapped, mapped_column

from registry.models.base import Base


class QuantizationLoss(Base):
    """An evaluation of a quantized checkpoint against that of the 16-bit one of its step, on the headline metric."""

    __tablename__ = "quantization_losses"

    evaluation_id: Mapped[int] = mapped_column(ForeignKey("evaluations.id", ondelete="CASCADE"), primary_key=True)
    against_id: Mapped[int] = mapped_column(ForeignKey("evaluations.id", ondelete="CASCADE"), index=True)
    value: Mapped[float] = mapped_column(Float(53))
    """Quantized minus 16 bit, in the metric's own unit."""
    stderr: Mapped[float | None] = mapped_column(Float(53))
    low: Mapped[float | None] = mapped_column(Float(53))
    """Lower end of the 95% interval."""
    high: Mapped[float | None] = mapped_column(Float(53))
    p_value: Mapped[float | None] = mapped_column(Float(53))
    n: Mapped[int] = mapped_column(Integer)
    is_paired: Mapped[bool] = mapped_column(Boolean)
    """Compared item by item; else by the two results alone."""
