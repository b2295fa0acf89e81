"""Tasks are loaded once, checked before they are asked, and refused with a sentence that says what to mend."""

from typing import Any

import pytest

from tests.worker.own_suite import OwnSuite, questions
from worker.tasks import TaskError, load_task, prepare_task


class TestPrepare:
    def test_every_item_has_its_requests_and_its_content(self, own_suite: OwnSuite) -> None:
        prepared = prepare_task(own_suite.write("plain", questions(8)))
        assert [len(requests) for requests in prepared.requests] == [4] * 8
        first = prepared.items[0]
        assert (first.position, first.prompt, first.choices, first.target) == (0, "Question 0:", QUESTION_0, 0)
        assert len({item.item for item in prepared.items}) == 8

    def test_it_is_made_once_a_process(self, own_suite: OwnSuite) -> None:
        name = own_suite.write("plain", questions())
        assert prepare_task(name) is prepare_task(name)

    def test_an_item_keeps_its_key_when_the_prompt_changes(self, own_suite: OwnSuite) -> None:
        one = prepare_task(own_suite.write("one", questions()))
        two = prepare_task(own_suite.write("two", questions(), doc_to_text="Q: {{question}}"))
        assert [item.item for item in one.items] == [item.item for item in two.items]
        assert one.items_digest == two.items_digest
        assert one.template_digest != two.template_digest

    def test_items_carry_the_group_that_the_task_names(self, own_suite: OwnSuite) -> None:
        docs = [{**doc, "subject": "law" if at < 4 else "art"} for at, doc in enumerate(questions(8))]
        metadata = {"version": 1, "grow": {"group": "subject"}}
        prepared = prepare_task(own_suite.write("grouped", docs, metadata=metadata))
        assert [item.group for item in prepared.items] == ["law"] * 4 + ["art"] * 4

    def test_a_task_of_the_installed_library_is_found_by_its_name(self, own_suite: OwnSuite) -> None:
        with pytest.raises(TaskError, match=r"data.*arc_easy|arc_easy.*data"):
            load_task("arc_easy")  # it is known; its items would have to come from a hub, which is never asked

    @pytest.mark.parametrize(
        ("output_type", "fields"),
        [
            ("loglikelihood", {"doc_to_text": "{{question}}", "doc_to_target": "{{choices[0]}}"}),
            ("loglikelihood_rolling", {"doc_to_text": "", "doc_to_target": "{{question}}"}),
            ("generate_until", {"doc_to_text": "{{question}}", "doc_to_target": "{{choices[0]}}"}),
        ],
    )
    def test_other_kinds_of_request_have_one_an_item(
        self, own_suite: OwnSuite, output_type: str, fields: dict[str, Any]
    ) -> None:
        docs = [{"question": f"Q{at}", "choices": [f" a{at}"]} for at in range(3)]
        metric = "exact_match" if output_type == "generate_until" else "perplexity"
        if output_type.endswith("rolling"):
            metric = "bits_per_byte"
        name = own_suite.write(
            output_type, docs, output_type=output_type, doc_to_choice=None, metric_list=[{"metric": metric}], **fields
        )
        prepared = prepare_task(name)
        assert [len(requests) for requests in prepared.requests] == [1, 1, 1]
        assert prepared.output_type == output_type


QUESTION_0 = [" a0", " b0", " c0", " d0"]


class TestRefusals:
    def test_no_such_task(self, own_suite: OwnSuite) -> None:
        with pytest.raises(TaskError, match="no task 'nonsense'"):
            prepare_task("nonsense")

    def test_several_answers_to_an_item(self, own_suite: OwnSuite) -> None:
        name = own_suite.write("sampled", questions(), repeats=10)
        with pytest.raises(TaskError, match="'sampled' asks for 10 answers to each item"):
            prepare_task(name)

    def test_a_missing_data_file(self, own_suite: OwnSuite) -> None:
        name = own_suite.write("gone", questions())
        (own_suite.folder / "gone.jsonl").unlink()
        with pytest.raises(TaskError, match="data of task 'gone' is missing"):
            prepare_task(name)

    def test_a_broken_template(self, own_suite: OwnSuite) -> None:
        name = own_suite.write("broken", questions(), doc_to_text="{{question")
        with pytest.raises(TaskError, match="template of task 'broken' is broken"):
            prepare_task(name)

    def test_a_template_that_names_a_field_that_is_not_there(self, own_suite: OwnSuite) -> None:
        name = own_suite.write("field", questions(), doc_to_text="{{passage}} {{question}}")
        with pytest.raises(TaskError, match=r"template of task 'field' is broken.*passage"):
            prepare_task(name)

    def test_no_items(self, own_suite: OwnSuite) -> None:
        docs = questions(1)
        name = own_suite.write("empty", docs, process_docs=None)
        (own_suite.folder / "empty.jsonl").write_text("")
        with pytest.raises(TaskError, match="'empty'"):
            prepare_task(name)

    def test_the_same_item_twice(self, own_suite: OwnSuite) -> None:
        name = own_suite.write("twice", [*questions(3), questions(1)[0]])
        with pytest.raises(TaskError, match="same item twice, at 0 and 3"):
            prepare_task(name)

    def test_a_choice_of_one(self, own_suite: OwnSuite) -> None:
        docs = questions(3)
        docs[1] = {**docs[1], "choices": [" only"], "answer": 0}
        with pytest.raises(TaskError, match="gives item 1 a choice of 1"):
            prepare_task(own_suite.write("one", docs))

    def test_a_right_answer_that_is_no_choice(self, own_suite: OwnSuite) -> None:
        docs = questions(3)
        docs[2]["answer"] = 7
        with pytest.raises(TaskError, match="right answer to item 2"):
            prepare_task(own_suite.write("wrong", docs))

    def test_code_of_the_task_that_raises(self, own_suite: OwnSuite) -> None:
        (own_suite.folder / "reader.py").write_text("def items(**_):\n    raise RuntimeError('disk on fire')\n")
        (own_suite.folder / "code.yaml").write_text(
            "task: code\ncustom_dataset: !function reader.items\ntest_split: test\n"
            "output_type: multiple_choice\ndoc_to_text: q\ndoc_to_choice: c\ndoc_to_target: t\n"
        )
        with pytest.raises(TaskError, match=r"'code' fails.*RuntimeError.*disk on fire"):
            prepare_task("code")
