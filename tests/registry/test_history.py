"""The copy by item shows what the slices say, at every moment of its upkeep."""

import fcntl
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from registry import history, samples
from registry.errors import Invalid, NotFound
from registry.history import Source
from registry.samples import Sample

NUM_ITEMS, SLICE = 10, 4


def evaluation(folder: Path, number: int, num_items: int = NUM_ITEMS) -> Source:
    """An evaluation in three slices that has the first `number` items right; ids do not go with steps."""
    answers = [
        Sample(f"{at:016x}", at, 1, [-2.0, -1.0 if at < number else -3.0], [1, 2], [4, 9], [False, True])
        for at in range(num_items)
    ]
    paths = [
        samples.write_slice(folder / str(number), start, answers[start : start + SLICE])
        for start in range(0, num_items, SLICE)
    ]
    return Source(1000 - number, number, number * 100, paths)


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> list[Source]:
    folder = tmp_path_factory.mktemp("samples")
    return [evaluation(folder, number) for number in range(40)]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "by-item"


def files(folder: Path) -> list[str]:
    return sorted(path.name[:6] for path in folder.glob("*.parquet"))


def steps_where_right(sources: Sequence[Source], folder: Path, position: int) -> list[int]:
    found = history.by_item(sources, folder, position)
    return [one.source.step for one in found if one.sample.sum_logprob[1] == -1.0]


class TestByItem:
    def test_every_answer_in_the_order_of_training(self, sources: list[Source], folder: Path) -> None:
        found = history.by_item(sources[::-1], folder, 7)
        assert [one.source for one in found] == sources
        assert {one.sample.position for one in found} == {7}
        assert found[0].sample == samples.read(sources[0].paths)[7]

    def test_the_copy_gives_the_same_answers_without_the_slices(self, sources: list[Source], folder: Path) -> None:
        before = [history.by_item(sources, folder, position) for position in range(NUM_ITEMS)]
        assert history.compact(sources, folder) == 40
        lost = [source._replace(paths=[Path(path.name) for path in source.paths]) for source in sources]
        found = [history.by_item(lost, folder, position) for position in range(NUM_ITEMS)]
        assert [[one.sample for one in row] for row in found] == [[one.sample for one in row] for row in before]

    def test_what_the_copy_does_not_cover_is_read_from_the_slices(self, sources: list[Source], folder: Path) -> None:
        history.compact(sources[:30], folder)
        assert steps_where_right(sources, folder, 3) == [source.step for source in sources[4:]]

    def test_only_the_evaluations_that_are_asked_for(self, sources: list[Source], folder: Path) -> None:
        history.compact(sources, folder)
        assert [one.source for one in history.by_item(sources[10:12], folder, 0)] == sources[10:12]

    def test_an_item_that_nobody_answered(self, sources: list[Source], folder: Path) -> None:
        history.compact(sources[:20], folder)
        assert history.by_item(sources, folder, NUM_ITEMS) == []

    def test_free_answers_keep_their_text(self, folder: Path, tmp_path: Path) -> None:
        answer = Sample("00000000000000aa", 0, None, [], [4], [12], [], 0.5, "从前有座山", "stop")
        sources = [
            Source(number, number, number, [samples.write_slice(tmp_path / str(number), 0, [answer])])
            for number in range(16)
        ]
        history.compact(sources, folder)
        assert [one.sample for one in history.by_item(sources, folder, 0)] == [answer] * 16


class TestGrids:
    def test_right_and_wrong_by_item_and_checkpoint(self, sources: list[Source], folder: Path) -> None:
        history.compact(sources[:32], folder)
        grid = history.heat_map(sources, folder, "acc")
        assert grid.values.shape == (NUM_ITEMS, 40)
        assert grid.sources == sources
        assert np.array_equal(grid.values, np.arange(NUM_ITEMS)[:, None] < np.arange(40)[None, :])

    def test_a_stretch_of_the_items_in_probabilities(self, sources: list[Source], folder: Path) -> None:
        history.compact(sources, folder)
        grid = history.heat_map(sources, folder, "prob", start=4, stop=6)
        assert grid.positions.tolist() == [4, 5]
        assert grid.values[0, 0] == pytest.approx(1 / (1 + np.e))

    def test_an_item_that_a_checkpoint_was_not_asked_has_no_number(self, tmp_path: Path, folder: Path) -> None:
        sources = [evaluation(tmp_path / "samples", 2), evaluation(tmp_path / "samples", 3, num_items=4)]
        grid = history.heat_map(sources, folder, "acc", start=3, stop=5)
        assert np.array_equal(grid.values, [[0, 0], [0, np.nan]], equal_nan=True)

    def test_all_answers_of_a_checkpoint(self, sources: list[Source]) -> None:
        table = history.by_checkpoint(sources[1:3])
        assert table["evaluation"].to_pylist() == [999] * NUM_ITEMS + [998] * NUM_ITEMS
        assert table["position"].to_pylist() == [*range(NUM_ITEMS)] * 2


class TestCompact:
    def test_a_few_evaluations_wait_in_their_slices(self, sources: list[Source], folder: Path) -> None:
        assert history.compact(sources[: history.MIN_BATCH - 1], folder) == 0
        assert files(folder) == []

    def test_doing_it_again_changes_nothing(self, sources: list[Source], folder: Path) -> None:
        history.compact(sources, folder)
        before = {path: path.stat().st_mtime_ns for path in folder.glob("*.parquet")}
        assert history.compact(sources, folder) == 0
        assert {path: path.stat().st_mtime_ns for path in folder.glob("*.parquet")} == before

    def test_files_stay_few_while_checkpoints_arrive(
        self, sources: list[Source], folder: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(history, "MIN_BATCH", 2)
        monkeypatch.setattr(history, "ROWS_AT_ONCE", 50)  # so that a file is written in several windows
        for number in range(41):
            history.compact(sources[:number], folder)
            assert steps_where_right(sources[:number], folder, 9) == [source.step for source in sources[10:number]]
            sizes = [int(size) for size in files(folder)]
            assert all(size >= sum(sizes[:at]) for at, size in enumerate(sizes))
        assert len(sizes) <= 4

    def test_retired_checkpoints_leave_the_copy(
        self, sources: list[Source], folder: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(history, "MIN_BATCH", 2)
        for stop in (4, 8, 12):
            history.compact(sources[2 if stop > 4 else 0 : stop], folder)
        assert files(folder) == ["000010"]
        history.compact(sources[12:], folder)
        assert files(folder) == ["000028"]

    def test_a_compaction_killed_before_it_published_is_cleared_away(self, sources: list[Source], folder: Path) -> None:
        folder.mkdir()
        (folder / ".half.tmp").write_bytes(b"PAR1")
        assert steps_where_right(sources, folder, 3) == [source.step for source in sources[4:]]
        history.compact(sources, folder)
        assert sorted(path.name[:6] for path in folder.iterdir()) == [".lock", "000040"]

    def test_a_compaction_killed_before_it_deleted_leaves_no_doubled_answers(
        self, sources: list[Source], folder: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        history.compact(sources[:16], folder)
        small = next(folder.glob("*.parquet"))
        kept = small.read_bytes()
        history.compact(sources[:32], folder)
        monkeypatch.setattr(history, "MIN_BATCH", 8)
        history.compact(sources, folder)
        assert files(folder) == ["000040"]
        small.write_bytes(kept)
        assert steps_where_right(sources, folder, 3) == [source.step for source in sources[4:]]
        history.compact(sources, folder)
        assert files(folder) == ["000040"]

    def test_two_at_once_do_the_work_of_one(self, sources: list[Source], folder: Path) -> None:
        folder.mkdir()
        with (folder / ".lock").open("w") as other:
            fcntl.flock(other, fcntl.LOCK_EX)
            assert history.compact(sources, folder) == 0
        assert history.compact(sources, folder) == 40

    def test_readers_see_everything_while_files_come_and_go(
        self, sources: list[Source], folder: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(history, "MIN_BATCH", 2)
        is_over = threading.Event()

        def read_on() -> int:
            times = 0
            while not is_over.is_set():
                found = [one.source.step for one in history.by_item(sources, folder, 5)]
                assert found == [source.step for source in sources]
                times += 1
            return times

        with ThreadPoolExecutor() as pool:
            reader = pool.submit(read_on)
            for number in range(2, 41, 2):
                history.compact(sources[:number], folder)
            is_over.set()
            assert reader.result() > 0


def test_a_broken_copy_and_a_missing_slice_are_said(sources: list[Source], folder: Path) -> None:
    folder.mkdir()
    (folder / "000040-0123456789abcdef.parquet").write_bytes(b"PAR1")
    with pytest.raises(Invalid, match="can be deleted"):
        history.by_item(sources, folder, 0)
    lost = sources[3]._replace(paths=[folder / "000000-none.parquet"])
    with pytest.raises(NotFound):
        history.heat_map([*sources[:3], lost], folder.parent / "none", "acc")
