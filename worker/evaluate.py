"""One evaluation: a checkpoint on a task, through lm-eval's own evaluator, into a sample file and results."""

import hashlib
import subprocess
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import datasets
import numpy as np
from lm_eval import evaluator
from lm_eval.api.task import ConfigurableTask
from lm_eval.tasks import TaskManager
from sqlalchemy.orm import Session

from analysis.intervals import Estimate, mean_interval, ratio_interval, wilson
from registry import checkpoints, db, evaluations, samples
from registry.evaluations import Score
from registry.samples import Sample
from registry.settings import get_settings
from worker.engine.protocol import Engine, EngineError
from worker.scoring import Answer, EngineLM, Stopped

__all__ = ["Outcome", "Stopped", "load_task", "record", "run_evaluation", "run_slice"]

SUITES = Path(__file__).resolve().parent.parent / "suites"
FEWSHOT_SEED = 1234
"""lm-eval's default: the same examples as everybody's."""

_evaluating = threading.Lock()
"""lm-eval keeps the requests under way in the task object, and tasks are shared."""


@dataclass(frozen=True)
class Outcome:
    """What an evaluation found, ready to be recorded."""

    results: list[Score]
    protocol: dict[str, Any]
    num_items: int
    engine_seconds: float
    samples: list[Sample]
    samples_file: str = ""
    """Path relative to `Settings.samples_dir`; empty while nothing is written."""


def run_slice(engine: Engine, evaluation_id: int, should_stop: Callable[[], bool] = lambda: False) -> Outcome:
    """Run a planned evaluation and write its sample file; the caller records the outcome with its ticket.

    Raises:
        Stopped: `should_stop` said so; nothing was recorded.
        EngineError: the engine or the task cannot do it.
    """
    with db.read_session() as session:
        evaluation = evaluations.get_evaluation(session, evaluation_id)
        folder = checkpoints.path(evaluation.checkpoint)
        checkpoint_id, task_name, task_version = evaluation.checkpoint_id, evaluation.task.name, evaluation.task.version
    engine.use(folder)
    outcome = run_evaluation(engine, folder, task_name, should_stop=should_stop)
    if outcome.protocol["task_version"] != task_version:
        found = outcome.protocol["task_version"]
        raise EngineError(f"Task '{task_name}' was planned at version {task_version}; suites/ now has version {found}.")
    root = get_settings().samples_dir
    path = samples.write(root / str(checkpoint_id), str(evaluation_id), outcome.samples)
    return Outcome(**{**outcome.__dict__, "samples_file": path.relative_to(root).as_posix()})


def record(session: Session, evaluation_id: int, outcome: Outcome) -> None:
    """Put an outcome into the registry, in the transaction that also finishes the ticket."""
    evaluations.finish(
        session,
        evaluation_id,
        results=outcome.results,
        protocol=outcome.protocol,
        num_items=outcome.num_items,
        engine_seconds=outcome.engine_seconds,
        samples_file=outcome.samples_file,
    )


def run_evaluation(
    engine: Engine, folder: Path, task_name: str, *, should_stop: Callable[[], bool] = lambda: False
) -> Outcome:
    """Evaluate the checkpoint in `folder`, which must be resident, on a task of `suites/`."""
    task = load_task(task_name)
    model = EngineLM(engine, folder, should_stop)
    with _evaluating:
        found = evaluator.evaluate(
            model, {"tasks": {task_name: task}, "groups": {}}, bootstrap_iters=0, log_samples=True
        )
    logged = sorted(found["samples"][task_name], key=lambda entry: entry["doc_id"])
    answered = [_sample(task, entry, model.answers) for entry in logged]
    return Outcome(
        results=_results(task, logged, answered),
        protocol=_protocol(engine, model, task, answered),
        num_items=len(answered),
        engine_seconds=model.engine_seconds,
        samples=answered,
    )


@lru_cache
def _manager() -> TaskManager:
    return TaskManager(include_path=str(SUITES), include_defaults=False)


@lru_cache
def load_task(name: str) -> ConfigurableTask:
    """A task of `suites/`, built once a process: a hundred checkpoints share its items.

    Raises:
        EngineError: no such task, or the packages its items come from are not there.
    """
    if name not in _manager().all_subtasks:
        raise EngineError(f"There is no task '{name}' in suites/.")
    # Data that a task of somebody else's fetches stays with our data, not in the user's home.
    datasets.config.HF_DATASETS_CACHE = str(get_settings().home.absolute() / "datasets")
    try:
        task = _manager().load([name])["tasks"][name]
    except (FileNotFoundError, ImportError) as error:
        raise EngineError(f"The items of task '{name}' cannot be made: {error}") from error
    # what lm-eval's simple_evaluate does before it calls evaluate
    if task.get_config("num_fewshot") is None:
        task.set_config(key="num_fewshot", value=0)
    task.set_fewshot_seed(seed=FEWSHOT_SEED)
    return task


def _sample(task: ConfigurableTask, entry: Mapping[str, Any], answers: Mapping[tuple[int, int], Answer]) -> Sample:
    """One logged item with what the engine said, as the columns of the sample file."""
    number = int(entry["doc_id"])
    key = str(entry["doc_hash"])[:32]
    if task.OUTPUT_TYPE == "generate_until":
        answer = answers[number, 0]
        text = answer.text or ""
        prompt = str(entry["arguments"][0][0])
        sizes = [len(text.encode(errors="replace"))]
        return Sample(key, number, None, [], [answer.num_tokens], sizes, prompt, text, answer.finish_reason)
    is_choice = task.OUTPUT_TYPE == "multiple_choice"
    texts = task.doc_to_choice(entry["doc"]) if is_choice else [str(task.doc_to_target(entry["doc"]))]
    given = [answers[number, index] for index in range(len(texts))]
    return Sample(
        item=key,
        position=number,
        target=_target(entry["target"], texts) if is_choice else None,
        sum_logprob=[answer.sum_logprob for answer in given],
        num_tokens=[answer.num_tokens for answer in given],
        num_bytes=[len(text.encode(errors="replace")) for text in texts],
    )


def _target(target: Any, choices: Sequence[str]) -> int:
    return int(target) if isinstance(target, int) else choices.index(target)


def _results(task: ConfigurableTask, logged: Sequence[Mapping[str, Any]], answered: Sequence[Sample]) -> list[Score]:
    """The metrics that lm-eval computed for each item, averaged here with their intervals."""
    if task.OUTPUT_TYPE == "loglikelihood_rolling":
        bits = [-sample.sum_logprob[0] / np.log(2) for sample in answered]
        return [_score("bits_per_byte", ratio_interval(bits, [float(sample.num_bytes[0]) for sample in answered]))]
    names = [name for name in logged[0]["metrics"] if name != "bypass"]
    results = [_score(name, _averaged([float(entry[name]) for entry in logged])) for name in names]
    if task.OUTPUT_TYPE == "multiple_choice":
        results.append(_score("prob", mean_interval([probability(sample) for sample in answered])))
    return results


def _averaged(values: list[float]) -> Estimate:
    if set(values) <= {0.0, 1.0}:
        return wilson(int(sum(values)), len(values))
    return mean_interval(values)


def probability(sample: Sample) -> float:
    """How probable the right choice is among the choices; it moves before accuracy does."""
    logprobs = np.asarray(sample.sum_logprob, dtype=np.float64)
    weights = np.exp(logprobs - logprobs.max())
    return float(weights[sample.target] / weights.sum())


def _score(metric: str, estimate: Estimate) -> Score:
    return Score(metric, estimate.value, estimate.stderr, estimate.low, estimate.high, estimate.n)


def _protocol(engine: Engine, model: EngineLM, task: ConfigurableTask, answered: Sequence[Sample]) -> dict[str, Any]:
    """All that the numbers depend on beside the weights."""
    items = hashlib.sha256("\n".join(sample.item for sample in answered).encode()).hexdigest()[:16]
    return {
        "engine": engine.name,
        "engine_version": engine.version,
        "dtype": engine.dtype,
        "lm_eval": version("lm_eval"),
        "task_version": str(task.VERSION),
        "num_fewshot": int(task.get_config("num_fewshot") or 0),
        "items": items,
        "tokenizer": model.digest[:16],
        "context_length": model.max_length,
        "begin_token": True,
        "chat_template": False,
        "revision": _revision(),
    }


@lru_cache
def _revision() -> str:
    """Git revision of the code, where it is a checkout and git is there."""
    try:
        command = ["git", "-C", str(SUITES.parent), "describe", "--always", "--dirty"]
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return ""
