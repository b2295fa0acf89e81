"""Addresses that are told what happens here, and what was sent to each of them."""

import datetime as dt
from typing import Any

from sqlalchemy import JSON, Boolean, Float, ForeignKey, Index, Integer, String, Text, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column, relationship

from registry.models.base import QUEUED, Base, UtcDateTime, utcnow


class Webhook(Base):
    """One receiver. Its address and its secret are sealed: the addresses of chat services are secrets themselves."""

    __tablename__ = "webhooks"

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(String(60))
    host: Mapped[str] = mapped_column(String(255))
    """The part of the address that may be shown."""
    sealed_url: Mapped[str] = mapped_column(Text)
    sealed_secret: Mapped[str] = mapped_column(Text, default="")
    """Empty where the format has no signature."""
    format: Mapped[str] = mapped_column(String(16))
    """One of `registry.webhooks.FORMATS`."""
    language: Mapped[str] = mapped_column(String(2), default="en")
    """Of ready-made messages: `en` or `zh`."""
    events: Mapped[str] = mapped_column(String(200))
    """Which it is told, comma-separated; of `registry.webhooks.EVENTS`."""
    is_active: Mapped[bool] = mapped_column(Boolean, default=True)
    pause_reason: Mapped[str] = mapped_column(Text, default="")
    """Why the site itself paused it; empty where an administrator did."""
    num_failures: Mapped[int] = mapped_column(Integer, default=0)
    """Attempts that failed since the last one that was taken."""
    retry_at: Mapped[dt.datetime | None] = mapped_column(UtcDateTime)
    """Nothing is sent before; set after a failure."""
    user_id: Mapped[int | None] = mapped_column(ForeignKey("users.id", ondelete="SET NULL"))
    created_at: Mapped[dt.datetime] = mapped_column(UtcDateTime, default=utcnow)


class WebhookDelivery(Base):
    """One event on its way to one receiver: written with what it tells of, sent afterwards, at least once."""

    __tablename__ = "webhook_deliveries"
    __table_args__ = (
        UniqueConstraint("webhook_id", "once", name="uq_webhook_deliveries_webhook_id_once"),
        Index("ix_webhook_deliveries_line", "status", "webhook_id", "id"),
    )

    id: Mapped[int] = mapped_column(primary_key=True)
    webhook_id: Mapped[int] = mapped_column(ForeignKey("webhooks.id", ondelete="CASCADE"))
    key: Mapped[str] = mapped_column(String(36))
    """What a receiver knows it by, the same at each attempt."""
    once: Mapped[str | None] = mapped_column(String(120))
    """What it tells of; nothing is told twice of the same."""
    event: Mapped[str] = mapped_column(String(32))
    data: Mapped[dict[str, Any]] = mapped_column(JSON)
    status: Mapped[str] = mapped_column(String(16), default=QUEUED)
    attempts: Mapped[int] = mapped_column(Integer, default=0)
    fence: Mapped[int] = mapped_column(Integer, default=0)
    """Grows with each attempt: what a sender reports that was given up for lost is refused."""
    lease_until: Mapped[dt.datetime | None] = mapped_column(UtcDateTime)
    response_status: Mapped[int | None] = mapped_column(Integer)
    response_start: Mapped[str] = mapped_column(Text, default="")
    error: Mapped[str] = mapped_column(Text, default="")
    """What went wrong last, in a sentence."""
    seconds: Mapped[float | None] = mapped_column(Float)
    """How long the last attempt took."""
    created_at: Mapped[dt.datetime] = mapped_column(UtcDateTime, default=utcnow)
    attempted_at: Mapped[dt.datetime | None] = mapped_column(UtcDateTime)

    webhook: Mapped[Webhook] = relationship(lazy="joined", innerjoin=True)
