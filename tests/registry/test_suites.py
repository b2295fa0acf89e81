"""Tasks: the rows follow the files."""

from pathlib import Path

import pytest
from sqlalchemy.orm import Session

from registry import suites
from registry.errors import Invalid, NotFound
from registry.settings import get_settings

TASK = """
task: {name}
output_type: multiple_choice
doc_to_text: !function tasks.text
metadata:
  version: {version}
  grow: {{title: Next line, title_zh: 下一行, ability: chinese, metric: acc, chance: 0.25, position: 1}}
"""


def write(folder: Path, name: str, version: int = 1) -> None:
    """One task file."""
    (folder / "mine").mkdir(exist_ok=True)
    (folder / "mine" / f"{name}.yaml").write_text(TASK.format(name=name, version=version))


def test_reads_tasks_without_running_their_functions(session: Session, tmp_path: Path) -> None:
    write(tmp_path, "a")
    [task] = suites.sync(session, tmp_path)
    assert (task.name, task.version, task.suite.name, task.chance, task.title_zh) == ("a", "1", "mine", 0.25, "下一行")
    assert [t.id for t in suites.sync(session, tmp_path)] == [task.id]


def test_a_new_version_is_a_new_task_and_the_old_one_is_retired(session: Session, tmp_path: Path) -> None:
    write(tmp_path, "a")
    [old] = suites.sync(session, tmp_path)
    write(tmp_path, "a", version=2)
    [new] = suites.sync(session, tmp_path)
    assert new.id != old.id
    assert old.retired
    assert [t.id for t in suites.list_tasks(session)] == [new.id]
    assert suites.get_task(session, "a").id == new.id


def test_a_broken_file_is_named(session: Session, tmp_path: Path) -> None:
    write(tmp_path, "a")
    (tmp_path / "mine" / "b.yaml").write_text("a: [")
    with pytest.raises(Invalid, match=r"mine/b\.yaml"):
        suites.sync(session, tmp_path)


def test_an_unknown_task_is_told_with_those_that_exist(session: Session, tmp_path: Path) -> None:
    write(tmp_path, "a")
    suites.sync(session, tmp_path)
    with pytest.raises(NotFound, match="Tasks: a"):
        suites.get_task(session, "b")


def test_a_site_can_name_the_tasks_that_every_checkpoint_gets(
    session: Session, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("quick_one", "quick_two", "slow"):
        write(tmp_path, name)
    assert {task.schedule for task in suites.sync(session, tmp_path)} == {suites.PANEL}
    monkeypatch.setenv("GROW_PANEL", "quick_*, other")
    get_settings.cache_clear()
    schedules = {task.name: task.schedule for task in suites.sync(session, tmp_path)}
    assert schedules == {"quick_one": suites.PANEL, "quick_two": suites.PANEL, "slow": suites.MILESTONE}
