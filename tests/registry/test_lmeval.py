"""lm-eval's files are read in each of their layouts, and nothing in them is believed."""

import json
from pathlib import Path
from typing import Any

import pytest

from registry import lmeval
from registry.errors import Invalid
from registry.lmeval import Value
from tests.registry.lmeval_files import entry, write_log, write_results


class TestResults:
    def test_a_task_with_its_log(self, tmp_path: Path) -> None:
        path = write_results(
            tmp_path,
            versions={"piqa": 1.0},
            model_source="hf",
            model_name="some/model",
            **{"n-samples": {"piqa": {"effective": 25}}, "n-shot": {"piqa": 5}},
        )
        log = write_log(tmp_path, entry(0))
        [found] = lmeval.find_results([tmp_path])
        assert (found.task, found.version, found.num_items, found.samples) == ("piqa", "1.0", 25, log)
        assert found.values == [Value("acc", 0.5, 0.1)]
        assert (found.about["engine"], found.about["model"], found.about["num_fewshot"]) == ("hf", "some/model", 5)
        assert [one.samples for one in lmeval.find_results([path])] == [None]

    def test_before_0_4_there_were_no_filters(self, tmp_path: Path) -> None:
        path = tmp_path / "gpt.json"
        path.write_text('{"results": {"piqa": {"acc": 0.75, "acc_stderr": 0.01}}, "versions": {"piqa": 0}}')
        [found] = lmeval.find_results([path])
        assert (found.version, found.num_items, found.values) == ("0", 0, [Value("acc", 0.75, 0.01)])

    def test_of_several_filters_the_first_goes_by_the_plain_name(self, tmp_path: Path) -> None:
        given = {"exact_match,strict": 0.0, "exact_match_stderr,strict": "N/A", "exact_match,flexible": 1, "alias": "x"}
        write_results(tmp_path, results={"gsm8k": given})
        [found] = lmeval.find_results([tmp_path])
        assert found.values == [Value("exact_match", 0.0, None), Value("exact_match,flexible", 1.0, None)]

    def test_groups_are_not_tasks(self, tmp_path: Path) -> None:
        results = {"mmlu": {"acc,none": 0.3}, "mmlu_law": {"acc,none": 0.3}}
        write_results(tmp_path, results=results, group_subtasks={"mmlu": ["mmlu_law"], "mmlu_law": []})
        assert [found.task for found in lmeval.find_results([tmp_path])] == ["mmlu_law"]

    def test_a_log_belongs_to_the_task_of_the_longer_name_and_to_its_time(self, tmp_path: Path) -> None:
        write_results(tmp_path, results={"iqa": {"acc,none": 1}, "p_iqa": {"acc,none": 1}})
        log = write_log(tmp_path, entry(0), task="p_iqa")
        (tmp_path / "samples_iqa_2020-01-01T00-00-00.000000.jsonl").write_text("{}")
        assert {found.task: found.samples for found in lmeval.find_results([tmp_path])} == {"iqa": None, "p_iqa": log}

    @pytest.mark.parametrize(
        "text",
        [
            "not json",
            "[]",
            "[" * 100_000,
            '{"results": {}}',
            '{"results": {"../up": {"acc,none": 1}}}',
            '{"results": {"piqa": {"acc,none": NaN}}}',
            '{"results": {"piqa": {"acc,none": 1e999}}}',
            '{"results": {"piqa": {"acc,none": "high"}}}',
            f'{{"results": {{"piqa": {{"{"m" * 60},none": 1}}}}}}',
            f'{{"results": {{"piqa": {{"acc,none": {"9" * 5000}}}}}}}',
        ],
    )
    def test_files_that_say_nothing_true_are_refused(self, tmp_path: Path, text: str) -> None:
        path = tmp_path / "results.json"
        path.write_text(text)
        with pytest.raises(Invalid):
            lmeval.find_results([path])

    def test_no_files(self, tmp_path: Path) -> None:
        write_log(tmp_path, entry(0))
        with pytest.raises(Invalid, match="no result file"):
            lmeval.find_results([tmp_path])
        with pytest.raises(Invalid, match="There is no file"):
            lmeval.find_results([tmp_path / "none"])


class TestLogs:
    def test_an_item_of_two_choices(self, tmp_path: Path) -> None:
        [found] = lmeval.read_samples(write_log(tmp_path, entry(0)))
        assert (found.contexts, found.continuations) == (["Question 0"] * 2, [" choice 0", " choice 1"])
        assert found.responses == [["-2.5", "False"], ["-1.5", "True"]]
        assert (found.target, found.scores, found.is_free) == ("1", {"acc": 1.0}, False)

    def test_from_0_4_0_to_0_4_2_a_log_was_one_json_list(self, tmp_path: Path) -> None:
        old = entry(0, arguments=[["Q", " no"], ["Q", " yes"]], resps=[[[-2.5, False]], [[-1.5, True]]])
        del old["filter"]
        (tmp_path / "results.json").write_text('{"results": {"piqa": {"acc,none": 1.0}}}')
        log = tmp_path / "pretrained__some__model_piqa.jsonl"
        log.write_text(json.dumps([old], indent=2))
        [result] = lmeval.find_results([tmp_path])
        assert result.samples == log
        [found] = lmeval.read_samples(log)
        assert (found.continuations, found.responses) == ([" no", " yes"], [[-2.5, False], [-1.5, True]])

    def test_items_by_number_and_of_the_first_filter(self, tmp_path: Path) -> None:
        others = [entry(1, filter="other", acc=0.0), entry(7), entry(7, filter="other")]
        found = lmeval.read_samples(write_log(tmp_path, entry(40), *others))
        assert [one.number for one in found] == [7, 40]

    def test_choices_that_were_asked_again_without_their_question(self, tmp_path: Path) -> None:
        doubled = entry(0)["resps"] * 2
        arguments = {f"gen_args_{at}": {"arg_0": "Q" if at < 2 else "", "arg_1": f" {at % 2}"} for at in range(4)}
        log = write_log(tmp_path, entry(0, arguments=arguments, resps=doubled, acc_mutual_info=1.0))
        assert lmeval.read_samples(log)[0].continuations == [" 0", " 1"]

    @pytest.mark.parametrize(
        "wrong",
        [
            {"resps": [[["-1.5", "False"]]]},
            {"resps": None},
            {"arguments": {}},
            {"arguments": {"gen_args_0": {"arg_0": 1}, "gen_args_1": {"arg_0": 2}}},
            {"arguments": {"gen_args_0": {"arg_0": "a"}, "gen_args_1": "b"}},
            {"arguments": "both"},
            {"doc_id": "0"},
            {"doc_id": 0},
        ],
    )
    def test_entries_that_cannot_be_are_refused(self, tmp_path: Path, wrong: dict[str, Any]) -> None:
        with pytest.raises(Invalid):
            lmeval.read_samples(write_log(tmp_path, entry(0), {**entry(1), **wrong}))

    @pytest.mark.parametrize("text", ["", "3\n", "{}\n", "[3]", '{"doc_id": 0', "\xff\n"])
    def test_files_that_are_no_logs_are_refused(self, tmp_path: Path, text: str) -> None:
        path = tmp_path / "samples_piqa.jsonl"
        path.write_bytes(text.encode("latin-1"))
        with pytest.raises(Invalid):
            lmeval.read_samples(path)


@pytest.mark.parametrize(
    ("limit", "match"),
    [
        ("MAX_RESULTS_BYTES", "larger than"),
        ("MAX_SAMPLES_BYTES", "larger than"),
        ("MAX_LINE_BYTES", "a line of more than"),
        ("MAX_ITEMS", "more than 1 items"),
        ("MAX_CHOICES", "or too many"),
        ("MAX_FILES", "more than 1 files"),
    ],
)
def test_more_than_anybody_needs_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: str, match: str
) -> None:
    log = write_log(write_results(tmp_path).parent, entry(0), entry(1))
    monkeypatch.setattr(lmeval, limit, 1)
    with pytest.raises(Invalid, match=match):
        lmeval.find_results([tmp_path]) and lmeval.read_samples(log)
