"""Makes the rows that tests need, through the same verbs that the services use."""

from collections.abc import Mapping
from itertools import count
from typing import Any

from sqlalchemy.orm import Session

from registry import accounts, checkpoints, evaluations, runs, suites, tickets
from registry.models import Checkpoint, Evaluation, Run, Suite, Task, User
from registry.store import Manifest

_serial = count(1)


def make_user(session: Session, name: str = "", role: str = "member", password: str = "correct horse") -> User:
    """A registered person."""
    return accounts.register(session, name or f"user{next(_serial)}", password, role=role)


def make_run(session: Session, name: str = "demo", **fields: Any) -> Run:
    """A run of 4,096 tokens a step."""
    return runs.create_run(session, name=name, **{"tokens_per_step": 4096, "max_steps": 1000, **fields})


def make_checkpoint(
    session: Session, run: Run, step: int = 0, *, ready: bool = True, kind: str = "pretrained", **facts: Any
) -> Checkpoint:
    """A registered checkpoint; its files exist only in the manifest."""
    manifest = Manifest(
        files={"model.safetensors": {"size": 1000, "sha256": f"{run.name}{step}{kind}".ljust(64, "0")}},
        facts={"tokens_seen": step * 4096, "flops": step * 1e9, **facts},
    )
    checkpoint = checkpoints.register(
        session, run, step=step, folder=f"{run.name}/step-{step}-{kind}", manifest=manifest, kind=kind
    )
    if ready:
        checkpoints.mark_ready(session, checkpoint, 5_000_000)
    session.flush()
    return checkpoint


def make_half(session: Session, run: Run, step: int = 0) -> Checkpoint:
    """The same checkpoint in 8 bits."""
    manifest = Manifest(files={"model.safetensors": {"size": 500, "sha256": "8".ljust(64, "0")}}, facts={})
    folder = f"{run.name}/step-{step}-8bit"
    checkpoint = checkpoints.register(session, run, step=step, folder=folder, manifest=manifest, precision=8)
    checkpoints.mark_ready(session, checkpoint, 5_000_000)
    session.flush()
    return checkpoint


def make_task(session: Session, name: str = "zh_next_line", **fields: Any) -> Task:
    """A live four-choice task."""
    suite = session.query(Suite).filter_by(name="test").one_or_none() or Suite(name="test")
    defaults: dict[str, Any] = {
        "title": name.replace("_", " ").capitalize(),
        "title_zh": "测试",
        "ability": "chinese",
        "output_type": "multiple_choice",
        "metric": "acc",
        "chance": 0.25,
    }
    task = Task(suite=suite, name=name, **{**defaults, **fields})
    session.add(task)
    session.flush()
    return task


def finish_evaluation(
    session: Session, checkpoint: Checkpoint, task: Task, value: float, stderr: float = 0.02, **extra: Any
) -> Evaluation:
    """Claims and finishes the evaluation of a task, as a worker would."""
    evaluations.plan(session, checkpoint)
    session.flush()
    evaluation = next(e for e in evaluations.for_checkpoint(session, checkpoint) if e.task_id == task.id)
    tickets.cancel(session, evaluation_id=evaluation.id)
    protocol: Mapping[str, Any] = extra.pop("protocol", {"engine": "scripted"})
    part = evaluations.NewSlice(0, 200, f"{checkpoint.id}/{evaluation.id}/none.parquet", engine_seconds=1.5)
    evaluations.start(session, evaluation.id, 200, protocol)
    evaluations.add_slice(session, evaluation.id, extra.pop("part", part))
    score = evaluations.Score(task.metric, value, stderr, value - 1.96 * stderr, value + 1.96 * stderr, 200)
    evaluations.finish(session, evaluation.id, results=[score], protocol=protocol, **extra)
    session.flush()
    return evaluation


def make_tasks(session: Session) -> list[Task]:
    """The tasks of `suites/`."""
    return list(suites.sync(session))
