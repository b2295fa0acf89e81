"""The faster engine is found once for a machine and an architecture."""

import json
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from worker.engine import speed
from worker.engine.protocol import EngineDown, EngineError, Score, ScoreRequest
from worker.engine.scripted import ScriptedEngine
from worker.engine.shape import ModelShape, read_shape


class Paced(ScriptedEngine):
    """A scripted engine of another name that takes its time, or fails."""

    def __init__(self, name: str, seconds: float = 0.0, error: Exception | None = None) -> None:
        super().__init__()
        self.name = name
        self.num_calls = 0
        self._seconds = seconds
        self._error = error

    def score(self, requests: Sequence[ScoreRequest]) -> list[Score]:
        self.num_calls += 1
        if self._error is not None:
            raise self._error
        time.sleep(self._seconds)
        return super().score(requests)


@pytest.fixture
def folder(make_checkpoint) -> Path:
    return make_checkpoint("tied-a", seed=1)


@pytest.fixture
def shape(folder: Path) -> ModelShape:
    return read_shape(folder)


def test_the_faster_one_is_chosen_and_stays_chosen(folder, shape, tmp_path):
    slow, fast = Paced("slow", 0.3), Paced("fast")
    assert speed.faster([slow, fast], folder, shape, tmp_path) is fast

    # Another worker, on a day on which the other one would have won.
    slow, fast = Paced("slow"), Paced("fast", 0.3)
    assert speed.faster([slow, fast], folder, shape, tmp_path) is fast
    assert (slow.num_calls, fast.num_calls) == (0, 0)


def test_another_architecture_or_version_is_measured_anew(folder, shape, tmp_path):
    engines = [Paced("slow", 0.05), Paced("fast")]
    speed.faster(engines, folder, shape, tmp_path)
    speed.faster(engines, folder, replace(shape, config={**shape.config, "num_hidden_layers": 40}), tmp_path)
    engines[0].version = "2"
    speed.faster(engines, folder, shape, tmp_path)
    assert len(list(tmp_path.glob("*.json"))) == 3


def test_the_figures_can_be_read(folder, shape, tmp_path):
    speed.faster([Paced("slow", 0.05), Paced("fast")], folder, shape, tmp_path)
    [note] = tmp_path.iterdir()
    found = json.loads(note.read_text())
    assert found["machine"] == speed.machine()
    assert found["seconds"]["slow"] > found["seconds"]["fast"] > 0


def test_an_engine_that_cannot_do_it_is_not_chosen(folder, shape, tmp_path):
    unable = Paced("unable", error=EngineError("no kernel"))
    able = Paced("able", 0.05)
    assert speed.faster([unable, able], folder, shape, tmp_path) is able
    assert speed.faster([unable, able], folder, shape, tmp_path) is able


def test_where_none_can_a_sentence_says_so(folder, shape, tmp_path):
    engines = [Paced(name, error=EngineError("no kernel")) for name in ("one", "other")]
    with pytest.raises(EngineError, match="No engine can score"):
        speed.faster(engines, folder, shape, tmp_path)


def test_a_death_while_measuring_decides_nothing(folder, shape, tmp_path):
    with pytest.raises(EngineDown):
        speed.faster([Paced("dying", error=EngineDown("killed")), Paced("other")], folder, shape, tmp_path)
    assert not list(tmp_path.iterdir())


def test_the_first_of_two_workers_that_measure_at_once_counts(folder, shape, tmp_path):
    class Late(Paced):
        def use(self, folder: Path) -> None:
            if not list(tmp_path.iterdir()):
                speed.faster([Paced("one", 0.2), Paced("other")], folder, shape, tmp_path)
            super().use(folder)

    one, other = Late("one"), Paced("other", 0.2)
    assert speed.faster([one, other], folder, shape, tmp_path) is other
    assert len(list(tmp_path.iterdir())) == 1


def test_the_sample_fits_a_model_that_sees_little(shape):
    short = replace(shape, config={**shape.config, "max_position_embeddings": 16})
    for request in speed.sample_requests(short):
        assert request.context
        assert request.continuation
        assert len(request.context) + len(request.continuation) <= 16
        assert max(request.context + request.continuation) < shape.config["vocab_size"]
