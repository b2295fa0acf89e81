"""Suites and tasks: the rows that stand for the YAML files in `suites/`."""

from collections.abc import Iterator, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import yaml
from sqlalchemy import ColumnElement, select
from sqlalchemy.orm import Session

from registry import audit
from registry.errors import Conflict, Invalid, NotFound, name_list
from registry.models import Suite, Task, User
from registry.settings import get_settings

PANEL, MILESTONE, ASKED, IDLE = "panel", "milestone", "asked", "idle"
"""When a task is run: with every checkpoint, with milestones only, only when somebody asks, or when nothing else is."""
LOWER_IS_BETTER = frozenset({"bits_per_byte", "brier_score", "byte_perplexity", "perplexity", "ter", "word_perplexity"})
"""Metrics of lm-eval that should fall."""
SHARES = frozenset(
    {"acc", "acc_norm", "acc_bytes", "acc_per_token", "exact_match", "prob", "f1", "pass_at_1", "pass@1"}
)
"""Metrics between 0 and 1."""
LIBRARY, IMPORTED, COMMUNITY = "lm-eval", "imported", "community"
"""Suites without a folder: tasks of the installed library, results that came from elsewhere, visitors' prompts."""

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
        if task.suite.name != COMMUNITY:  # those are retired by whoever withdraws a prompt
            is_gone = task.id not in kept and task.suite.name not in (LIBRARY, IMPORTED)
            task.retired = is_gone or task.is_shelved
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
    task = find_task(session, name, version)
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
    task.schedule = task.own_schedule or _schedule(name, about.get("schedule", PANEL))
    task.needs = about.get("needs", "")
    return task


def _schedule(name: str, stated: str) -> str:
    """`GROW_PANEL` goes before what the task says of itself."""
    patterns = [pattern.strip() for pattern in get_settings().panel.split(",") if pattern.strip()]
    if not patterns or stated not in (PANEL, MILESTONE):
        return stated
    return PANEL if any(fnmatchcase(name, pattern) for pattern in patterns) else MILESTONE


def is_asked_idly(kind: str, precision: int) -> bool:
    """Whether such a checkpoint is asked visitors' prompts: those that the time-lapse shows."""
    return kind == "pretrained" and precision == 16


def is_possible(task: Task) -> bool:
    """Whether this site has what the task needs; one that does not is not planned, so it cannot fail."""
    settings = get_settings()
    if task.needs == "code_execution":
        return settings.run_code
    if task.needs.startswith("local:"):
        folder = settings.benchmarks_dir
        return folder is not None and (folder / task.needs.removeprefix("local:")).is_dir()
    return True


def get_by_id(session: Session, task_id: int) -> Task:
    """The task of that id, retired or not.

    Raises:
        NotFound: there is none.
    """
    task = session.get(Task, task_id)
    if task is None:
        raise NotFound("There is no such task.")
    return task


def reschedule(session: Session, admin: User, task: Task, schedule: str) -> None:
    """Say from now on when a task is run, whatever it and `GROW_PANEL` say; what is in line stays there.

    Raises:
        Invalid: there is no such schedule.
        Conflict: it is a visitor's prompt, or its results come from elsewhere.
    """
    if schedule not in (PANEL, MILESTONE, ASKED):
        raise Invalid("There is no schedule '%(name)s'.", name=schedule[:40])
    _check_ours(task)
    if schedule != task.schedule:
        detail = {"task": task.name, "from": task.schedule, "to": schedule}
        audit.note(session, admin, "task_rescheduled", f"task:{task.id}", detail)
        task.schedule = task.own_schedule = schedule


def shelve(session: Session, admin: User, task: Task, *, is_shelved: bool) -> None:
    """Retire a task whatever `suites/` says, or bring it back. Its results stay.

    Raises:
        Conflict: it is a visitor's prompt, its results come from elsewhere, or its file is gone.
    """
    _check_ours(task)
    if not is_shelved and not task.is_shelved and task.retired:
        raise Conflict("The file of this task is no longer in suites/, or a newer version took its place.")
    task.is_shelved = task.retired = is_shelved
    deed = "task_retired" if is_shelved else "task_restored"
    audit.note(session, admin, deed, f"task:{task.id}", {"task": task.name})


def _check_ours(task: Task) -> None:
    if task.suite.name in (COMMUNITY, IMPORTED):
        raise Conflict("This task is not one of suites/: it cannot be changed here.")


def add_task(session: Session, name: str, *, suite: str, **fields: Any) -> Task:
    """A task that stands in no file of `suites/`: one of the installed lm-eval library, or an imported one."""
    task = find_task(session, name, fields.get("version", "1"))
    if task is None:
        defaults = {"title": name, "ability": "knowledge", "output_type": "multiple_choice", "schedule": ASKED}
        task = Task(suite=_suite(session, suite), name=name, **{**defaults, **fields})
        session.add(task)
        session.flush()
    return task


def describe(session: Session, task_id: int, *, output_type: str, metric: str) -> None:
    """Fill in what is known of a task of the library once it has been run."""
    task = session.get_one(Task, task_id)
    if task.suite.name == LIBRARY and not task.metric:
        task.output_type, task.metric = output_type, metric
        task.higher_is_better = metric not in LOWER_IS_BETTER


def list_tasks(session: Session, *, retired: bool = False) -> Sequence[Task]:
    """Tasks in the order in which they are shown; with `retired`, those too."""
    query = select(Task).order_by(Task.suite_id, Task.position, Task.name)
    if not retired:
        query = query.where(Task.retired.is_(False))
    return session.scalars(query).all()


def find_task(session: Session, name: str, version: str) -> Task | None:
    """A task at one version, retired or not."""
    return session.scalar(select(Task).where(Task.name == name, Task.version == version))


def get_task(session: Session, name: str) -> Task:
    """The newest version of a task; a prompt that was withdrawn is none.

    Raises:
        NotFound: with the names that exist.
    """
    query = select(Task).where(Task.name == name, _is_shown())
    tasks = session.scalars(query.order_by(Task.retired, Task.id.desc())).all()
    if not tasks:
        raise NotFound(
            "There is no task '%(name)s'. Tasks: %(known)s.", name=name, known=name_list(list(_names(session)), 40)
        )
    return tasks[0]


def get_tasks(session: Session, names: Sequence[str]) -> list[Task]:
    """The newest version of each task, in the order of the names.

    Raises:
        NotFound: one of them does not exist; with the names that exist.
    """
    query = select(Task).where(Task.name.in_(names), _is_shown()).order_by(Task.retired.desc(), Task.id)
    newest = {task.name: task for task in session.scalars(query)}
    return [newest.get(name) or get_task(session, name) for name in names]


def _is_shown() -> ColumnElement[bool]:
    return (Task.schedule != IDLE) | Task.retired.is_(False)


def _names(session: Session) -> Iterator[str]:
    return (task.name for task in list_tasks(session))
