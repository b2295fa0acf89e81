"""A suite of a test's own: YAML and readers in a temporary folder, seen by the worker instead of `suites/`."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from worker import tasks

CACHES = (tasks.prepare_task, tasks.load_task, tasks._suites_manager)


class OwnSuite:
    """Writes tasks."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def write(self, name: str, docs: list[dict[str, Any]], **fields: Any) -> str:
        """A task over these items; by default four-choice with the fields question, choices and answer."""
        data = self.folder / f"{name}.jsonl"
        data.write_text("".join(json.dumps(doc, ensure_ascii=False) + "\n" for doc in docs))
        content = {
            "task": name,
            "dataset_path": "json",
            "dataset_kwargs": {"data_files": {"test": str(data)}},
            "test_split": "test",
            "output_type": "multiple_choice",
            "doc_to_text": "{{question}}",
            "doc_to_choice": "choices",
            "doc_to_target": "answer",
            "metric_list": [{"metric": "acc"}],
            "metadata": {"version": 1},
            **fields,
        }
        (self.folder / f"{name}.yaml").write_text(yaml.safe_dump(content))
        tasks._suites_manager.cache_clear()  # it reads the folder once
        return name


@pytest.fixture
def own_suite(tmp_path: Path, grow_home: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[OwnSuite]:
    """An empty suite; tasks that were loaded before are forgotten on both sides of the test."""
    folder = tmp_path / "suites" / "own"
    folder.mkdir(parents=True)
    monkeypatch.setattr(tasks, "SUITES", folder.parent)
    for cache in CACHES:
        cache.cache_clear()
    yield OwnSuite(folder)
    for cache in CACHES:
        cache.cache_clear()


def questions(number: int = 8) -> list[dict[str, Any]]:
    """Different four-choice items."""
    return [
        {"question": f"Question {at}:", "choices": [f" a{at}", f" b{at}", f" c{at}", f" d{at}"], "answer": at % 4}
        for at in range(number)
    ]
