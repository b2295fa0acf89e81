"""From stored answers to an evaluation's results: no engine is needed, so they can be derived again at any time."""

import copy
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from lm_eval.api.instance import Instance

from analysis import metrics
from analysis.intervals import Estimate, mean_interval, proportion_interval
from analysis.metrics import Answers
from registry.evaluations import Score
from registry.samples import Item, Sample
from worker.tasks import PreparedTask, TaskError

KINDS: Mapping[str, metrics.Kind] = {
    "multiple_choice": "choice",
    "loglikelihood": "continuation",
    "loglikelihood_rolling": "text",
}
"""lm-eval's output types in the words of `analysis.metrics`."""


def derive(prepared: PreparedTask, samples: Sequence[Sample]) -> list[Score]:
    """Every metric of a whole evaluation with its 95% interval, clustered where the task names groups.

    Raises:
        TaskError: the task's own scoring code fails, or no metric can be worked out.
    """
    if prepared.has_own_scoring:
        return _own(prepared, samples)
    return derive_stored(prepared.output_type, prepared.items, samples)


def derive_stored(output_type: str, items: Sequence[Item], samples: Sequence[Sample]) -> list[Score]:
    """The same from files alone, for tasks without code of their own: neither engine nor task is needed.

    Raises:
        TaskError: no metric can be worked out.
    """
    groups = _groups(items)
    found = answers(items, samples)
    scores, refusals = [], []
    for name in metrics.METRICS[KINDS[output_type]]:
        # An item with an empty choice has no accuracy by bytes, but all the other metrics.
        try:
            scores.append(_score(name, metrics.estimate(name, found, groups)))
        except ValueError as error:
            refusals.append(f"{name}: {error}")
    if not scores:
        raise TaskError(f"No metric can be worked out: {refusals[0]}")
    return [*scores, _perplexity(samples, groups)] if output_type == "loglikelihood" else scores


def answers(items: Sequence[Item], samples: Sequence[Sample]) -> Answers:
    """The samples as flat arrays."""
    sizes = [len(sample.sum_logprob) for sample in samples]
    return Answers(
        offsets=np.concatenate(([0], np.cumsum(sizes, dtype=np.int64))),
        sum_logprob=_flat([sample.sum_logprob for sample in samples], np.float64),
        num_tokens=_flat([sample.num_tokens for sample in samples], np.int32),
        num_bytes=_flat([sample.num_bytes for sample in samples], np.int32),
        num_chars=_flat([[len(text) for text in items[sample.position].choices] for sample in samples], np.int32),
        is_greedy=_flat([sample.is_greedy for sample in samples], np.bool_),
        target=np.asarray([-1 if sample.target is None else sample.target for sample in samples], dtype=np.int32),
    )


def item_metrics(prepared: PreparedTask, sample: Sample) -> Mapping[str, Any]:
    """What the task's own code says about one answer, with a name for each metric and filter.

    Raises:
        TaskError: that code fails.
    """
    responses = _responses(prepared, sample)
    doc = prepared.docs[sample.position]
    found: dict[str, Any] = {}
    try:
        for number, (name, values) in enumerate(responses.items()):
            given = prepared.task.process_results(doc, values)
            # The first filter is the one that the headline metric means; others keep lm-eval's suffix.
            found |= {metric if number == 0 else f"{metric},{name}": value for metric, value in given.items()}
    except Exception as error:  # a task is somebody's code: it may raise anything
        kind, first = type(error).__name__, str(error).partition("\n")[0][:300]
        raise TaskError(f"Task '{prepared.name}' cannot score item {sample.position} ({kind}): {first}") from error
    return {name: value for name, value in found.items() if name != "bypass"}


def headline(prepared: PreparedTask, sample: Sample, metric: str) -> float | None:
    """The score of one item that cannot be derived from the columns; None where it can, or there is none."""
    if prepared.has_own_scoring and metric:
        value = item_metrics(prepared, sample).get(metric)
        return None if value is None or not _is_number(value) else float(value)
    if prepared.output_type == "loglikelihood" and metric == "acc":
        return float(sample.is_greedy[0])
    return None


def _responses(prepared: PreparedTask, sample: Sample) -> dict[str, list[Any]]:
    """What lm-eval's `process_results` is given: by filter, the texts, or the log-probabilities."""
    if prepared.output_type != "generate_until":
        pairs = list(zip(sample.sum_logprob, sample.is_greedy, strict=True))
        return {"none": [pair[0] for pair in pairs] if prepared.output_type.endswith("rolling") else list(pairs)}
    instances = [copy.copy(instance) for instance in prepared.requests[sample.position]]
    for instance in instances:
        instance.resps, instance.filtered_resps = [sample.text or ""], {}
    filters = prepared.task._filters or []
    for chain in filters:
        chain.apply(instances)
    return _filtered(instances) or {"none": [sample.text or ""]}


def _filtered(instances: Sequence[Instance]) -> dict[str, list[Any]]:
    names = instances[0].filtered_resps if instances else {}
    return {name: [instance.filtered_resps[name] for instance in instances] for name in names}


def _groups(items: Sequence[Item]) -> list[str] | None:
    """What clusters the items; None where nothing does."""
    groups = [item.group for item in items]
    return groups if any(groups) else None


def _own(prepared: PreparedTask, samples: Sequence[Sample]) -> list[Score]:
    by_item = [item_metrics(prepared, sample) for sample in samples]
    names = list(dict.fromkeys(name for given in by_item for name in given))
    return [_aggregated(prepared, name, [given.get(name) for given in by_item]) for name in names]


def _aggregated(prepared: PreparedTask, name: str, given: list[Any]) -> Score:
    kept = [(value, item.group) for value, item in zip(given, prepared.items, strict=True) if value is not None]
    values, groups = [value for value, _ in kept], [group for _, group in kept]
    if all(map(_is_number, values)):
        return _score(name, _averaged([float(value) for value in values], groups if any(groups) else None))
    # Pairs of gold and guess, for F1 and its like: lm-eval sums them up, without an interval.
    total = prepared.task.aggregation()[name.partition(",")[0]](values)
    return Score(name, float(total), None, None, None, len(values))


def _averaged(values: list[float], groups: list[str] | None) -> Estimate:
    is_share = set(values) <= {0.0, 1.0}
    return proportion_interval(values, groups) if is_share else mean_interval(values, groups)


def _perplexity(samples: Sequence[Sample], groups: list[str] | None) -> Score:
    """exp of the mean negative log-probability, as lm-eval; the interval is the mean's, transformed."""
    mean = mean_interval([-sample.sum_logprob[0] for sample in samples], groups)
    low, value, high = (math.exp(min(bound, 700.0)) for bound in (mean.low, mean.value, mean.high))
    return Score("perplexity", value, _finite(value * mean.stderr), low, high, mean.n)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float | np.number) and math.isfinite(value)


def _flat(lists: Sequence[Sequence[Any]], dtype: Any) -> Any:
    return np.asarray([value for values in lists for value in values], dtype=dtype)


def _score(metric: str, estimate: Estimate) -> Score:
    stderr, low, high = map(_finite, (estimate.stderr, estimate.low, estimate.high))
    return Score(metric, estimate.value, stderr, low, high, estimate.n)


def _finite(value: float) -> float | None:
    """A single item says nothing about the spread: its infinite interval is stored as none."""
    return value if math.isfinite(value) else None
