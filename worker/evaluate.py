"""A slice of an evaluation: the next items of a task asked of a checkpoint, into one immutable sample file."""

import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import structlog
from sqlalchemy.orm import Session

from registry import checkpoints, db, evaluations, samples, suites
from registry.evaluations import NewSlice, Score
from registry.models import Evaluation
from registry.protocol import SCORING_REVISION, protocol_key
from registry.samples import Sample
from registry.settings import get_settings
from worker import fingerprint, results
from worker.engine.protocol import Engine
from worker.scoring import Answer, EngineLM, Stopped
from worker.tasks import SUITES, PreparedTask, TaskError, load_task, prepare_task

__all__ = [
    "Outcome",
    "Stopped",
    "TaskError",
    "ask",
    "load_task",
    "record",
    "remove_orphans",
    "run_evaluation",
    "run_slice",
]

FIRST_SLICE = 64
"""Items of a task's first slice in a process; the next ones go by how long this one took."""

log = structlog.get_logger(__name__)
_items_per_second: dict[str, float] = {}


@dataclass(frozen=True)
class Outcome:
    """A slice that was answered, ready to be recorded; with `results` it was the last one."""

    part: NewSlice
    num_items: int
    protocol: dict[str, Any]
    items_file: str
    task_id: int
    output_type: str
    results: list[Score] | None = None

    @property
    def is_last(self) -> bool:
        """Whether the evaluation is complete with it."""
        return self.results is not None


@dataclass(frozen=True)
class _Job:
    """What a slice needs to know of its evaluation, read from the database once."""

    evaluation_id: int
    checkpoint_id: int
    folder: Path
    task_id: int
    task: str
    task_version: str
    metric: str
    start: int
    earlier: list[Path]
    protocol_key: str


def run_slice(engine: Engine, evaluation_id: int, should_stop: Callable[[], bool] = lambda: False) -> Outcome:
    """Answer the next items of a planned evaluation and write their file; the caller records it with its ticket.

    Raises:
        Stopped: `should_stop` said so; nothing was recorded.
        TaskError: the task cannot be asked.
        EngineError: the engine or the checkpoint cannot do it.
    """
    with db.read_session() as session:
        job = _job(session, evaluations.get_evaluation(session, evaluation_id))
    checkpoints.ensure_local(job.folder)
    prepared = prepare_task(job.task)
    _check_version(prepared, job)
    part_of_engine = engine.part(prepared.output_type, job.folder)
    part_of_engine.use(job.folder)
    fingerprint.prove(part_of_engine, job.folder, job.checkpoint_id)
    model = EngineLM(part_of_engine, job.folder, should_stop)
    protocol = _protocol(model, prepared)
    if job.start and protocol_key(protocol) != job.protocol_key:
        job = _begin_again(job)
    stop = min(len(prepared.items), job.start + _slice_size(prepared, job))
    began = time.perf_counter()
    answered = ask(model, prepared, job.start, stop, job.metric)
    _learn_pace(prepared, stop - job.start, time.perf_counter() - began)
    return _written(job, prepared, model, answered, protocol)


def _job(session: Session, evaluation: Evaluation) -> _Job:
    checkpoints.check_tokenizer(session, evaluation.checkpoint)
    return _Job(
        evaluation_id=evaluation.id,
        checkpoint_id=evaluation.checkpoint_id,
        folder=checkpoints.path(evaluation.checkpoint),
        task_id=evaluation.task_id,
        task=evaluation.task.name,
        task_version=evaluation.task.version,
        metric=evaluation.task.metric,
        start=evaluation.num_done,
        earlier=evaluations.sample_paths(evaluation),
        protocol_key=protocol_key(evaluation.protocol),
    )


def _begin_again(job: _Job) -> _Job:
    """Half of the answers under one protocol and half under another would be on no line."""
    log.warning(
        "The protocol changed between two slices; the evaluation begins again.", evaluation_id=job.evaluation_id
    )
    with db.transaction() as session:
        evaluations.begin_again(session, job.evaluation_id)
    return replace(job, start=0, earlier=[])


def _written(
    job: _Job, prepared: PreparedTask, model: EngineLM, answered: Sequence[Sample], protocol: dict[str, Any]
) -> Outcome:
    root = get_settings().samples_dir
    folder = root / str(job.checkpoint_id) / str(job.evaluation_id)
    path = samples.write_slice(folder, job.start, answered)
    items = samples.write_items(root / "items", prepared.name, prepared.items)
    stop = job.start + len(answered)
    last = stop == len(prepared.items)
    # Derived from what the files hold, not from memory: a number can then always be derived again.
    derived = results.derive(prepared, samples.read([*job.earlier, path])) if last else None
    if derived is not None and job.metric and job.metric not in [score.metric for score in derived]:
        names = ", ".join(score.metric for score in derived) or "none"
        raise TaskError(
            f"Task '{job.task}' gives no metric '{job.metric}', which its curve would show. It has: {names}."
        )
    return Outcome(
        part=NewSlice(job.start, stop, _relative(path), model.engine_seconds, len(model.truncated)),
        num_items=len(prepared.items),
        protocol=protocol,
        items_file=_relative(items),
        task_id=job.task_id,
        output_type=prepared.output_type,
        results=derived,
    )


def record(session: Session, evaluation_id: int, outcome: Outcome) -> None:
    """Put an outcome into the registry, in the transaction that also reports the ticket."""
    evaluations.start(session, evaluation_id, outcome.num_items, outcome.protocol)
    evaluations.add_slice(session, evaluation_id, outcome.part)
    if outcome.results is not None:
        evaluations.finish(
            session,
            evaluation_id,
            results=outcome.results,
            protocol=outcome.protocol,
            items_file=outcome.items_file,
        )
        if outcome.results:
            # The first metric that a library task names is the one its authors report.
            suites.describe(session, outcome.task_id, output_type=outcome.output_type, metric=outcome.results[0].metric)


def remove_orphans(evaluation_id: int) -> None:
    """Remove what workers wrote, or began to, and did not live to record; only of an evaluation that has ended."""
    with db.read_session() as session:
        evaluation = evaluations.get_evaluation(session, evaluation_id)
    folder = get_settings().samples_dir / str(evaluation.checkpoint_id) / str(evaluation_id)
    if not folder.is_dir():
        return  # no slice was ever written
    for path in set(folder.iterdir()) - set(evaluations.sample_paths(evaluation)):
        path.unlink(missing_ok=True)


@dataclass(frozen=True)
class Whole:
    """An evaluation that was run outside the line: for measurements and tests."""

    results: list[Score]
    protocol: dict[str, Any]
    samples: list[Sample]
    engine_seconds: float
    num_truncated: int


def run_evaluation(
    engine: Engine, folder: Path, task_name: str, *, metric: str = "", should_stop: Callable[[], bool] = lambda: False
) -> Whole:
    """Ask all items of a task of the checkpoint in `folder`; nothing is written."""
    prepared = prepare_task(task_name)
    part = engine.part(prepared.output_type, folder)
    part.use(folder)
    model = EngineLM(part, folder, should_stop)
    answered = ask(model, prepared, 0, len(prepared.items), metric)
    derived = results.derive(prepared, answered)
    return Whole(derived, _protocol(model, prepared), answered, model.engine_seconds, len(model.truncated))


def ask(model: EngineLM, prepared: PreparedTask, start: int, stop: int, metric: str = "") -> list[Sample]:
    """The answers to the items from `start` to before `stop`; `metric` is the one whose score is kept by item."""
    requests = [request for instances in prepared.requests[start:stop] for request in instances]
    getattr(model, "loglikelihood" if prepared.output_type == "multiple_choice" else prepared.output_type)(requests)
    answered = [_sample(prepared, position, model.answers) for position in range(start, stop)]
    return [sample._replace(score=results.headline(prepared, sample, metric)) for sample in answered]


def _sample(prepared: PreparedTask, position: int, answers: dict[tuple[int, int], Answer]) -> Sample:
    """One item with what the engine said, as the columns of the sample file."""
    item = prepared.items[position]
    given = [answers[position, int(request.idx)] for request in prepared.requests[position]]
    if prepared.output_type == "generate_until":
        text = given[0].text or ""
        sizes = [len(text.encode(errors="replace"))]
        tokens = [given[0].num_tokens]
        return Sample(item.item, position, None, [], tokens, sizes, [], None, text, given[0].finish_reason)
    return Sample(
        item=item.item,
        position=position,
        target=item.target,
        sum_logprob=[answer.sum_logprob for answer in given],
        num_tokens=[answer.num_tokens for answer in given],
        num_bytes=[len(text.encode(errors="replace")) for text in item.choices],
        is_greedy=[answer.is_greedy for answer in given],
    )


def _slice_size(prepared: PreparedTask, job: _Job) -> int:
    """Items that take about `Settings.slice_seconds`; a small rest goes along."""
    pace = _items_per_second.get(prepared.name)
    size = FIRST_SLICE if pace is None else max(8, int(pace * get_settings().slice_seconds))
    rest = len(prepared.items) - job.start
    return rest if rest <= 1.5 * size else size


def _learn_pace(prepared: PreparedTask, num_items: int, seconds: float) -> None:
    pace = num_items / max(seconds, 1e-3)
    known = _items_per_second.get(prepared.name, pace)
    _items_per_second[prepared.name] = 0.5 * (known + pace)


def _check_version(prepared: PreparedTask, job: _Job) -> None:
    found = str(prepared.task.VERSION)
    # A task of the library has the version that is installed; ours are planned at one.
    if job.task_version not in ("", found):
        raise TaskError(f"Task '{job.task}' was planned at version {job.task_version}; suites/ now has {found}.")


def _protocol(model: EngineLM, prepared: PreparedTask) -> dict[str, Any]:
    """All that the numbers depend on beside the weights; `registry.protocol` says what makes another line."""
    engine = model.engine
    return {
        "engine": engine.name,
        "engine_version": engine.version,
        "dtype": engine.dtype,
        "lm_eval": version("lm_eval"),
        "task_version": str(prepared.task.VERSION),
        "template": prepared.template_digest,
        "num_fewshot": _num_fewshot(prepared),
        "items": prepared.items_digest,
        "tokenizer": model.digest[:16],
        "context_length": model.max_length,
        "begin_token": True,
        "chat_template": False,
        "scoring_revision": SCORING_REVISION,
        "revision": _revision(),
    }


def _num_fewshot(prepared: PreparedTask) -> int:
    """Examples before each question; a reader that puts them there itself says so in the metadata."""
    stated = (prepared.task.get_config("metadata") or {}).get("num_fewshot")
    return int(stated or prepared.task.get_config("num_fewshot") or 0)


def _relative(path: Path) -> str:
    return path.relative_to(get_settings().samples_dir).as_posix()


@lru_cache
def _revision() -> str:
    """Git revision of the code, where it is a checkout and git is there."""
    try:
        command = ["git", "-C", str(SUITES.parent), "describe", "--always", "--dirty"]
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return ""
