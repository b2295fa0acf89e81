"""Uploads by browser that are under way, and how they ended."""

import datetime as dt
from typing import Any

from sqlalchemy import JSON, BigInteger, ForeignKey, Index, String, Text
from sqlalchemy.orm import Mapped, mapped_column, relationship

from registry.models.accounts import User
from registry.models.base import NEVER_AGAIN, Base, UtcDateTime, utcnow
from registry.models.jobs import Job

RECEIVING = "receiving"
"""Status of an upload whose files are still coming; then it is running, finished or failed."""


class Upload(Base):
    """One checkpoint on its way in: announced with all its files, received in chunks, then unpacked and admitted."""

    __tablename__ = "uploads"
    __table_args__ = (Index("ix_uploads_status", "status", "expires_at"), NEVER_AGAIN)

    id: Mapped[int] = mapped_column(primary_key=True)
    folder: Mapped[str] = mapped_column(String(32), unique=True)
    """Below `Settings.uploads_dir`."""
    user_id: Mapped[int] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"), index=True)
    run: Mapped[str] = mapped_column(String(63))
    step: Mapped[int] = mapped_column(BigInteger)
    tokens_seen: Mapped[int | None] = mapped_column(BigInteger)
    kind: Mapped[str] = mapped_column(String(16))
    place: Mapped[str | None] = mapped_column(String(120), unique=True)
    """Run, step and kind while files are kept for it, so that two uploads never meet there; None once they are gone."""
    size_bytes: Mapped[int] = mapped_column(BigInteger)
    status: Mapped[str] = mapped_column(String(16), default=RECEIVING)
    error: Mapped[str] = mapped_column(Text, default="")
    """Why it failed: a sentence in English, whose `%(name)s` are in `error_values`."""
    error_values: Mapped[dict[str, Any]] = mapped_column(JSON, default=dict)
    job_id: Mapped[int | None] = mapped_column(ForeignKey("jobs.id", ondelete="SET NULL"))
    checkpoint_id: Mapped[int | None] = mapped_column(ForeignKey("checkpoints.id", ondelete="SET NULL"))
    created_at: Mapped[dt.datetime] = mapped_column(UtcDateTime, default=utcnow)
    expires_at: Mapped[dt.datetime] = mapped_column(UtcDateTime)
    """When its files are deleted unless more of it comes."""
    finished_at: Mapped[dt.datetime | None] = mapped_column(UtcDateTime)

    files: Mapped[list["UploadFile"]] = relationship(
        back_populates="upload",
        order_by="UploadFile.position",
        lazy="selectin",
        cascade="all, delete-orphan",
        passive_deletes=True,
    )
    user: Mapped[User] = relationship(lazy="joined", innerjoin=True)
    job: Mapped[Job | None] = relationship(lazy="joined")

    @property
    def received(self) -> int:
        """Bytes that are here."""
        return sum(file.received for file in self.files)

    @property
    def is_zip(self) -> bool:
        """Whether it is one archive of everything."""
        return len(self.files) == 1 and self.files[0].name.lower().endswith(".zip")


class UploadFile(Base):
    """One file of an upload: what the tus protocol calls an upload resource."""

    __tablename__ = "upload_files"

    id: Mapped[str] = mapped_column(String(32), primary_key=True)
    """Random: the last part of its address, and its name on disk."""
    upload_id: Mapped[int] = mapped_column(ForeignKey("uploads.id", ondelete="CASCADE"), index=True)
    position: Mapped[int]
    name: Mapped[str] = mapped_column(String(500))
    """Path in the folder that was chosen; never a path here before it was checked."""
    size: Mapped[int] = mapped_column(BigInteger)
    modified: Mapped[int | None] = mapped_column(BigInteger)
    """When it was last changed where it comes from, in milliseconds since 1970: a file of the same name and size that
    was written anew must not become the end of the old one. None: its sender did not say."""
    received: Mapped[int] = mapped_column(BigInteger, default=0)
    """Bytes that are on disk and counted: the protocol's offset."""
    sha256: Mapped[str] = mapped_column(String(64), default="")
    """Of a whole file that was hashed on its way; empty where the server started anew meanwhile."""

    upload: Mapped[Upload] = relationship(back_populates="files", lazy="joined", innerjoin=True)

    @property
    def is_whole(self) -> bool:
        """Whether all of it is here."""
        return self.received == self.size
