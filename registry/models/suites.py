"""Benchmark suites and their tasks, as read from `suites/`."""

import datetime as dt

from sqlalchemy import Boolean, Float, ForeignKey, Integer, String, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column, relationship

from registry.models.base import Base, UtcDateTime, utcnow


class Suite(Base):
    """A named list of tasks: an lm-eval group."""

    __tablename__ = "suites"

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(String(64), unique=True)
    created_at: Mapped[dt.datetime] = mapped_column(UtcDateTime, default=utcnow)


class Task(Base):
    """One benchmark at one version: an lm-eval task. Another version is another row and another line on the chart."""

    __tablename__ = "tasks"
    __table_args__ = (UniqueConstraint("name", "version"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    suite_id: Mapped[int] = mapped_column(ForeignKey("suites.id"), index=True)
    name: Mapped[str] = mapped_column(String(96))
    version: Mapped[str] = mapped_column(String(32), default="1")
    title: Mapped[str] = mapped_column(String(120))
    title_zh: Mapped[str] = mapped_column(String(120), default="")
    ability: Mapped[str] = mapped_column(String(32))
    """`chinese`, `english`, `code`, `maths`, `reasoning` or `knowledge`."""
    output_type: Mapped[str] = mapped_column(String(32))
    """lm-eval's word: multiple_choice, loglikelihood_rolling, generate_until."""
    metric: Mapped[str] = mapped_column(String(48), default="")
    """The headline metric; empty for a probe."""
    higher_is_better: Mapped[bool] = mapped_column(Boolean, default=True)
    chance: Mapped[float | None] = mapped_column(Float)
    """Score of random answers on the headline metric."""
    is_probe: Mapped[bool] = mapped_column(Boolean, default=False)
    """Free text without a key: shown, not scored."""
    position: Mapped[int] = mapped_column(Integer, default=0)
    schedule: Mapped[str] = mapped_column(String(16), default="panel")
    """`panel`: every checkpoint; `milestone`: only those; `asked`: only by hand; `idle`: when nothing else waits."""
    own_schedule: Mapped[str] = mapped_column(String(16), default="")
    """What an administrator has set instead of what the task and `GROW_PANEL` say; empty: nothing."""
    is_shelved: Mapped[bool] = mapped_column(Boolean, default=False)
    """An administrator has retired it, whatever `suites/` says."""
    needs: Mapped[str] = mapped_column(String(64), default="")
    """What the machine must have before it is planned: `code_execution` or `local:<folder>`."""
    retired: Mapped[bool] = mapped_column(Boolean, default=False)
    """No longer in `suites/`, or a prompt that was withdrawn; old results stay, new checkpoints skip it."""

    suite: Mapped[Suite] = relationship(lazy="joined", innerjoin=True)
