"""What pages say about a run: its age, how far it is, and its curves by ability."""

import datetime as dt
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sqlalchemy.orm import Session

from registry import checkpoints, evaluations, runs
from registry.models import Checkpoint, Run
from registry.models.base import FINISHED, QUEUED, READY, REJECTED, RETIRED, RUNNING, VERIFYING, utcnow
from server.charts import ABILITIES, Chart, growth_chart

SILENT_AFTER = dt.timedelta(minutes=3)
ALL_STATES = (VERIFYING, READY, REJECTED, RETIRED)


@dataclass(frozen=True)
class Age:
    """How old a run is, in the units of its training."""

    run: Run
    step: int
    tokens_seen: int
    share: float | None
    """Of its planned steps, 0 to 1."""
    is_live: bool
    """Training, and heard from lately."""
    num_ready: int
    newest: Checkpoint | None
    num_open: int
    """Evaluations still to do."""
    num_done: int

    @property
    def exists(self) -> bool:
        """Whether it has trained at all."""
        return self.tokens_seen > 0 or self.num_ready > 0


@dataclass(frozen=True)
class CheckpointRow:
    """A checkpoint in a list, with how far its evaluations are."""

    checkpoint: Checkpoint
    href: str
    done: int
    planned: int


@dataclass(frozen=True)
class Group:
    """The curves of one ability."""

    ability: str
    charts: Sequence[Chart]


def checkpoint_href(checkpoint: Checkpoint) -> str:
    """Address of a checkpoint's page."""
    extra = [
        *(["kind=chat"] if checkpoint.kind == "chat" else []),
        *([f"precision={checkpoint.precision}"] if checkpoint.precision != 16 else []),
    ]
    return f"/runs/{checkpoint.run.name}/checkpoints/{checkpoint.step}" + (f"?{'&'.join(extra)}" if extra else "")


def checkpoint_rows(session: Session, run: Run) -> list[CheckpointRow]:
    """Every checkpoint of a run, the newest first, in whatever state."""
    counts = evaluations.progress(session, run)
    found = checkpoints.list_checkpoints(session, run, ALL_STATES)
    return [_row(checkpoint, counts.get(checkpoint.id, {})) for checkpoint in reversed(found)]


def _row(checkpoint: Checkpoint, counts: Mapping[str, int]) -> CheckpointRow:
    return CheckpointRow(checkpoint, checkpoint_href(checkpoint), counts.get(FINISHED, 0), sum(counts.values()))


def age_of(session: Session, run: Run) -> Age:
    """How far a run has come."""
    ready = checkpoints.list_checkpoints(session, run, (READY,))
    totals: Counter[str] = Counter()
    for counts in evaluations.progress(session, run).values():
        totals.update(counts)
    last = runs.last_step(session, run)
    step = max([last.step if last else 0, *(c.step for c in ready)])
    tokens = max([last.tokens_seen if last else 0, *(c.tokens_seen or 0 for c in ready)])
    return Age(
        run=run,
        step=step,
        tokens_seen=tokens,
        share=min(1.0, step / run.max_steps) if run.max_steps else None,
        is_live=run.kind == "training" and run.status == RUNNING and utcnow() - run.heartbeat_at < SILENT_AFTER,
        num_ready=len(ready),
        newest=max(ready, key=lambda c: (c.step, c.id), default=None),
        num_open=totals[QUEUED] + totals[RUNNING],
        num_done=totals[FINISHED],
    )


def growth_groups(session: Session, run: Run, x: str) -> list[Group]:
    """The headline curves of a run, by ability, in the order of the suites."""
    by_ability: dict[str, list[Chart]] = {}
    for series in evaluations.run_series(session, run, x):
        by_ability.setdefault(series.task.ability, []).append(growth_chart(series))
    order = {ability: place for place, ability in enumerate(ABILITIES)}
    return [Group(a, by_ability[a]) for a in sorted(by_ability, key=lambda a: order.get(a, len(order)))]
