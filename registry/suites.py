"""Suites and tasks: the rows that stand for the YAML files in `suites/`."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml
from sqlalchemy import select
from sqlalchemy.orm import Session

from registry.errors import Invalid, NotFound, name_list
from registry.models import Suite, Task

FOLDER = Path(__file__).resolve().parent.parent / "suites"


class _TaskLoader(yaml.SafeLoader):
    """Reads lm-eval's YAML without running the functions it names."""


def _function_name(loader: yaml.SafeLoader, node: yaml.ScalarNode) -> str:
    return str(loader.construct_scalar(node))


_TaskLoader.add_constructor("!function", _function_name)


def sync(session: Session, folder: Path = FOLDER) -> list[Task]:
    """Bring the rows in line with the files; what is no longer there is retired, never deleted."""
    live: list[Task] = []
    for suite_folder in sorted(path for path in folder.iterdir() if path.is_dir()):
        files = sorted(suite_folder.glob("*.yaml"))
        described = [content for file in files if (content := _read(file)) and "grow" in content.get("metadata", {})]
        if described:
            suite = _suite(session, suite_folder.name)
            live += [_task(session, suite, content) for content in described]
    session.flush()  # the query below must see the new rows
    kept = {task.id for task in live}
    for task in session.scalars(select(Task)):
        task.retired = task.id not in kept
    return live


def _read(file: Path) -> dict[str, Any]:
    try:
        content = yaml.load(file.read_text(), Loader=_TaskLoader)
    except yaml.YAMLError as error:
        raise Invalid(
            "%(suite)s/%(file)s is not valid YAML: %(error)s", suite=file.parent.name, file=file.name, error=error
        ) from error
    return content if isinstance(content, dict) else {}


def _suite(session: Session, name: str) -> Suite:
    suite = session.scalar(select(Suite).where(Suite.name == name))
    if suite is None:
        suite = Suite(name=name)
        session.add(suite)
    return suite


def _task(session: Session, suite: Suite, content: dict[str, Any]) -> Task:
    about = content["metadata"]["grow"]
    name, version = str(content["task"]), str(content["metadata"].get("version", 1))
    task = session.scalar(select(Task).where(Task.name == name, Task.version == version))
    if task is None:
        task = Task(name=name, version=version)
        session.add(task)
    task.suite = suite
    task.title = about["title"]
    task.title_zh = about.get("title_zh", "")
    task.ability = about["ability"]
    task.output_type = content.get("output_type", "generate_until")
    task.metric = about.get("metric") or ""
    task.higher_is_better = about.get("higher_is_better", True)
    task.chance = about.get("chance")
    task.is_probe = about.get("is_probe", False)
    task.position = about.get("position", 0)
    return task


def list_tasks(session: Session, *, retired: bool = False) -> Sequence[Task]:
    """Tasks in the order in which they are shown; with `retired`, those too."""
    query = select(Task).order_by(Task.suite_id, Task.position, Task.name)
    if not retired:
        query = query.where(Task.retired.is_(False))
    return session.scalars(query).all()


def get_task(session: Session, name: str) -> Task:
    """The newest version of a task.

    Raises:
        NotFound: with the names that exist.
    """
    tasks = session.scalars(select(Task).where(Task.name == name).order_by(Task.retired, Task.id.desc())).all()
    if not tasks:
        raise NotFound(
            "There is no task '%(name)s'. Tasks: %(known)s.", name=name, known=name_list(list(_names(session)), 40)
        )
    return tasks[0]


def _names(session: Session) -> Iterator[str]:
    return (task.name for task in list_tasks(session))
