"""A worker tells how much memory its engine has held with a checkpoint of the site."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from analysis import memory
from registry import checkpoints, db, peaks
from registry.models import MemoryPeak
from tests.browser.tiny import write_folder
from tests.factories import make_checkpoint, make_run
from worker import peaks as told
from worker.engine.peak import Peak
from worker.engine.scripted import ScriptedEngine


class Holding(ScriptedEngine):
    """Says that it held so much."""

    def __init__(self, peak: Peak) -> None:
        super().__init__()
        self.peak = peak

    def peaks(self) -> list[Peak]:
        return [self.peak]


@pytest.fixture
def holding(database: Path, monkeypatch: pytest.MonkeyPatch) -> Holding:
    monkeypatch.setattr(told, "_told", {})
    with db.transaction() as session:
        checkpoint = make_checkpoint(session, make_run(session), 8)
        folder = write_folder(checkpoints.path(checkpoint))
        session.info.pop("deferred_jobs", None)
    return Holding(Peak("vllm", "0.32.0", "bfloat16", "cpu", folder.absolute(), 2_000_000_000, 4_096, 2_048))


def rows(folder: Path) -> list[MemoryPeak]:
    shape = memory.read_shape(json.loads((folder / "config.json").read_text()))
    with db.read_session() as session:
        return list(peaks.of_architecture(session, memory.architecture_key(shape, 16)))


def test_a_peak_becomes_a_row_of_its_architecture(holding: Holding) -> None:
    told.record(holding)
    [row] = rows(holding.peak.folder)
    assert (row.engine, row.num_bytes, row.kv_tokens) == ("vllm 0.32.0", 2_000_000_000, 4_096)
    assert row.checkpoint_id is not None


@pytest.mark.parametrize(
    ("change", "kept"),
    [
        (lambda peak: replace(peak, num_bytes=2_010_000_000), 2_000_000_000),
        (lambda peak: replace(peak, num_bytes=3_000_000_000), 3_000_000_000),
    ],
    ids=["a hair more", "much more"],
)
def test_only_growth_that_tells_something_is_written(
    holding: Holding, change: Callable[[Peak], Peak], kept: int
) -> None:
    told.record(holding)
    holding.peak = change(holding.peak)
    told.record(holding)
    assert [row.num_bytes for row in rows(holding.peak.folder)] == [kept]


@pytest.mark.parametrize("change", [{"engine": "transformers"}, {"kv_tokens": 0}])
def test_what_would_say_nothing_of_the_model_is_not_told(holding: Holding, change: dict[str, object]) -> None:
    holding.peak = replace(holding.peak, **change)  # type: ignore[arg-type]
    told.record(holding)
    assert rows(holding.peak.folder) == []


def test_what_is_no_checkpoint_of_the_site_is_not_told(holding: Holding, tmp_path: Path) -> None:
    holding.peak = replace(holding.peak, folder=write_folder(tmp_path / "elsewhere"))
    told.record(holding)
    assert rows(holding.peak.folder) == []
