"""A generated run that has grown up: 1,000 checkpoints, each with 60 tasks of five metrics, as rows of the database.

The same at every call. The answers themselves, 20 million of them, are made and measured by `benchmarks.samples` and
`benchmarks.ledger`: no page of this benchmark reads them.
"""

import datetime as dt
import math
from collections.abc import Iterator
from itertools import count
from typing import Any, NamedTuple

import numpy as np
from sqlalchemy import insert
from sqlalchemy.orm import Session

from grow.prepare import migrate
from registry import columns, db, protocol
from registry.models import Change, Checkpoint, Evaluation, MetricPoint, Post, Result, Run, Suite, Task
from registry.models.base import FINISHED, READY, utcnow

RUN = "grown"
ABILITIES = ("chinese", "english", "code", "maths", "reasoning", "knowledge")
METRICS = ("acc", "acc_norm", "prob", "brier_score", "bits_per_byte")
NUM_ITEMS, CHANCE = 333, 0.25
STEPS_APART, TOKENS_PER_STEP, NUM_PARAMETERS = 1_000, 2**21, 1_200_000_000
LOGGED_EVERY = 100
PROTOCOL: dict[str, Any] = {
    "engine": "vllm",
    "engine_version": "0.32.0",
    "dtype": "bfloat16",
    "lm_eval": "0.4.13",
    "task_version": "1",
    "template": "6e1f0a3b5c7d9e21",
    "num_fewshot": 0,
    "items": "a1b2c3d4e5f60718",
    "tokenizer": "0f1e2d3c4b5a6978",
    "context_length": 4096,
    "begin_token": True,
    "chat_template": False,
    "scoring_revision": 1,
    "revision": "4f0c2a9",
}


class Size(NamedTuple):
    """How much there is."""

    checkpoints: int = 1_000
    tasks: int = 60


class Scores(NamedTuple):
    """Checkpoints × tasks × metrics, and how sure they are."""

    value: Any
    stderr: Any
    verdict: Any
    """Checkpoints × tasks: of the headline metric against the checkpoint before; the first row says nothing."""


def task_name(task: int) -> str:
    """The name of a task by its number."""
    return f"task_{task + 1:02d}"


def scores(size: Size) -> Scores:
    """Every task wakes up at an age of its own, and is measured on a few hundred items."""
    random = np.random.default_rng(0)
    age = np.linspace(0, 1, size.checkpoints)[:, None]
    wakes, best = random.uniform(0.05, 0.8, size.tasks), random.uniform(0.35, 0.95, size.tasks)
    ability = 1 / (1 + np.exp(-(age - wakes) * random.uniform(6, 30, size.tasks)))
    acc = CHANCE + (best - CHANCE) * ability
    noise = np.sqrt(acc * (1 - acc) / NUM_ITEMS)
    stderr = np.stack([noise, noise, noise / 2, noise / 3, noise / 2], axis=2)
    exact = np.stack([acc, acc * 0.97, acc * 0.8, 1 - acc, 2.4 - 1.5 * acc], axis=2)
    value = exact + random.normal(size=exact.shape) * stderr * 0.4  # the items are the same at each checkpoint
    change = np.diff(value[:, :, 0], axis=0) / (noise[1:] * 0.8)
    verdict = np.where(change > 2, "gain", np.where(change < -2, "loss", "within noise"))
    return Scores(value, stderr, verdict)


def fill(size: Size) -> None:
    """Make the database of the data folder in use, and fill it; takes about a minute."""
    migrate()
    with db.transaction() as session:
        run = _run(session, size)
        tasks = _tasks(session, size)
        began = utcnow() - dt.timedelta(days=60)
        session.execute(
            insert(Checkpoint.__table__), [_checkpoint(run, at, began, size) for at in range(size.checkpoints)]
        )
        session.execute(insert(MetricPoint.__table__), list(_metric_points(run, size, began)))
        session.add_all(
            Post(run_id=run.id, step=step, title=f"At step {step}", body="It has grown.", kind="incident")
            for step in range(20_000, size.checkpoints * STEPS_APART, 97_000)
        )
        found = scores(size)
        for at in range(size.checkpoints):
            _evaluate(session, found, at, tasks, size)


def _run(session: Session, size: Size) -> Run:
    run = Run(
        name=RUN,
        config={"model": {"hidden_size": 2048, "num_hidden_layers": 24}},
        git_revision="4f0c2a91d6be",
        num_parameters=NUM_PARAMETERS,
        tokens_per_step=TOKENS_PER_STEP,
        max_steps=size.checkpoints * STEPS_APART,
        created_at=utcnow() - dt.timedelta(days=60),
    )
    session.add(run)
    session.flush()
    return run


def _tasks(session: Session, size: Size) -> list[int]:
    suites = {ability: Suite(name=ability) for ability in ABILITIES}
    session.add_all(suites.values())
    session.flush()
    tasks = [
        Task(
            suite_id=suites[ABILITIES[at % len(ABILITIES)]].id,
            name=task_name(at),
            title=f"Generated task {at + 1}",
            title_zh=f"生成的题目 {at + 1}",
            ability=ABILITIES[at % len(ABILITIES)],
            output_type="multiple_choice",
            metric=METRICS[0],
            chance=CHANCE,
            position=at,
        )
        for at in range(size.tasks)
    ]
    session.add_all(tasks)
    session.flush()
    return [task.id for task in tasks]


def _checkpoint(run: Run, at: int, began: dt.datetime, size: Size) -> dict[str, Any]:
    step = (at + 1) * STEPS_APART
    digest = f"{step:064x}"
    files = {"model.safetensors": {"size": 2 * NUM_PARAMETERS, "sha256": digest}}
    tokens = step * TOKENS_PER_STEP
    return {
        "id": at + 1,
        "run_id": run.id,
        "step": step,
        "tokens_seen": tokens,
        "flops": 6.0 * NUM_PARAMETERS * tokens,
        "folder": f"{RUN}/step-{step}",
        "digest": digest,
        "manifest": {"files": files, "facts": {}},
        "size_bytes": 2 * NUM_PARAMETERS,
        "num_parameters": NUM_PARAMETERS,
        "state": READY,
        "weights_digest": digest,
        "created_at": began + dt.timedelta(days=60) * (at + 1) / size.checkpoints,
    }


def _metric_points(run: Run, size: Size, began: dt.datetime) -> Iterator[dict[str, Any]]:
    random = np.random.default_rng(1)
    last = size.checkpoints * STEPS_APART
    for step in range(LOGGED_EVERY, last + 1, LOGGED_EVERY):
        loss = 1.7 + 6 * math.exp(-step / 9_000) + math.exp(-step / 200_000)
        values = {"train/loss": loss + random.normal() * 0.03, "train/learning_rate": 3e-4 * (1 - step / last)}
        if step % STEPS_APART == 0:
            values |= {f"heldout/loss_{name}": loss * scale for name, scale in (("zh", 0.9), ("en", 1.1))}
        at = {"run_id": run.id, "step": step, "tokens_seen": step * TOKENS_PER_STEP, "created_at": began}
        yield from (at | {"key": key, "value": value} for key, value in values.items())


def _evaluate(session: Session, found: Scores, at: int, tasks: list[int], size: Size) -> None:
    """A checkpoint's rows, written after those of the checkpoint before, as on a real site."""
    ids = range(at * size.tasks + 1, (at + 1) * size.tasks + 1)
    now = utcnow()
    evaluations, results, changes = [], [], []
    numbers = count(at * size.tasks * len(METRICS) + 1)
    for place, (evaluation, task) in enumerate(zip(ids, tasks, strict=True)):
        own = PROTOCOL | {"items": f"{task:016x}"}
        evaluations.append(
            {"id": evaluation, "checkpoint_id": at + 1, "task_id": task, "status": FINISHED, "protocol": own}
            | {
                "protocol_key": protocol.protocol_key(own),
                "num_items": NUM_ITEMS,
                "num_done": NUM_ITEMS,
                "engine_seconds": 4.2,
            }
            | {"is_compared": True, "created_at": now, "finished_at": now}
        )
        for metric, value, stderr in zip(METRICS, found.value[at, place], found.stderr[at, place], strict=True):
            results.append(
                {"id": next(numbers), "evaluation_id": evaluation, "metric": metric, "n": NUM_ITEMS}
                | {"value": float(value), "stderr": float(stderr)}
                | {"low": float(value - 1.96 * stderr), "high": float(value + 1.96 * stderr)}
            )
        if at:
            changes.append(
                {"evaluation_id": evaluation, "against_id": evaluation - size.tasks, "n": NUM_ITEMS, "is_paired": True}
                | {"value": float(found.value[at, place, 0] - found.value[at - 1, place, 0])}
                | {"verdict": str(found.verdict[at - 1, place])}
            )
    session.execute(insert(Evaluation.__table__), evaluations)
    session.execute(insert(Result.__table__), results)
    if changes:
        session.execute(insert(Change.__table__), changes)
    columns.write(session, at + 1)
