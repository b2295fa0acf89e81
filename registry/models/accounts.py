"""People who registered, and the browsers they are logged in with."""

import datetime as dt

from sqlalchemy import ForeignKey, String, Text
from sqlalchemy.orm import Mapped, mapped_column, relationship

from registry.models.base import NEVER_AGAIN, Base, UtcDateTime, utcnow


class User(Base):
    """A registered person. `name_key` is the case-folded name and is what must be unique."""

    __tablename__ = "users"
    __table_args__ = (NEVER_AGAIN,)

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(String(40))
    name_key: Mapped[str] = mapped_column(String(80), unique=True)
    password_hash: Mapped[str] = mapped_column(String(255))
    role: Mapped[str] = mapped_column(String(16), default="member")
    """`member`, `publisher` (may bring checkpoints in) or `admin`."""
    created_at: Mapped[dt.datetime] = mapped_column(UtcDateTime, default=utcnow)
    disabled_at: Mapped[dt.datetime | None] = mapped_column(UtcDateTime)
    banned_at: Mapped[dt.datetime | None] = mapped_column(UtcDateTime)
    """Since when this person may no longer ask models anything; reading and leaving stay possible."""
    ban_reason: Mapped[str] = mapped_column(Text, default="")

    @property
    def is_admin(self) -> bool:
        """Whether this person may administer the site."""
        return self.role == "admin"

    @property
    def may_publish(self) -> bool:
        """Whether this person may bring checkpoints in."""
        return self.role in ("admin", "publisher")


class LoginSession(Base):
    """One browser's login. Only the SHA-256 of the cookie is kept, so the table alone opens nothing."""

    __tablename__ = "login_sessions"

    id: Mapped[int] = mapped_column(primary_key=True)
    token_hash: Mapped[str] = mapped_column(String(64), unique=True)
    user_id: Mapped[int] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"), index=True)
    user_agent: Mapped[str] = mapped_column(String(255), default="")
    created_at: Mapped[dt.datetime] = mapped_column(UtcDateTime, default=utcnow)
    last_seen_at: Mapped[dt.datetime] = mapped_column(UtcDateTime, default=utcnow)
    expires_at: Mapped[dt.datetime] = mapped_column(UtcDateTime)
    revoked_at: Mapped[dt.datetime | None] = mapped_column(UtcDateTime)

    user: Mapped[User] = relationship(lazy="raise")
