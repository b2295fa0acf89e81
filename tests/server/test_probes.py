"""What a model wrote at its ages."""

from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from registry import db, evaluations, runs
from registry.settings import get_settings
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
        Path(get_settings().samples_dir / first.samples_file).unlink()
        told = probes.stories(session, run)
    assert [age.checkpoint.step for age in told[0].ages] == [500, 1750]


@pytest.mark.parametrize(("steps", "chosen"), [([], set()), ([5], {5}), ([5, 6], {5, 6}), ([0, 1, 2, 4, 8], {0, 2, 8})])
def test_which_ages(steps: list[int], chosen: set[int]) -> None:
    assert probes._three_ages(steps) == chosen
