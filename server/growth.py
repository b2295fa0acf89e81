"""What pages say about a run: its age, how far it is, and its curves by ability."""

import datetime as dt
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sqlalchemy import select
from sqlalchemy.orm import Session

from registry import aliases, checkpoints, evaluations, runs
from registry.curves import Series
from registry.models import Checkpoint, Evaluation, Run, Task
from registry.models.base import (
    EXTERNAL,
    FAILED,
    FINISHED,
    QUEUED,
    READY,
    REJECTED,
    RETIRED,
    RUNNING,
    VERIFYING,
    utcnow,
)
from server import protocols
from server.charts import Chart
from server.curves import Failure, Notes, growth_chart

SILENT_AFTER = dt.timedelta(minutes=3)
ALL_STATES = (VERIFYING, READY, EXTERNAL, REJECTED, RETIRED)


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
    num_checkpoints: int
    """Those that are ready, and those known by imported results alone."""
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
    names: Sequence[str] = ()
    """Aliases that point at it."""


def checkpoint_href(checkpoint: Checkpoint) -> str:
    """Address of a checkpoint's page."""
    return step_href(checkpoint, checkpoint.step)


def step_href(like: Checkpoint, step: int) -> str:
    """Address of the page of another step of the same run, kind and precision."""
    extra = [
        *([f"kind={like.kind}"] if like.kind != "pretrained" else []),
        *([f"precision={like.precision}"] if like.precision != 16 else []),
    ]
    return f"/runs/{like.run.name}/checkpoints/{step}" + (f"?{'&'.join(extra)}" if extra else "")


def checkpoint_rows(session: Session, run: Run) -> list[CheckpointRow]:
    """Every checkpoint of a run, the newest first, in whatever state."""
    counts = evaluations.progress(session, run)
    names = aliases.by_checkpoint(session, run)
    found = checkpoints.list_checkpoints(session, run, ALL_STATES)
    return [_row(one, counts.get(one.id, {}), names.get(one.id, ())) for one in reversed(found)]


def _row(checkpoint: Checkpoint, counts: Mapping[str, int], names: Sequence[str]) -> CheckpointRow:
    href = checkpoint_href(checkpoint)
    return CheckpointRow(checkpoint, href, counts.get(FINISHED, 0), sum(counts.values()), names)


def age_of(session: Session, run: Run) -> Age:
    """How far a run has come."""
    known = checkpoints.extent(session, run)
    totals = evaluations.totals(session, run)
    last = runs.last_step(session, run)
    step = max(last.step if last else 0, known.step)
    return Age(
        run=run,
        step=step,
        tokens_seen=max(last.tokens_seen if last else 0, known.tokens_seen),
        share=min(1.0, step / run.max_steps) if run.max_steps else None,
        is_live=run.kind == "training" and run.status == RUNNING and utcnow() - run.heartbeat_at < SILENT_AFTER,
        num_checkpoints=known.num,
        num_ready=known.num_ready,
        newest=known.newest,
        num_open=totals.get(QUEUED, 0) + totals.get(RUNNING, 0),
        num_done=totals.get(FINISHED, 0),
    )


def growth_charts(session: Session, run: Run, found: Sequence[Series]) -> list[Chart]:
    """Growth curves with what stands beside their points; the number of queries does not grow with them."""
    notes = Notes(
        protocols=protocols.of_series(session, found),
        failures=_failures(session, run, found),
        warned=_warned(session, run),
    )
    return [growth_chart(series, notes) for series in found]


def _warned(session: Session, run: Run) -> set[int]:
    rows = session.execute(select(Checkpoint.id, Checkpoint.warnings).where(Checkpoint.run_id == run.id))
    return {checkpoint_id for checkpoint_id, warnings in rows if warnings}


def _failures(session: Session, run: Run, found: Sequence[Series]) -> dict[str, list[Failure]]:
    """Evaluations that failed at checkpoints without a score, by task; the x-axis is that of the curves."""
    scored = {(series.task.name, point.step) for series in found for point in series.points}
    x = found[0].x if found else "step"
    failures: dict[str, dict[int, Failure]] = {}
    query = (
        select(Task.name, Evaluation.id, Evaluation.error, Checkpoint)
        .join(Evaluation, Evaluation.task_id == Task.id)
        .join(Checkpoint, Checkpoint.id == Evaluation.checkpoint_id)
        .where(
            Checkpoint.run_id == run.id,
            Checkpoint.kind == "pretrained",
            Checkpoint.precision == 16,
            Checkpoint.state == READY,
            Evaluation.status == FAILED,
        )
        .order_by(Evaluation.id)
    )
    for name, evaluation_id, error, checkpoint in session.execute(query):
        at = _place(run, checkpoint, x)
        if at is not None and (name, checkpoint.step) not in scored:
            failures.setdefault(name, {})[checkpoint.step] = Failure(at, checkpoint.step, evaluation_id, error)
    return {name: list(by_step.values()) for name, by_step in failures.items()}


def _place(run: Run, checkpoint: Checkpoint, x: str) -> float | None:
    return {
        "tokens": checkpoint.tokens_seen,
        "step": checkpoint.step,
        "flops": checkpoint.flops,
        "time": (checkpoint.created_at - run.created_at).total_seconds(),
    }[x]
