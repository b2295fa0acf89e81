"""A byte a cell says what the answers say, kept or not."""

from pathlib import Path

import numpy as np
import pytest

from registry import cells, samples
from registry.cells import LEAST, MOST, NOTHING, Cells, Task
from registry.history import Source
from registry.samples import Item, Sample

ACC = Task("acc", None)


def evaluation(folder: Path, number: int, missing: tuple[int, ...] = ()) -> Source:
    """Four items with two choices, of which the first `number` are right."""
    answers = [
        Sample(f"{at:016x}", at, 1, [-2.0, -1.0 if at < number else -3.0], [1, 2], [4, 9], [False, True])
        for at in range(4)
        if at not in missing
    ]
    return Source(100 + number, number, number * 10, [samples.write_slice(folder / str(number), 0, answers)])


def read(sources: list[Source], folder: Path, task: Task = ACC) -> Cells:
    return cells.read(sources, folder, task, cells.known(folder, task.metric))


def without_paths(sources: list[Source]) -> list[Source]:
    return [source._replace(paths=()) for source in sources]


def test_right_and_wrong_and_how_likely(tmp_path: Path) -> None:
    found = read([evaluation(tmp_path / "s", number) for number in range(4)], tmp_path / "copy")
    assert found.positions.tolist() == [0, 1, 2, 3]
    assert found.evaluations.tolist() == [100, 101, 102, 103]
    assert found.right.tolist()[0] == [LEAST, MOST, MOST, MOST]
    assert found.right.tolist()[3] == [LEAST] * 4
    likely = cells.values_of(found.likelihood)
    assert likely[0, 0] == pytest.approx(1 / (1 + np.e), abs=0.003)
    assert likely[0, 1] == pytest.approx(np.e / (1 + np.e), abs=0.003)


def test_what_is_kept_needs_no_answers(tmp_path: Path) -> None:
    sources = [evaluation(tmp_path / "s", number) for number in range(4)]
    found = read(sources, tmp_path / "copy")
    cells.keep(found, tmp_path / "copy", "acc")
    again = read(without_paths(sources), tmp_path / "copy")
    assert all(np.array_equal(one, other) for one, other in zip(found, again, strict=True))


def test_what_is_new_is_joined_in_its_place_and_what_is_gone_is_left_out(tmp_path: Path) -> None:
    sources = [evaluation(tmp_path / "s", number) for number in range(4)]
    cells.keep(read([sources[0], sources[3]], tmp_path / "copy"), tmp_path / "copy", "acc")
    mixed = [*without_paths(sources[:1]), *sources[1:3]]
    expected = read(sources[:3], tmp_path / "nowhere")
    found = read(mixed, tmp_path / "copy")
    assert all(np.array_equal(one, other) for one, other in zip(found, expected, strict=True))


def test_items_that_some_did_not_answer_are_empty_there(tmp_path: Path) -> None:
    first, second = evaluation(tmp_path / "s", 2, missing=(1,)), evaluation(tmp_path / "s", 3, missing=(0, 3))
    cells.keep(read([first], tmp_path / "copy"), tmp_path / "copy", "acc")
    found = read([first, second], tmp_path / "copy")
    assert found.positions.tolist() == [0, 1, 2, 3]
    assert found.right.tolist() == [[MOST, NOTHING], [NOTHING, MOST], [LEAST, MOST], [LEAST, NOTHING]]


def test_each_metric_has_a_file_of_its_own(tmp_path: Path) -> None:
    cells.keep(read([evaluation(tmp_path / "s", 1)], tmp_path / "copy"), tmp_path / "copy", "acc")
    assert cells.known(tmp_path / "copy", "acc_bytes") is None
    assert cells.known(tmp_path / "copy", "acc/../x") is None


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 half", b"no array", b"\x93NUMPY\x01\x00"])
def test_a_broken_file_is_as_good_as_none(tmp_path: Path, content: bytes) -> None:
    path = cells.keep(read([evaluation(tmp_path / "s", 1)], tmp_path / "copy"), tmp_path / "copy", "acc")
    path.write_bytes(content)
    assert cells.known(tmp_path / "copy", "acc") is None


def test_by_characters_it_takes_the_items(tmp_path: Path) -> None:
    items = [Item(f"{at:016x}", at, "", "?", ["a long wrong answer", "yes"], 1) for at in range(4)]
    path = samples.write_items(tmp_path / "items", "task", items)
    found = read([evaluation(tmp_path / "s", 0)], tmp_path / "copy", Task("acc_norm", path))
    assert found.right.tolist() == [[LEAST]] * 4  # -2 over 19 characters is more than -3 over 3


def test_texts_are_neither_right_nor_wrong_but_likely(tmp_path: Path) -> None:
    answers = [Sample("1", 0, None, [-5 * np.log(2)], [2], [5], [False])]
    source = Source(1, 1, 10, [samples.write_slice(tmp_path / "s", 0, answers)])
    found = read([source], tmp_path / "copy", Task("bits_per_byte", None))
    assert found.right.tolist() == [[NOTHING]]
    assert cells.values_of(found.likelihood)[0, 0] == pytest.approx(0.5, abs=0.002)


def test_free_answers_are_right_or_wrong_but_not_likely(tmp_path: Path) -> None:
    answers = [
        Sample(str(at), at, None, [], [1], [1], [], score, "x", "stop") for at, score in enumerate((0.0, 1.0, 0.5))
    ]
    source = Source(1, 1, 10, [samples.write_slice(tmp_path / "s", 0, answers)])
    found = read([source], tmp_path / "copy", Task("exact_match", None))
    assert found.right.tolist() == [[LEAST], [MOST], [128]]
    assert found.likelihood.tolist() == [[NOTHING]] * 3


def test_an_impossible_choice_is_as_unlikely_as_can_be(tmp_path: Path) -> None:
    impossible = -np.inf
    answers = [
        Sample("1", 0, 0, [impossible, -1.0], [1, 1], [1, 1], [False, False]),
        Sample("2", 1, 0, [impossible, impossible], [1, 1], [1, 1], [False, False]),
    ]
    source = Source(1, 1, 10, [samples.write_slice(tmp_path / "s", 0, answers)])
    assert read([source], tmp_path / "copy").likelihood.tolist() == [[LEAST], [NOTHING]]


def test_bytes_keep_a_probability_to_a_quarter_of_a_per_cent() -> None:
    values = np.linspace(0, 1, 1001)
    assert np.abs(cells.values_of(cells.quantise(values)) - values).max() < 0.0021
    assert cells.quantise(np.array([np.nan, -1.0, 2.0])).tolist() == [NOTHING, LEAST, MOST]
