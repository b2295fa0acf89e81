"""Runs as repositories of the Hugging Face Hub protocol: who owns one, its commits, its branches and tags."""

import datetime as dt
from typing import Any

from sqlalchemy import JSON, BigInteger, Boolean, ForeignKey, Index, String, Text, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column, relationship

from registry.models.base import NEVER_AGAIN, Base, UtcDateTime, utcnow
from registry.models.checkpoints import Checkpoint
from registry.models.runs import Run


class HubRepo(Base):
    """A run that was made, or is pushed into, by the Hub protocol."""

    __tablename__ = "hub_repos"

    run_id: Mapped[int] = mapped_column(ForeignKey("runs.id", ondelete="CASCADE"), primary_key=True)
    user_id: Mapped[int | None] = mapped_column(ForeignKey("users.id", ondelete="SET NULL"))
    """Who may push besides administrators; None: administrators alone."""
    namespace: Mapped[str] = mapped_column(String(96), default="")
    """What stands before the run's name in `namespace/run`; both forms name the run."""
    created_at: Mapped[dt.datetime] = mapped_column(UtcDateTime, default=utcnow)

    run: Mapped[Run] = relationship(lazy="joined")


class HubCommit(Base):
    """What a repository held after one push. It is never changed, except for what became of it here."""

    __tablename__ = "hub_commits"
    __table_args__ = (UniqueConstraint("run_id", "sha"), Index("ix_hub_commits_waiting", "is_waiting"), NEVER_AGAIN)

    id: Mapped[int] = mapped_column(primary_key=True)
    run_id: Mapped[int] = mapped_column(ForeignKey("runs.id", ondelete="CASCADE"))
    sha: Mapped[str] = mapped_column(String(40))
    parent: Mapped[str] = mapped_column(String(40), default="")
    """The commit before it, which may be the derived one of a checkpoint; empty: it is the first."""
    title: Mapped[str] = mapped_column(String(200), default="")
    message: Mapped[str] = mapped_column(Text, default="")
    tree: Mapped[dict[str, Any]] = mapped_column(JSON)
    """`{path: {"size", "sha256", "oid"}}`; `oid` is the git blob's sha1, empty for a large file."""
    ignored: Mapped[list[str]] = mapped_column(JSON, default=list)
    """Paths that were sent and not kept, because such files can run code when they are loaded."""
    step: Mapped[int | None] = mapped_column(BigInteger)
    """The step that the push named, where it did."""
    tokens_seen: Mapped[int | None] = mapped_column(BigInteger)
    kind: Mapped[str] = mapped_column(String(16), default="pretrained")
    """Of the checkpoint that it becomes, where it becomes one."""
    is_waiting: Mapped[bool] = mapped_column(Boolean, default=False)
    """A whole model without a step: a tag may name one for a while, then it gets the next number."""
    checkpoint_id: Mapped[int | None] = mapped_column(ForeignKey("checkpoints.id", ondelete="SET NULL"), index=True)
    user_id: Mapped[int | None] = mapped_column(ForeignKey("users.id", ondelete="SET NULL"))
    created_at: Mapped[dt.datetime] = mapped_column(UtcDateTime, default=utcnow)

    checkpoint: Mapped[Checkpoint | None] = relationship(lazy="joined")


class HubRef(Base):
    """A branch or a tag of a repository."""

    __tablename__ = "hub_refs"
    __table_args__ = (UniqueConstraint("run_id", "name"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    run_id: Mapped[int] = mapped_column(ForeignKey("runs.id", ondelete="CASCADE"))
    kind: Mapped[str] = mapped_column(String(8))
    """`branch` or `tag`."""
    name: Mapped[str] = mapped_column(String(120))
    sha: Mapped[str] = mapped_column(String(40))
    """A commit, or the derived one of a checkpoint."""
    message: Mapped[str] = mapped_column(Text, default="")
    created_at: Mapped[dt.datetime] = mapped_column(UtcDateTime, default=utcnow)
