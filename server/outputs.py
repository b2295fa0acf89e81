"""What the JSON API answers with, version 1."""

import datetime as dt
import math
from collections.abc import Sequence
from typing import Any

import orjson
from pydantic import BaseModel, ConfigDict
from sqlalchemy.orm import Session

from registry import shelf
from registry.comparisons import Comparison, Outcome, is_alike
from registry.curves import Series
from registry.lineage import Graph
from registry.models import Checkpoint, Evaluation, Run
from registry.protocol import differing
from server.items import Answered
from server.protocols import Protocol


class ErrorOut(BaseModel):
    """What went wrong, in a sentence; where a name was unknown, with the names that exist."""

    status: int
    detail: str


class _FromRow(BaseModel):
    model_config = ConfigDict(from_attributes=True)


class RunOut(_FromRow):
    """A training run, or the home of uploaded checkpoints."""

    name: str
    kind: str
    status: str
    num_parameters: int | None
    tokens_per_step: int | None
    max_steps: int | None
    git_revision: str
    created_at: dt.datetime
    heartbeat_at: dt.datetime


class RunDetailOut(RunOut):
    """A run with its configuration and the names that the other addresses take."""

    config: dict[str, object]
    tasks: list[str]
    metrics: list[str]


class CheckpointOut(_FromRow):
    """A checkpoint; `fingerprint` has the log-probabilities of 64 fixed strings in nats, by engine and number format.

    `warnings` tell what looks wrong although it loads: `same_weights` as another step, behaving as the
    `twin` of another step, another `tokenizer`.
    """

    id: int
    run: str
    step: int
    kind: str
    precision: int
    state: str
    reason: str
    tokens_seen: int | None
    flops: float | None
    num_parameters: int | None
    size_bytes: int
    digest: str
    is_milestone: bool
    warnings: list[dict[str, Any]]
    fingerprint: dict[str, Any]
    created_at: dt.datetime

    @classmethod
    def of(cls, checkpoint: Checkpoint) -> "CheckpointOut":
        """As the API shows it; needs the run loaded."""
        names = set(cls.model_fields) - {"run"}
        return cls(run=checkpoint.run.name, **{name: getattr(checkpoint, name) for name in names})

    @classmethod
    def list_of(cls, session: Session, run: Run, states: Sequence[str]) -> bytes:
        """The checkpoints of a run in JSON, without an object for each: a run has thousands."""
        names = [name for name in cls.model_fields if name != "run"]
        found = shelf.columns(session, run, states, names)
        for row in found:
            row["run"] = run.name
            for name in ("warnings", "fingerprint"):
                row[name] = orjson.Fragment(row[name])  # it is JSON already
        return orjson.dumps(found, option=orjson.OPT_UTC_Z)


class PointOut(_FromRow):
    """One checkpoint's score with its 95% interval; `x` in the unit of the asked axis.

    Points of one `protocol_key` are one line; `verdict` is against the point before on that line:
    `gain`, `loss` or `within noise`, empty for the first. The headline metric alone has verdicts.
    """

    x: float
    step: int
    tokens_seen: int | None
    value: float
    stderr: float | None
    low: float | None
    high: float | None
    n: int
    checkpoint_id: int
    evaluation_id: int
    protocol_key: str
    is_imported: bool
    verdict: str


class SeriesOut(BaseModel):
    """A growth curve; `protocols` by the keys of its points, the one used last at the end."""

    run: str
    task: str
    version: str
    title: str
    ability: str
    suite: str
    metric: str
    higher_is_better: bool | None
    chance: float | None
    x: str
    points: list[PointOut]
    protocols: dict[str, dict[str, Any]]

    @classmethod
    def of(cls, series: Series, protocols: dict[str, Protocol]) -> "SeriesOut":
        """As the API shows it."""
        task, headline = series.task, series.metric == series.task.metric
        return cls(
            run=series.run,
            task=task.name,
            version=task.version,
            title=task.title,
            ability=task.ability,
            suite=task.suite.name,
            metric=series.metric,
            higher_is_better=task.higher_is_better if headline else None,
            chance=task.chance if headline else None,
            x=series.x,
            points=[PointOut.model_validate(point) for point in series.points],
            protocols={line[0].protocol_key: dict(protocols[line[0].protocol_key]) for line in series.lines},
        )


class MetricPointOut(_FromRow):
    """One logged scalar."""

    step: int
    tokens_seen: int
    value: float
    created_at: dt.datetime


class MetricOut(BaseModel):
    """A scalar of a run's training."""

    run: str
    key: str
    points: list[MetricPointOut]


class ResultOut(_FromRow):
    """A number of an evaluation."""

    metric: str
    value: float
    stderr: float | None
    low: float | None
    high: float | None
    n: int


class ChangeOut(_FromRow):
    """An evaluation minus the one of the checkpoint before, on the headline metric.

    `is_paired`: compared item by item; else by the two results alone, without an interval.
    """

    against_id: int
    value: float
    stderr: float | None
    low: float | None
    high: float | None
    p_value: float | None
    n: int
    is_paired: bool
    verdict: str


class SliceOut(_FromRow):
    """A stretch of items, from `start` to before `stop`, and the file of its answers."""

    start: int
    stop: int
    file: str
    engine_seconds: float


class EvaluationOut(BaseModel):
    """One checkpoint on one task under one protocol.

    `error` says why it failed or was cancelled, `log` what the engine said last; `num_truncated` items
    were longer than the model's context.
    """

    id: int
    checkpoint_id: int
    run: str
    step: int
    task: str
    version: str
    metric: str
    status: str
    error: str
    log: str
    num_items: int | None
    num_done: int
    num_truncated: int
    engine_seconds: float | None
    protocol: dict[str, Any]
    protocol_key: str | None
    created_at: dt.datetime
    finished_at: dt.datetime | None
    results: list[ResultOut]
    change: ChangeOut | None
    slices: list[SliceOut]

    @classmethod
    def of(cls, evaluation: Evaluation, checkpoint: Checkpoint) -> "EvaluationOut":
        """As the API shows it; needs what `registry.evaluations.for_checkpoint` loads."""
        task = evaluation.task
        of_task = {"task": task.name, "version": task.version, "metric": task.metric}
        lists = {
            "results": [ResultOut.model_validate(result) for result in evaluation.results],
            "change": ChangeOut.model_validate(evaluation.change) if evaluation.change else None,
            "slices": [SliceOut.model_validate(part) for part in evaluation.slices],
        }
        names = set(cls.model_fields) - {"run", "step", *of_task, *lists}
        plain = {name: getattr(evaluation, name) for name in names}
        return cls(run=checkpoint.run.name, step=checkpoint.step, **of_task, **lists, **plain)


class SampleOut(BaseModel):
    """One item with its answer; a list has one entry a choice, and `sum_logprob` null where it is minus infinity."""

    item: str
    position: int
    group: str
    prompt: str
    choices: list[str]
    target: int | None
    answer: str
    sum_logprob: list[float | None]
    num_tokens: list[int]
    num_bytes: list[int]
    is_greedy: list[bool]
    score: float | None
    text: str | None
    finish_reason: str | None
    is_right: bool | None

    @classmethod
    def of(cls, one: Answered) -> "SampleOut":
        """As the API shows it."""
        item = one.item
        own = one.sample._asdict() | {
            "sum_logprob": [value if math.isfinite(value) else None for value in one.sample.sum_logprob]
        }
        return cls(
            group=item.group if item else "",
            prompt=item.prompt if item else "",
            choices=item.choices if item else [],
            answer=item.answer if item else "",
            is_right=one.is_right,
            **own,
        )


class SamplesOut(BaseModel):
    """A stretch of the items of an evaluation, and how many there are."""

    evaluation_id: int
    task: str
    num_items: int
    offset: int
    samples: list[SampleOut]


def _finite(value: float | None) -> float | None:
    """JSON has no infinity."""
    return value if value is not None and math.isfinite(value) else None


class OutcomeOut(BaseModel):
    """One task of two checkpoints: `value` is B minus A on the headline metric, with its 95% interval.

    `is_paired` where both answered the same `n` items and were compared one by one, else by the two scores
    alone. `p_value` is of this task alone, `corrected_p` and `verdict` are corrected over all tasks of the
    comparison (Benjamini-Hochberg). `learned` and `forgotten` count items that only B, and only A, has right.
    """

    task: str
    version: str
    ability: str
    metric: str
    higher_is_better: bool
    a_evaluation_id: int
    b_evaluation_id: int
    value: float
    low: float | None
    high: float | None
    p_value: float | None
    corrected_p: float | None
    verdict: str
    n: int
    is_paired: bool
    is_measured_alike: bool
    learned: int | None
    forgotten: int | None

    @classmethod
    def of(cls, outcome: Outcome) -> "OutcomeOut":
        """As the API shows it."""
        (before, after), found = outcome.pair, outcome.found
        return cls(
            task=after.task.name,
            version=after.task.version,
            ability=after.task.ability,
            metric=after.task.metric,
            higher_is_better=after.task.higher_is_better,
            a_evaluation_id=before.id,
            b_evaluation_id=after.id,
            value=found.value,
            low=_finite(found.low),
            high=_finite(found.high),
            p_value=found.p_value,
            corrected_p=outcome.corrected_p,
            verdict=outcome.verdict,
            n=found.n,
            is_paired=found.is_paired,
            is_measured_alike=is_alike(outcome.pair),
            learned=outcome.learned,
            forgotten=outcome.forgotten,
        )


class ApartOut(BaseModel):
    """A task that was measured in two ways, and the fields of the protocol that differ."""

    task: str
    a_evaluation_id: int
    b_evaluation_id: int
    differs: list[str]


class ComparisonOut(BaseModel):
    """Two checkpoints over all tasks; `alone` names the tasks that only one of them has a score of."""

    a: CheckpointOut
    b: CheckpointOut
    tasks: list[OutcomeOut]
    apart: list[ApartOut]
    alone: list[str]

    @classmethod
    def of(cls, before: Checkpoint, after: Checkpoint, found: Comparison) -> "ComparisonOut":
        """As the API shows it."""
        return cls(
            a=CheckpointOut.of(before),
            b=CheckpointOut.of(after),
            tasks=[OutcomeOut.of(outcome) for outcome in found.outcomes],
            apart=[
                ApartOut(
                    task=pair.after.task.name,
                    a_evaluation_id=pair.before.id,
                    b_evaluation_id=pair.after.id,
                    differs=differing(pair.before.protocol, pair.after.protocol),
                )
                for pair in found.apart
            ],
            alone=[evaluation.task.name for evaluation in found.alone],
        )


class LineageNodeOut(BaseModel):
    """A run, or a checkpoint of one."""

    key: str
    kind: str
    """`run` or `checkpoint`."""
    label: str
    run: str
    checkpoint_id: int | None
    step: int | None
    state: str | None


class LineageEdgeOut(BaseModel):
    """`role` is `training`, `branch`, `rewind`, `fine-tune`, `average` or `quantization`."""

    source: str
    target: str
    role: str
    step: int | None
    """Where a run went on from another: the step."""


class LineageOut(BaseModel):
    """A lineage graph; derived checkpoints beyond the newest ones are counted in `num_left_out`."""

    nodes: list[LineageNodeOut]
    edges: list[LineageEdgeOut]
    num_left_out: int

    @classmethod
    def of(cls, graph: Graph) -> "LineageOut":
        """From the registry's graph."""
        nodes = [
            LineageNodeOut(
                key=node.key,
                kind="run" if node.checkpoint is None else "checkpoint",
                label=node.label,
                run=node.run.name,
                checkpoint_id=node.checkpoint.id if node.checkpoint else None,
                step=node.checkpoint.step if node.checkpoint else None,
                state=node.checkpoint.state if node.checkpoint else None,
            )
            for node in graph.nodes
        ]
        edges = [LineageEdgeOut(**edge._asdict()) for edge in graph.edges]
        return cls(nodes=nodes, edges=edges, num_left_out=graph.num_left_out)
