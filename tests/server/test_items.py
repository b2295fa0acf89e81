"""The answers of one evaluation, item by item."""

import pytest
from sqlalchemy import select

from registry import db, evaluations
from registry.errors import Invalid, NotFound
from registry.models import Evaluation, Result, Task
from registry.models.base import FINISHED
from server import items
from server.items import PAGE_ITEMS
from tests.server.answers import NUM_ITEMS

pytestmark = pytest.mark.usefixtures("seeded")


def newest(task: str) -> Evaluation:
    """The newest finished evaluation of a task that was not imported."""
    with db.read_session() as session:
        query = select(Evaluation.id).join(Evaluation.task).where(Task.name == task, Evaluation.status == FINISHED)
        newest_id = session.scalars(query.where(Evaluation.slices.any()).order_by(Evaluation.id.desc())).first()
        assert newest_id is not None
        return evaluations.get_evaluation(session, newest_id)


def headline(evaluation: Evaluation) -> float:
    with db.read_session() as session:
        query = select(Result.value).where(Result.evaluation_id == evaluation.id)
        value = session.scalar(query.where(Result.metric == evaluation.task.metric))
        assert value is not None
        return value


class TestBrowse:
    @pytest.mark.parametrize("task", ["zh_next_line", "code_next_line", "zh_pairs", "sums"])
    def test_the_share_of_right_items_is_the_score(self, task: str) -> None:
        evaluation = newest(task)
        page = items.browse(evaluation, "all", 1)
        assert page.error == ""
        assert page.num_right + page.num_wrong == page.num_all == NUM_ITEMS
        assert page.num_right / page.num_all == pytest.approx(headline(evaluation))

    def test_a_choice_has_its_probability_and_the_right_one_is_marked(self) -> None:
        row = items.browse(newest("zh_next_line"), "right", 1).rows[0]
        assert sum(choice.probability for choice in row.choices) == pytest.approx(1)
        [target] = [choice for choice in row.choices if choice.is_target]
        assert target.is_chosen
        assert target.text.strip()

    def test_a_wrong_one_shows_what_was_chosen_instead(self) -> None:
        for row in items.browse(newest("zh_next_line"), "wrong", 1).rows:
            assert row.is_right is False
            assert not any(choice.is_target and choice.is_chosen for choice in row.choices)

    def test_pages_hold_fifty_items_and_the_last_the_rest(self) -> None:
        evaluation = newest("zh_next_line")
        first, last = items.browse(evaluation, "all", 1), items.browse(evaluation, "all", 3)
        assert (len(first.rows), first.first, first.num_pages) == (PAGE_ITEMS, 1, 3)
        assert (len(last.rows), last.first) == (NUM_ITEMS - 2 * PAGE_ITEMS, 101)
        assert items.browse(evaluation, "all", 99).page == 3

    def test_of_a_long_prompt_the_end_is_shown(self) -> None:
        row = items.browse(newest("code_next_line"), "all", 1).rows[0]
        assert row.prompt.startswith("…")
        assert row.whole_prompt.endswith(row.prompt[1:])

    def test_a_free_answer_stands_beside_the_right_one(self) -> None:
        right = items.browse(newest("sums"), "right", 1).rows[0]
        assert right.is_free
        assert right.text.strip() == right.gold
        assert right.choices == []

    def test_a_text_has_bits_and_is_neither_right_nor_wrong(self) -> None:
        page = items.browse(newest("zh_bits"), "all", 1)
        assert (page.num_right, page.num_wrong, page.rows[0].is_right) == (0, 0, None)
        assert page.rows[0].score.endswith("bits per byte")
        assert page.rows[0].text

    def test_an_open_evaluation_has_no_items_yet(self) -> None:
        evaluation = newest("zh_bits")
        evaluation.status = "running"
        assert "once the evaluation is finished" in items.browse(evaluation, "all", 1).error

    def test_imported_results_may_have_none(self) -> None:
        with db.read_session() as session:
            query = select(Evaluation.id).where(~Evaluation.slices.any(), Evaluation.status == FINISHED)
            imported = evaluations.get_evaluation(session, session.scalars(query).first() or 0)
        assert "Only the results were imported" in items.browse(imported, "all", 1).error

    def test_a_missing_file_is_told_in_a_sentence(self) -> None:
        evaluation = newest("zh_next_line")
        evaluations.sample_paths(evaluation)[0].unlink()
        assert "There is no sample file" in items.browse(evaluation, "all", 1).error

    def test_a_file_of_another_format_is_told_in_a_sentence(self) -> None:
        evaluation = newest("zh_next_line")
        evaluations.sample_paths(evaluation)[0].write_bytes(b"an older format")
        assert "is no sample file" in items.browse(evaluation, "all", 1).error


class TestAnswered:
    def test_missing_files_are_refused(self) -> None:
        evaluation = newest("zh_next_line")
        evaluations.items_path(evaluation).unlink()
        with pytest.raises(NotFound):
            items.answered(evaluation)

    def test_broken_files_are_refused(self) -> None:
        evaluation = newest("zh_next_line")
        evaluations.items_path(evaluation).write_bytes(b"x")
        with pytest.raises(Invalid):
            items.answered(evaluation)

    def test_every_answer_has_its_item(self) -> None:
        for one in items.answered(newest("zh_next_line")):
            assert one.item is not None
            assert one.item.item == one.sample.item
