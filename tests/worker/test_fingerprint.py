"""Before scores count: the fingerprint of a new checkpoint, and the canary after each swap."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from registry import checkpoints, db
from registry.models import Checkpoint
from registry.settings import get_settings
from worker import fingerprint
from worker.engine.protocol import EngineDown, EngineError, Score, ScoreRequest
from worker.engine.scripted import ScriptedEngine
from worker.fingerprint import STRINGS, prove


class Stale(ScriptedEngine):
    """Goes on computing with the weights that it held first, until it is closed."""

    def __init__(self) -> None:
        super().__init__()
        self.num_closed = 0
        self._held: Path | None = None

    def use(self, folder: Path) -> None:
        super().use(folder)
        self._held = self._held or folder

    def close(self) -> None:
        super().close()
        self.num_closed += 1
        self._held = None

    def _folder(self) -> Path:
        assert self._held is not None
        return self._held


class Broken(ScriptedEngine):
    def score(self, requests: Sequence[ScoreRequest]) -> list[Score]:
        return [Score([float("nan")], False) for _ in requests]


def published(publish: Any, make_checkpoint: Any, step: int) -> tuple[int, Path]:
    checkpoint_id = publish(make_checkpoint(f"print-{step}", seed=step), step=step)
    return checkpoint_id, get_settings().checkpoints_dir / "demo" / f"step-{step}-pretrained"


def read(checkpoint_id: int) -> Checkpoint:
    with db.read_session() as session:
        return checkpoints.get_by_id(session, checkpoint_id)


def test_the_strings_are_64_different_ones() -> None:
    assert len(set(STRINGS)) == len(STRINGS) == 64


def test_a_new_checkpoint_gets_its_fingerprint(publish: Any, make_checkpoint: Any) -> None:
    checkpoint_id, folder = published(publish, make_checkpoint, 1)
    engine = ScriptedEngine()
    engine.use(folder)
    prove(engine, folder, checkpoint_id)
    values = read(checkpoint_id).fingerprint["scripted/none"]
    assert len(values) == 64
    assert all(value < 0 for value in values)


def test_nothing_is_asked_again_while_the_weights_stay(publish: Any, make_checkpoint: Any) -> None:
    checkpoint_id, folder = published(publish, make_checkpoint, 1)
    engine = ScriptedEngine()
    engine.use(folder)
    prove(engine, folder, checkpoint_id)
    taken = read(checkpoint_id).fingerprint
    engine.score = None  # type: ignore[assignment,method-assign]  # would raise if it were called
    prove(engine, folder, checkpoint_id)
    assert read(checkpoint_id).fingerprint == taken


def test_stale_weights_after_a_swap_are_noticed_before_a_score_counts(publish: Any, make_checkpoint: Any) -> None:
    good, stale = ScriptedEngine(), Stale()
    places = [published(publish, make_checkpoint, step) for step in (1, 2)]
    for checkpoint_id, folder in places:
        good.use(folder)
        prove(good, folder, checkpoint_id)
    stale.use(places[0][1])
    prove(stale, places[0][1], places[0][0])
    stale.use(places[1][1])
    with pytest.raises(EngineDown, match="held other weights"):
        prove(stale, places[1][1], places[1][0])
    assert stale.num_closed == 1
    stale.use(places[1][1])
    prove(stale, places[1][1], places[1][0])


def test_a_first_fingerprint_like_the_last_one_is_taken_again_in_a_fresh_engine(
    publish: Any, make_checkpoint: Any
) -> None:
    engine = Stale()
    places = [published(publish, make_checkpoint, step) for step in (1, 2)]
    for checkpoint_id, folder in places:
        engine.use(folder)
        prove(engine, folder, checkpoint_id)
    assert engine.num_closed == 1
    assert read(places[1][0]).warnings == []
    assert read(places[0][0]).fingerprint != read(places[1][0]).fingerprint


def test_a_copy_under_another_step_is_warned_of_on_both(publish: Any, make_checkpoint: Any) -> None:
    folder = make_checkpoint("copy", seed=5)
    ids = [publish(folder, step=step) for step in (1, 2)]
    engine = SameForAll()
    for checkpoint_id, step in zip(ids, (1, 2), strict=True):
        place = get_settings().checkpoints_dir / "demo" / f"step-{step}-pretrained"
        engine.use(place)
        prove(engine, place, checkpoint_id)
    assert [[(w["kind"], w["step"]) for w in read(i).warnings] for i in ids] == [[("twin", 2)], [("twin", 1)]]


class SameForAll(ScriptedEngine):
    """Two copies of one model."""

    def _folder(self) -> Path:
        return super()._folder().with_name("step-1-pretrained")


def test_numbers_that_are_not_finite_are_an_error(publish: Any, make_checkpoint: Any) -> None:
    checkpoint_id, folder = published(publish, make_checkpoint, 1)
    engine = Broken()
    engine.use(folder)
    with pytest.raises(EngineError, match="no finite log-probabilities"):
        prove(engine, folder, checkpoint_id)


def test_the_canary_is_a_part_of_the_fingerprint() -> None:
    assert len(range(0, len(STRINGS), len(STRINGS) // fingerprint.NUM_CANARIES)) == fingerprint.NUM_CANARIES
