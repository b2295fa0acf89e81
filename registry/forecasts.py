"""Forecasts of a run's curves: made when a new point arrives, kept as they were, scored when their time comes.

A curve is one task under one protocol, or a held-out loss. Whenever the run has grown by a twentieth since
the last forecast of a curve, where it will be is written down for the next checkpoint, for half as many
tokens again, for twice the tokens and for the end of the run.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

from sqlalchemy import ColumnElement, case, func, or_, select
from sqlalchemy.orm import Session

from analysis import forecast, intervals
from analysis.forecast import LOSS, Scale, Unforeseeable
from registry import growth, runs, suites
from registry.models import Evaluation, Forecast, MetricPoint, Run
from registry.models.base import utcnow

NEXT, HALF, DOUBLE, END = "next", "half", "double", "end"
HORIZONS = (NEXT, HALF, DOUBLE, END)
GROWN = 1.05
"""A curve is forecast again when the run has seen so many times the tokens of the last time."""
NEAR = 0.05
"""A point counts as the outcome where it lies within this share of the tokens that were aimed at."""


class Curve(NamedTuple):
    """What can be forecast: the points of one line by tokens."""

    run: Run
    task: str
    """Empty for a scalar."""
    metric: str
    protocol_key: str
    scale: Scale
    steps: tuple[int, ...]
    tokens: tuple[float, ...]
    values: tuple[float, ...]
    stderr: float
    """Of the newest score."""


class Target(NamedTuple):
    """Where a forecast aims."""

    horizon: str
    step: int
    tokens: int


class Score(NamedTuple):
    """How many forecasts came due, and how many found the number inside their interval."""

    due: int
    inside: int


def scale_of(metric: str, *, higher_is_better: bool, chance: float | None) -> Scale:
    """What kind of number a metric is, for `analysis.forecast`."""
    if metric.partition(",")[0] in suites.SHARES:
        return Scale(True, chance or 0.0, 1.0)
    return Scale(True, None) if higher_is_better else LOSS


def task_curve(run: Run, found: growth.Curve) -> Curve | None:
    """The line of a task's latest protocol; None without a point whose tokens are known."""
    if not found.lines:
        return None
    line, task = found.lines[-1], found.task
    # The newest evaluation of a checkpoint comes last and counts.
    by_tokens = {tokens: at for at, tokens in enumerate(line.tokens.tolist()) if tokens > 0}
    if not by_tokens:
        return None
    rows = [by_tokens[tokens] for tokens in sorted(by_tokens)]
    half = (line.high[rows[-1]] - line.low[rows[-1]]) / 2
    is_headline = found.metric == task.metric
    rises = task.higher_is_better if is_headline else found.metric not in suites.LOWER_IS_BETTER
    return Curve(
        run=run,
        task=task.name,
        metric=found.metric,
        protocol_key=line.protocol_key,
        scale=scale_of(found.metric, higher_is_better=rises, chance=task.chance if is_headline else None),
        steps=tuple(line.step[rows].tolist()),
        tokens=tuple(line.tokens[rows].tolist()),
        values=tuple(line.value[rows].tolist()),
        stderr=float(half / intervals.quantile(math.inf)) if math.isfinite(half) else 0.0,
    )


def loss_curves(session: Session, run: Run, keys: Sequence[str] | None = None) -> list[Curve]:
    """The losses of a run, thinned; without `keys` those on held-out text."""
    if keys is None:
        keys = [key for key in runs.metric_keys(session, run) if key.startswith(runs.HELD_OUT)]
    spans = runs.thinned_metrics(session, run, keys) if keys else {}
    return [_loss_curve(run, key, spans[key]) for key in keys if key in spans]


def _loss_curve(run: Run, key: str, spans: Sequence[runs.MetricSpan]) -> Curve:
    by_tokens = {span.tokens_seen: span for span in spans if span.tokens_seen}
    kept = [by_tokens[tokens] for tokens in sorted(by_tokens)]
    return Curve(
        run=run,
        task="",
        metric=key,
        protocol_key="",
        scale=LOSS,
        steps=tuple(span.step for span in kept),
        tokens=tuple(float(span.tokens_seen) for span in kept),
        values=tuple(span.mean for span in kept),
        stderr=0.0,
    )


def targets(curve: Curve) -> list[Target]:
    """Where the next forecasts of a curve aim, on its own grid of steps and not beyond the end of the run."""
    if len(curve.steps) < 2 or curve.steps[-1] < 1:
        return []
    last, spacing = curve.steps[-1], curve.steps[-1] - curve.steps[-2]
    end = curve.run.max_steps
    wanted = [(NEXT, last + spacing), (HALF, _on_grid(1.5 * last, spacing)), (DOUBLE, _on_grid(2.0 * last, spacing))]
    if end is not None:
        wanted = [(name, step) for name, step in wanted if step < end] + [(END, end)]
    rate = curve.tokens[-1] / last
    found: dict[int, Target] = {}
    for name, step in wanted:
        if step > last:
            found.setdefault(step, Target(name, step, round(step * rate)))
    return list(found.values())


def _on_grid(step: float, spacing: int) -> int:
    return max(1, round(step / spacing)) * spacing


def make(session: Session, evaluation: Evaluation) -> list[Forecast]:
    """The forecasts that an evaluation's arrival calls for, not yet kept: its own curve's, and the held-out losses'.

    None unless it is the newest point of its line. Takes some ten milliseconds a curve, so call it outside a
    writing transaction. Needs the evaluation's checkpoint and task loaded.
    """
    checkpoint, task = evaluation.checkpoint, evaluation.task
    if checkpoint.kind != "pretrained" or checkpoint.precision != 16 or not task.metric:
        return []
    own = _own_curve(session, evaluation)
    found = loss_curves(session, checkpoint.run)
    if own is not None and own.steps[-1] == checkpoint.step and own.protocol_key == evaluation.protocol_key:
        found.append(own)
    last = _last_made(session, checkpoint.run)
    fresh = [curve for curve in found if _has_grown(curve, last)]
    return [row for curve in fresh for row in foretell(curve)]


def _has_grown(curve: Curve, last: dict[tuple[str, str, str], int]) -> bool:
    before = last.get((curve.task, curve.metric, curve.protocol_key), 0)
    return bool(curve.tokens) and curve.tokens[-1] >= GROWN * before


def _last_made(session: Session, run: Run) -> dict[tuple[str, str, str], int]:
    """Tokens at the last forecast of each curve."""
    name = (Forecast.task, Forecast.metric, Forecast.protocol_key)
    query = select(*name, func.max(Forecast.made_tokens)).where(Forecast.run_id == run.id).group_by(*name)
    return {(task, metric, key): made for task, metric, key, made in session.execute(query)}


def foretell(curve: Curve) -> list[Forecast]:
    """Where a curve will be at its targets, not yet kept; nothing where that cannot be said."""
    try:
        fitted = forecast.fit(curve.tokens, curve.values, curve.scale, curve.stderr)
    except Unforeseeable:
        return []
    rows = []
    for target in targets(curve):
        try:
            value, low, high = fitted.at(target.tokens)
        except Unforeseeable:
            continue
        rows.append(
            Forecast(
                run_id=curve.run.id,
                task=curve.task,
                metric=curve.metric,
                protocol_key=curve.protocol_key,
                horizon=target.horizon,
                made_step=curve.steps[-1],
                made_tokens=round(curve.tokens[-1]),
                target_step=target.step,
                target_tokens=target.tokens,
                value=value,
                low=low,
                high=high,
                method=fitted.method,
                created_at=utcnow(),
            )
        )
    return rows


def keep(session: Session, made: Sequence[Forecast]) -> None:
    """Write forecasts down; those that stand already stay as they are."""
    if not made:
        return
    # Two tasks of a checkpoint are compared at once, and both bring the forecasts of the losses.
    session.execute(select(Run.id).where(Run.id == made[0].run_id).with_for_update(key_share=True))
    own = (Forecast.task, Forecast.metric, Forecast.protocol_key, Forecast.made_step, Forecast.horizon)
    since = min(row.made_step for row in made)
    query = select(*own).where(Forecast.run_id == made[0].run_id, Forecast.made_step >= since)
    known = {tuple(row) for row in session.execute(query)}
    session.add_all(row for row in made if tuple(getattr(row, column.key) for column in own) not in known)
    session.flush()


def score(session: Session, evaluation: Evaluation) -> int:
    """Put the outcome beside the forecasts that an evaluation's arrival decides: of its task, and of the losses.

    A forecast is due once its curve has come as far as it aimed; the nearest point counts, if it is near. One
    whose curve went past without a point near is settled without an outcome, until a late one comes.
    Returns how many were scored. Needs the evaluation's checkpoint and task loaded.
    """
    run = evaluation.checkpoint.run
    tokens = evaluation.checkpoint.tokens_seen or 0
    is_open = Forecast.outcome_step.is_(None) | Forecast.target_tokens.between(tokens / (1 + NEAR), tokens / (1 - NEAR))
    query = select(Forecast).where(
        Forecast.run_id == run.id, Forecast.outcome.is_(None), Forecast.task.in_(("", evaluation.task.name)), is_open
    )
    waiting: dict[tuple[str, str], list[Forecast]] = {}
    for row in session.scalars(query):
        waiting.setdefault((row.metric, row.protocol_key), []).append(row)
    if not waiting:
        return 0
    found = _scalar_points(session, run, [metric for metric, key in waiting if not key])
    own = _own_curve(session, evaluation)
    if own is not None:
        found[own.metric, own.protocol_key] = list(zip(own.steps, own.tokens, own.values, strict=True))
    number = sum(_settle(row, found.get(name, [])) for name, rows in waiting.items() for row in rows)
    session.flush()
    return number


def _settle(row: Forecast, points: Sequence[tuple[int, float, float]]) -> bool:
    """Give a forecast its outcome from the points (step, tokens, value) of its curve."""
    if not points or max(step for step, _, _ in points) < row.target_step:
        return False
    near = [
        point
        for point in points
        if point[0] > row.made_step and abs(point[1] - row.target_tokens) <= NEAR * row.target_tokens
    ]
    if not near:
        step, tokens, _ = max(points, key=lambda point: point[1])
        if tokens > (1 + NEAR) * row.target_tokens:
            row.outcome_step = step
        return False
    row.outcome_step, _, row.outcome = min(near, key=lambda point: abs(point[1] - row.target_tokens))
    return True


def _own_curve(session: Session, evaluation: Evaluation) -> Curve | None:
    run = evaluation.checkpoint.run
    [found] = growth.growth_curves(session, run, [evaluation.task])
    return task_curve(run, found)


def _scalar_points(
    session: Session, run: Run, keys: Sequence[str]
) -> dict[tuple[str, str], list[tuple[int, float, float]]]:
    found: dict[tuple[str, str], list[tuple[int, float, float]]] = {}
    if keys:
        columns = (MetricPoint.key, MetricPoint.step, MetricPoint.tokens_seen, MetricPoint.value)
        query = select(*columns).where(MetricPoint.run_id == run.id, MetricPoint.key.in_(keys))
        for key, step, tokens, value in session.execute(query):
            found.setdefault((key, ""), []).append((step, float(tokens), value))
    return found


def coverage(session: Session, run: Run | None = None) -> dict[str, Score]:
    """By horizon, how many forecasts came due and how many were right, of a run or of all runs."""
    query = (
        select(Forecast.horizon, func.count(), func.sum(case((_is_inside(), 1), else_=0)))
        .where(Forecast.outcome.is_not(None))
        .group_by(Forecast.horizon)
    )
    if run is not None:
        query = query.where(Forecast.run_id == run.id)
    return {horizon: Score(due, inside or 0) for horizon, due, inside in session.execute(query)}


def num_waiting(session: Session, run: Run) -> int:
    """Forecasts whose time has not come."""
    query = select(func.count()).where(
        Forecast.run_id == run.id, Forecast.outcome.is_(None), Forecast.outcome_step.is_(None)
    )
    return session.scalar(query) or 0


def worst_misses(session: Session, run: Run, limit: int = 10) -> Sequence[Forecast]:
    """The forecasts that were the furthest off, in widths of their own interval."""
    off = case(
        (Forecast.outcome > Forecast.high, Forecast.outcome - Forecast.high), else_=Forecast.low - Forecast.outcome
    )
    width = Forecast.high - Forecast.low
    query = (
        select(Forecast)
        .where(Forecast.run_id == run.id, Forecast.outcome.is_not(None), ~_is_inside())
        .order_by((off / func.nullif(width, 0)).desc().nulls_first(), Forecast.id)
    )
    return session.scalars(query.limit(limit)).all()


def made_between(session: Session, run: Run, windows: Sequence[tuple[float, float]]) -> Sequence[Forecast]:
    """The forecasts of a run that were made within these spans of tokens, in the order in which they were made."""
    within = or_(*(Forecast.made_tokens.between(low, high) for low, high in windows))
    query = select(Forecast).where(Forecast.run_id == run.id, within)
    return session.scalars(query.order_by(Forecast.made_tokens, Forecast.id)).all()


def newest(session: Session, run: Run, limit: int) -> Sequence[Forecast]:
    """The forecasts of a run, those made last first."""
    query = select(Forecast).where(Forecast.run_id == run.id)
    return session.scalars(query.order_by(Forecast.made_tokens.desc(), Forecast.id.desc()).limit(limit)).all()


def _is_inside() -> ColumnElement[bool]:
    return (Forecast.outcome >= Forecast.low) & (Forecast.outcome <= Forecast.high)
