"""Any two checkpoints: which evaluations meet, what they differ in, and where two runs are as old."""

from collections.abc import Sequence
from pathlib import Path

import pytest
from sqlalchemy.orm import Session

from registry import comparisons, evaluations, samples
from registry.changes import Pair
from registry.comparisons import Place, meetings
from registry.evaluations import NewSlice
from registry.models import Checkpoint, Evaluation, Task
from registry.samples import Item, Sample
from registry.settings import get_settings
from tests.factories import finish_evaluation, make_checkpoint, make_run, make_task

ITEMS = [Item(f"{at + 1:016x}", at, "", f"Question {at}", ["yes", "no"], 0) for at in range(40)]


def answer(session: Session, checkpoint: Checkpoint, task: Task, right: Sequence[bool], **protocol: str) -> Evaluation:
    """A finished evaluation with its answers to as many items as `right` has entries."""
    folder = get_settings().samples_dir
    rows = [
        Sample(item.item, item.position, 0, [-1.0, -2.0] if is_right else [-2.0, -1.0], [1, 1], [3, 2], [False] * 2)
        for item, is_right in zip(ITEMS, right, strict=False)
    ]
    path = samples.write_slice(folder / checkpoint.label / task.name, 0, rows)
    items = samples.write_items(folder / "items", task.name, ITEMS)
    part = NewSlice(0, len(rows), path.relative_to(folder).as_posix(), 1.0)
    return finish_evaluation(
        session,
        checkpoint,
        task,
        sum(right) / len(right),
        part=part,
        protocol={"engine": "scripted", **protocol},
        items_file=items.relative_to(folder).as_posix(),
    )


@pytest.fixture
def two(session: Session) -> tuple[Checkpoint, Checkpoint]:
    run = make_run(session)
    return make_checkpoint(session, run, 10), make_checkpoint(session, run, 20)


class TestCompare:
    def test_the_same_items_are_compared_one_by_one(self, session: Session, two: tuple[Checkpoint, Checkpoint]) -> None:
        task = make_task(session)
        answer(session, two[0], task, [True] * 10 + [False] * 30)
        answer(session, two[1], task, [False] * 2 + [True] * 28 + [False] * 10)
        session.expire_all()
        [outcome] = comparisons.compare(session, *two).outcomes
        assert (outcome.learned, outcome.forgotten, outcome.verdict) == (20, 2, "gain")
        assert outcome.found.value == pytest.approx(18 / 40)
        assert outcome.found.is_paired
        assert outcome.found.n == 40
        assert outcome.corrected_p == outcome.found.p_value  # a family of one

    def test_without_answers_the_two_scores_are_compared(
        self, session: Session, two: tuple[Checkpoint, Checkpoint]
    ) -> None:
        task = make_task(session)
        finish_evaluation(session, two[0], task, 0.3)
        finish_evaluation(session, two[1], task, 0.6)
        session.expire_all()
        [outcome] = comparisons.compare(session, *two).outcomes
        assert (outcome.found.is_paired, outcome.learned, outcome.verdict) == (False, None, "gain")
        assert outcome.found.low == pytest.approx(0.3 - 1.96 * 0.02 * 2**0.5, abs=1e-4)

    def test_what_was_measured_differently_stands_apart(
        self, session: Session, two: tuple[Checkpoint, Checkpoint]
    ) -> None:
        task = make_task(session)
        answer(session, two[0], task, [True] * 10 + [False] * 30, tokenizer="old")
        answer(session, two[1], task, [True] * 40, tokenizer="new")
        session.expire_all()
        found = comparisons.compare(session, *two)
        assert (found.outcomes, len(found.apart)) == ([], 1)
        mixed = comparisons.compare(session, *two, mixed=True)
        assert (mixed.outcomes[0].learned, mixed.apart) == (30, [])

    def test_of_several_protocols_the_shared_one_is_taken(
        self, session: Session, two: tuple[Checkpoint, Checkpoint]
    ) -> None:
        task = make_task(session)
        finish_evaluation(session, two[0], task, 0.3, protocol={"dtype": "float32"})
        finish_evaluation(session, two[1], task, 0.4, protocol={"dtype": "float32"})
        [again] = evaluations.plan_tasks(session, two[1], [task], again=True)
        score = evaluations.Score("acc", 0.5, 0.02, 0.46, 0.54, 200)
        evaluations.finish(session, again.id, results=[score], protocol={"dtype": "bfloat16"})
        session.flush()
        session.expire_all()
        [outcome] = comparisons.compare(session, *two).outcomes
        assert outcome.found.value == pytest.approx(0.1)

    def test_a_task_that_one_of_them_was_not_asked_stands_alone(
        self, session: Session, two: tuple[Checkpoint, Checkpoint]
    ) -> None:
        finish_evaluation(session, two[1], make_task(session), 0.4)
        session.expire_all()
        found = comparisons.compare(session, *two)
        assert [one.task.name for one in found.alone] == ["zh_next_line"]
        assert found.outcomes == []

    def test_of_many_tasks_those_that_differ_by_chance_do_not_count(
        self, session: Session, two: tuple[Checkpoint, Checkpoint]
    ) -> None:
        for number in range(12):
            task = make_task(session, f"task_{number}")
            finish_evaluation(session, two[0], task, 0.5)
            finish_evaluation(session, two[1], task, 0.5 + (0.06 if number == 0 else 0.0))
        session.expire_all()
        outcomes = comparisons.compare(session, *two).outcomes
        [one] = [outcome for outcome in outcomes if outcome.found.value]
        assert one.found.p_value is not None
        assert one.corrected_p is not None
        assert one.found.p_value < 0.05 < one.corrected_p
        assert one.verdict == "within noise"

    def test_a_missing_file_falls_back_on_the_scores(
        self, session: Session, two: tuple[Checkpoint, Checkpoint]
    ) -> None:
        task = make_task(session)
        answer(session, two[0], task, [True] * 40)
        last = answer(session, two[1], task, [False] * 40)
        session.expire_all()
        [part] = evaluations.sample_paths(evaluations.get_evaluation(session, last.id))
        part.unlink()
        assert not comparisons.compare(session, *two).outcomes[0].found.is_paired

    def test_what_was_read_once_is_remembered(self, session: Session, two: tuple[Checkpoint, Checkpoint]) -> None:
        task = make_task(session)
        last = [answer(session, checkpoint, task, [True] * 20 + [False] * 20) for checkpoint in two][1]
        session.expire_all()
        before = comparisons.compare(session, *two)
        [part] = evaluations.sample_paths(evaluations.get_evaluation(session, last.id))
        part.unlink()
        assert comparisons.compare(session, *two).outcomes[0].found == before.outcomes[0].found


class TestFlips:
    def pair(self, session: Session, first: Sequence[bool], second: Sequence[bool]) -> Pair:
        run, task = make_run(session), make_task(session)
        before = answer(session, make_checkpoint(session, run, 10), task, first)
        after = answer(session, make_checkpoint(session, run, 20), task, second)
        session.expire_all()
        return Pair(evaluations.get_evaluation(session, before.id), evaluations.get_evaluation(session, after.id))

    def test_the_items_that_changed_sides(self, session: Session) -> None:
        found = comparisons.flips(self.pair(session, [True, True, False, False], [True, False, True, False]))
        assert (found.learned, found.forgotten) == ([ITEMS[2].item], [ITEMS[1].item])

    def test_what_is_not_right_or_wrong_has_none(self, session: Session) -> None:
        pair = self.pair(session, [True, False], [False, True])
        pair.after.task.metric = "prob"
        assert comparisons.flips(pair) == ([], [])


def place(step: int, amount: float) -> Place:
    return Place(step, step, amount)


class TestMeetings:
    def test_each_is_the_nearest_of_the_other(self) -> None:
        one = [place(step, step * 100) for step in range(1, 6)]
        other = [place(step, step) for step in (90, 260, 290, 9000)]  # 9000 is near to nobody
        assert [(a.step, b.step) for a, b in meetings(one, other)] == [(1, 90), (3, 290)]

    def test_the_last_is_the_largest_amount_in_common(self) -> None:
        one, other = [place(1, 100), place(2, 200), place(3, 1000)], [place(1, 110), place(2, 210)]
        assert meetings(one, other)[-1][0].amount == 200

    @pytest.mark.parametrize(("one", "other"), [([], []), ([place(1, 1)], []), ([], [place(1, 1)])])
    def test_without_amounts_there_is_none(self, one: list[Place], other: list[Place]) -> None:
        assert meetings(one, other) == []

    def test_a_checkpoint_meets_a_run_where_it_is_as_old(self) -> None:
        assert meetings([place(7, 250)], [place(1, 100), place(2, 240), place(3, 900)]) == [
            (place(7, 250), place(2, 240))
        ]


def test_places_are_those_of_the_plain_checkpoints(session: Session, tmp_path: Path) -> None:
    run = make_run(session)
    make_checkpoint(session, run, 20)
    make_checkpoint(session, run, 10)
    make_checkpoint(session, run, 30, kind="chat")
    make_checkpoint(session, run, 40, tokens_seen=None)
    assert [found.amount for found in comparisons.places(session, run)] == [10 * 4096, 20 * 4096]
    assert [found.step for found in comparisons.places(session, run, "flops")] == [10, 20, 40]
