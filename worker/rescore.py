"""Derives results again from the stored answers, without an engine: `python -m worker.rescore`.

For when a metric is new or was wrong: a hundred checkpoints take seconds, not GPU hours.
"""

from collections.abc import Iterator
from typing import Annotated

import typer
from rich.console import Console
from sqlalchemy import select
from sqlalchemy.orm import Session, contains_eager, selectinload

from registry import db, evaluations, runs, samples
from registry.errors import RegistryError
from registry.evaluations import Score
from registry.models import Checkpoint, Evaluation, Task
from registry.models.base import FINISHED
from worker import results
from worker.tasks import TaskError, prepare_task

console = Console()


def rescore(session: Session, run: str = "", task: str = "") -> Iterator[tuple[Evaluation, list[Score] | str]]:
    """Each finished evaluation with answers, with its results or the reason why there are none."""
    query = (
        select(Evaluation)
        .join(Evaluation.checkpoint)
        .join(Evaluation.task)
        .where(Evaluation.status == FINISHED, Evaluation.items_file != "", Task.is_probe.is_(False))
        .options(
            contains_eager(Evaluation.checkpoint), contains_eager(Evaluation.task), selectinload(Evaluation.slices)
        )
        .order_by(Task.name, Checkpoint.step)
    )
    if run:
        query = query.where(Checkpoint.run_id == runs.get_run(session, run).id)
    if task:
        query = query.where(Task.name == task)
    for evaluation in session.scalars(query):
        try:
            yield evaluation, derive(evaluation)
        except (TaskError, RegistryError) as error:
            yield evaluation, str(error)


def derive(evaluation: Evaluation) -> list[Score]:
    """The results of one evaluation from its files.

    Raises:
        TaskError: its task has code of its own that scores, and is not here with the same items.
        NotFound, Invalid: a file is missing or broken.
    """
    answered = samples.read(evaluations.sample_paths(evaluation))
    if evaluation.task.output_type != "generate_until" and not _has_code(evaluation):
        items = samples.read_items(evaluations.items_path(evaluation))
        return results.derive_stored(evaluation.task.output_type, items, answered)
    prepared = prepare_task(evaluation.task.name)
    if prepared.items_digest != evaluation.protocol.get("items"):
        raise TaskError("The task has other items now than when it was run.")
    return results.derive(prepared, answered)


def _has_code(evaluation: Evaluation) -> bool:
    """Whether the task scores in its own way; its answers then have a score of their own."""
    try:
        return prepare_task(evaluation.task.name).has_own_scoring
    except TaskError:
        return False  # an imported task, or one that is no longer here: what is stored must do


def main(
    run: Annotated[str, typer.Option(help="Only this run.")] = "",
    task: Annotated[str, typer.Option(help="Only this task.")] = "",
) -> None:
    """Derive results again from the stored answers."""
    changed = refused = same = 0
    with db.read_session() as session:
        found = list(rescore(session, run, task))
    for evaluation, outcome in found:
        place = f"{evaluation.task.name} of {evaluation.checkpoint.label}"
        if isinstance(outcome, str):
            refused += 1
            console.print(f"[yellow]{place}: {outcome}[/yellow]", highlight=False)
            continue
        with db.transaction() as session:
            metrics = evaluations.rescore(session, evaluation.id, outcome)
        if metrics:
            changed += 1
            console.print(f"{place}: {', '.join(metrics)}", highlight=False)
        else:
            same += 1
    console.print(f"{changed} evaluations changed, {same} are as they were, {refused} could not be derived.")


if __name__ == "__main__":
    typer.run(main)
