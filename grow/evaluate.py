"""Asks for evaluations by hand: of a checkpoint or a whole run, of suites or single tasks."""

from collections.abc import Sequence

from sqlalchemy.orm import Session

from registry import checkpoints, evaluations, runs, suites
from registry.db import transaction
from registry.errors import Invalid, NotFound, name_list
from registry.models import Checkpoint, Task


def plan(target: str, *, suite_names: Sequence[str], task_names: Sequence[str], again: bool) -> int:
    """Queue evaluations for `run` or `run@step`; returns how many.

    Raises:
        NotFound: no such run, step or suite.
        Invalid: neither a suite nor a task was named, or the step is no number.
    """
    if not suite_names and not task_names:
        raise Invalid("Name what to run: --suite english, or --task hellaswag.")
    with transaction() as session:
        chosen = [*_of_suites(session, suite_names), *(_task(session, name) for name in task_names)]
        return sum(
            len(evaluations.plan_tasks(session, checkpoint, chosen, again=again, by_hand=True))
            for checkpoint in _checkpoints(session, target)
        )


def _checkpoints(session: Session, target: str) -> Sequence[Checkpoint]:
    name, _, step = target.partition("@")
    run = runs.get_run(session, name)
    if not step:
        return checkpoints.list_checkpoints(session, run)
    if not step.isdecimal():
        raise Invalid("'%(step)s' is no step; write %(run)s@1000.", step=step, run=name)
    return [checkpoints.get_checkpoint(session, run, int(step))]


def _of_suites(session: Session, names: Sequence[str]) -> list[Task]:
    tasks = [task for task in suites.list_tasks(session) if suites.is_possible(task)]
    known = {task.suite.name for task in tasks}
    if missing := [name for name in names if name not in known]:
        raise NotFound(
            "There is no suite '%(suite)s' that can be run here. Suites: %(known)s.",
            suite=missing[0],
            known=name_list(sorted(known)),
        )
    return [task for task in tasks if task.suite.name in names]


def _task(session: Session, name: str) -> Task:
    """A task of `suites/`, else one of the installed lm-eval library: the worker finds out what it is."""
    try:
        return suites.get_task(session, name)
    except NotFound:
        return suites.add_task(session, name, suite=suites.LIBRARY, version="", metric="")
