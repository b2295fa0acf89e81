"""A family of runs as rewinds make them, with incidents: for the training page and the list of runs."""

import datetime as dt
import math
import random

from sqlalchemy import select
from sqlalchemy.orm import Session

from registry import news, runs
from registry.models import MetricPoint, Run, SupersededPoint
from registry.models.base import utcnow
from registry.runs import Origin

TOKENS_PER_STEP = 4096
CONFIG = {"corpus": {"mixture": {"zh": 0.5, "en": 0.25, "code": 0.25}}}


def add_family(session: Session) -> Run:
    """`spike` diverged and was rewound as `calm`; `calm` was resumed once, and has a branch, `anneal`."""
    rng = random.Random(3)
    spike = _run(session, "spike", hours=9)
    _log(session, spike, range(4, 1200, 4), rng, peak_after=900)
    calm = _run(session, "calm", hours=9, origin=Origin(spike, 800, is_rewind=True))
    _log(session, calm, range(804, 1500, 4), rng, noise=0.09)
    runs.rewind(session, calm, 1300)
    _log(session, calm, [*range(1304, 1600, 4), *range(1900, 2000, 4)], rng)
    anneal = _run(session, "anneal", hours=9, origin=Origin(calm, 1400))
    _log(session, anneal, range(1404, 1800, 4), rng, offset=-0.25)
    _spread_over_time(session, spike)
    news.publish_post(session, title="The loss went up", body="It spiked.", kind="incident", run=spike, step=920)
    news.publish_post(session, title="A disk was full", body="Ten minutes.", kind="incident", run=calm, step=1600)
    news.publish_post(session, title="The seed was changed", body="Other text.", kind="incident", run=calm)
    session.flush()
    return calm


def _spread_over_time(session: Session, spike: Run) -> None:
    """A step takes ten seconds, and the rewind came an hour and a half after the other run had stopped there."""
    members = [branch.run.id for branch in runs.family(session, spike)]
    for points in (MetricPoint, SupersededPoint):
        for point in session.scalars(select(points).where(points.run_id.in_(members))):
            hours = point.step / 360 + (0.0 if point.run_id == spike.id else 1.5)
            point.created_at = spike.created_at + dt.timedelta(hours=hours)
    session.flush()


def _run(session: Session, name: str, *, hours: float, origin: Origin | None = None) -> Run:
    facts = {"config": CONFIG, "tokens_per_step": TOKENS_PER_STEP, "max_steps": 2500, "num_parameters": 5_300_000}
    run = runs.create_run(session, name=name, origin=origin, **facts)  # type: ignore[arg-type]
    run.created_at = run.heartbeat_at = utcnow() - dt.timedelta(hours=hours)
    return run


def _log(
    session: Session,
    run: Run,
    steps: "range | list[int]",
    rng: random.Random,
    *,
    peak_after: int = 10**9,
    offset: float = 0.0,
    noise: float = 0.05,
) -> None:
    for step in steps:
        loss = 2.9 + 6 * math.exp(-step / 160) + rng.gauss(0, noise) + offset * min(1, max(0, step - 1404) / 200)
        loss += 0.012 * max(0, step - peak_after)
        share = 0.5 + 0.06 * math.sin(step / 90) + rng.gauss(0, 0.01)
        tokens = 4 * TOKENS_PER_STEP
        values = {
            "train/loss": loss,
            "train/learning_rate": 2e-3
            * min(1, step / 100)
            * (1 if step < 1500 else max(0.1, 1 - (step - 1500) / 600)),
            "train/grad_norm": 0.6
            + 2.2 * math.exp(-step / 60)
            + abs(rng.gauss(0, 0.08))
            + 0.02 * max(0, step - peak_after),
            "train/tokens_per_second": 5800 + rng.gauss(0, 160),
            "data/tokens_zh": tokens * share,
            "data/tokens_en": tokens * (0.75 - share),
            "data/tokens_code": tokens * 0.25,
        }
        if step % 100 == 0:
            values |= {
                f"heldout/loss_{name}": loss * scale for name, scale in (("zh", 0.9), ("en", 1.16), ("code", 1.05))
            }
        runs.log_metrics(session, run, step, step * TOKENS_PER_STEP, values)
