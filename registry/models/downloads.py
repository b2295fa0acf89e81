"""What downloads need beside the checkpoints: git's names of small files, and other places that hold copies."""

import datetime as dt

from sqlalchemy import String, Text
from sqlalchemy.orm import Mapped, mapped_column

from registry.models.base import Base, UtcDateTime, utcnow


class GitBlob(Base):
    """The name under which git knows a content; the Hub protocol names small files by it."""

    __tablename__ = "git_blobs"

    sha256: Mapped[str] = mapped_column(String(64), primary_key=True)
    oid: Mapped[str] = mapped_column(String(40))
    """sha1 of the git blob."""


class Mirror(Base):
    """Another web server that holds a copy of `Settings.checkpoints_dir`; its files are offered beside ours."""

    __tablename__ = "mirrors"

    id: Mapped[int] = mapped_column(primary_key=True)
    label: Mapped[str] = mapped_column(String(60))
    base_url: Mapped[str] = mapped_column(String(300), unique=True)
    """Without a slash at its end."""
    checked_at: Mapped[dt.datetime | None] = mapped_column(UtcDateTime)
    problem: Mapped[str] = mapped_column(Text, default="")
    """What was wrong when it was checked last, in a sentence; empty: nothing."""
    created_at: Mapped[dt.datetime] = mapped_column(UtcDateTime, default=utcnow)
