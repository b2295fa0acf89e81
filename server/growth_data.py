"""Growth curves as the growth page's JSON: columns of numbers, and the few words that only the server knows."""

import csv
import io
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from registry import growth, suites
from registry.growth import Curve, Line, Pin, View
from registry.models import Run, Task
from server import protocols
from server.figures import is_share, metric_name, task_title
from server.i18n import gettext

CSV_HEAD = (
    "run",
    "kind",
    "precision",
    "task",
    "metric",
    "step",
    "tokens",
    "x_axis",
    "x",
    "value",
    "low_95",
    "high_95",
    "n",
    "verdict",
    "protocol",
    "evaluation",
)


def payload(
    run: Run, view: View, curves: Sequence[Curve], pins: Iterable[Pin], warned: Iterable[int]
) -> dict[str, Any]:
    """A view as JSON; arrays stay numpy for orjson, which writes NaN as null."""
    return {
        "run": run.name,
        "x": view.x,
        "kind": view.kind,
        "precision": view.precision,
        "series": [_series(curve) for curve in curves],
        "posts": [_pin(pin) for pin in pins],
        "warned_steps": list(warned),
    }


def _series(curve: Curve) -> dict[str, Any]:
    task, metric = curve.task, curve.metric
    latest = curve.lines[-1].protocol if curve.lines else {}
    return {
        "task": task.name,
        "title": task_title(task),
        "ability": task.ability,
        "metric": metric,
        "metric_name": metric_name(metric),
        "percent": is_share(metric),
        "higher_is_better": higher_is_better(task, metric),
        "chance": chance_of(task, metric),
        "lines": [_line(line, latest) for line in curve.lines],
        "failures": [failure._asdict() for failure in curve.failures],
    }


def _line(line: Line, latest: protocols.Protocol) -> dict[str, Any]:
    told = protocols.difference_text(line.protocol, latest)
    is_latest = line.protocol is latest
    return {
        "protocol": protocols.summary(line.protocol),
        "differs": "" if is_latest else told or gettext("another protocol"),
        "imported": bool(line.protocol.get("imported")),
        "x": line.x,
        "step": line.step,
        "tokens": line.tokens,
        "value": line.value,
        "low": line.low,
        "high": line.high,
        "n": line.n,
        "verdict": line.verdict,
        "evaluation": line.evaluation,
    }


def _pin(pin: Pin) -> dict[str, Any]:
    post = pin.post
    return {"id": post.id, "title": post.title, "kind": post.kind, "step": post.step, "x": pin.x}


def higher_is_better(task: Task, metric: str) -> bool:
    """For the headline metric as the task says."""
    return task.higher_is_better if metric == task.metric else metric not in suites.LOWER_IS_BETTER


def chance_of(task: Task, metric: str) -> float | None:
    """What guessing scores: that of the headline metric also for what is counted over the same choices."""
    is_alike = task.output_type == "multiple_choice" and (metric == "prob" or metric.startswith("acc"))
    return task.chance if metric == task.metric or is_alike else None


def as_csv(run: Run, view: View, curves: Iterable[Curve]) -> str:
    """One row a point, the columns of `CSV_HEAD`; a failed evaluation has no value and the verdict `failed`."""
    written = io.StringIO()
    writer = csv.writer(written)
    writer.writerow(CSV_HEAD)
    for curve in curves:
        head = (run.name, view.kind, view.precision, curve.task.name, curve.metric)
        for line in curve.lines:
            writer.writerows((*head, *row) for row in _rows(line, view.x))
        for one in curve.failures:
            writer.writerow((*head, one.step, "", view.x, one.x, "", "", "", "", "failed", "", one.evaluation_id))
    return written.getvalue()


def _rows(line: Line, x_axis: str) -> Iterable[tuple[Any, ...]]:
    numbers = (_cells(column) for column in (line.step, line.tokens))
    scores = (_cells(column) for column in (line.x, line.value, line.low, line.high, line.n))
    ends = (line.verdict, [line.protocol_key] * len(line.verdict), _cells(line.evaluation))
    for step, tokens, *rest in zip(*numbers, *scores, *ends, strict=True):
        yield (step, tokens, x_axis, *rest)


def _cells(column: growth.Floats | growth.Ints) -> list[Any]:
    return ["" if isinstance(value, float) and np.isnan(value) else value for value in column.tolist()]
