"""What a model wrote at its ages."""

from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from registry import db, evaluations, runs, samples
from server import probes


def test_three_ages_of_a_run(seeded: TestClient) -> None:
    with db.read_session() as session:
        told = probes.stories(session, runs.get_run(session, "demo"))
    assert [story.language for story in told] == ["zh", "en", "code", "en"]
    assert [age.checkpoint.step for age in told[0].ages] == [0, 500, 1750]
    assert told[0].ages[-1].text.startswith("保护公民")


def test_a_missing_sample_file_leaves_out_its_answers_only(seeded: TestClient) -> None:
    with db.read_session() as session:
        run = runs.get_run(session, "demo")
        first = evaluations.probe_evaluations(session, run)[0]
        evaluations.sample_paths(first)[0].unlink()
        told = probes.stories(session, run)
    assert [age.checkpoint.step for age in told[0].ages] == [500, 1750]


def test_the_files_of_a_finished_evaluation_are_read_once(seeded: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    with db.read_session() as session:
        found = evaluations.probe_evaluations(session, runs.get_run(session, "demo"))
        first = probes.sayings(found[:1], found[-1:])

        def reads(path: Path, *_: object) -> None:
            raise AssertionError(f"{path} was read again")

        monkeypatch.setattr(samples, "read_columns", reads)
        monkeypatch.setattr(samples, "read_items", reads)
        assert probes.sayings(found[:1], found[-1:]) == first
    assert first
    assert first[0].prompt


@pytest.mark.parametrize(("steps", "chosen"), [([], set()), ([5], {5}), ([5, 6], {5, 6}), ([0, 1, 2, 4, 8], {0, 2, 8})])
def test_which_ages(steps: list[int], chosen: set[int]) -> None:
    assert probes._three_ages(steps) == chosen
