"""Sample files keep every answer, are the same bytes for the same answers, and are never replaced."""

from pathlib import Path

import pytest

from registry import samples
from registry.errors import Invalid, NotFound
from registry.samples import Sample

CHOICE = Sample("a1", 0, 1, [-4.5, -3.25], [3, 2], [9, 9])
TEXT = Sample("b2", 1, None, [-120.5], [60], [240])
ANSWER = Sample("c3", 2, None, [], [4], [12], "从前", "有一座山", "length")


def choices(*right: bool) -> list[Sample]:
    """Items whose right choice, the first, won or lost."""
    won = {True: [-1.0, -2.0], False: [-2.0, -1.0]}
    return [Sample(f"item{at}", at, 0, won[one], [1, 1], [4, 4]) for at, one in enumerate(right)]


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    assert samples.read(samples.write(tmp_path, "7", [CHOICE, TEXT, ANSWER])) == [CHOICE, TEXT, ANSWER]


def test_the_same_answers_give_the_same_file_and_the_same_bytes(tmp_path: Path) -> None:
    first, second = (samples.write(tmp_path / folder, "7", [CHOICE, ANSWER]) for folder in ("one", "two"))
    assert first.name == second.name
    assert first.read_bytes() == second.read_bytes()


def test_other_answers_of_the_same_evaluation_leave_the_first_file_alone(tmp_path: Path) -> None:
    first = samples.write(tmp_path, "7", [CHOICE])
    kept = first.read_bytes()
    second = samples.write(tmp_path, "7", [CHOICE._replace(sum_logprob=[-1.0, -2.0])])
    assert first != second
    assert first.read_bytes() == kept
    assert sorted(tmp_path.iterdir()) == sorted([first, second])  # nothing half-written is left


def test_probe_answers_are_the_free_answers(tmp_path: Path) -> None:
    path = samples.write(tmp_path, "7", [TEXT, ANSWER])
    assert samples.probe_answers(path) == [samples.ProbeAnswer("c3", "从前", "有一座山", "length", 4)]


def test_a_missing_file_and_a_file_of_another_kind_are_told_apart(tmp_path: Path) -> None:
    with pytest.raises(NotFound):
        samples.read(tmp_path / "none.parquet")
    (tmp_path / "text.parquet").write_text("not parquet")
    with pytest.raises(Invalid):
        samples.read(tmp_path / "text.parquet")


class TestCompare:
    def test_accuracy_is_compared_item_by_item(self, tmp_path: Path) -> None:
        before = samples.write(tmp_path, "1", choices(*[False] * 12, *[True] * 4))
        after = samples.write(tmp_path, "2", choices(*[True] * 16))
        found = samples.compare(before, after)
        assert found is not None
        assert (found.value, found.n, found.verdict()) == (0.75, 16, "gain")

    def test_texts_are_compared_in_bits_per_byte(self, tmp_path: Path) -> None:
        before = samples.write(tmp_path, "1", [TEXT, TEXT._replace(item="b3")])
        after = samples.write(tmp_path, "2", [TEXT._replace(sum_logprob=[-60.25]), TEXT._replace(item="b3")])
        found = samples.compare(before, after)
        assert found is not None
        assert found.value == pytest.approx(-60.25 / 0.6931472 / 480)

    def test_without_a_shared_item_there_is_nothing_to_compare(self, tmp_path: Path) -> None:
        before, after = samples.write(tmp_path, "1", [CHOICE]), samples.write(tmp_path, "2", [ANSWER])
        assert samples.compare(before, after) is None
