"""Logged answers become our items and samples, and those of a kind that cannot be are refused."""

from pathlib import Path
from typing import Any

import pytest

from registry import lmeval, transcripts
from registry.errors import Invalid
from registry.transcripts import Transcript
from tests.registry.lmeval_files import entry, write_log, write_results


def convert(folder: Path, *entries: dict[str, Any], config: dict[str, Any] | None = None) -> Transcript:
    write_log(write_results(folder, configs={"piqa": config or {}}).parent, *entries)
    [result] = lmeval.find_results([folder])
    assert result.samples is not None
    return transcripts.convert(result, lmeval.read_samples(result.samples), "acc")


def test_choices_without_the_delimiter_before_them(tmp_path: Path) -> None:
    found = convert(tmp_path, entry(0))
    [item], [sample] = found.items, found.samples
    assert (item.prompt, item.choices, item.target) == ("Question 0", ["choice 0", "choice 1"], 1)
    assert (sample.sum_logprob, sample.is_greedy) == ([-2.5, -1.5], [False, True])
    assert (sample.num_bytes, sample.num_tokens, sample.score) == ([8, 8], [0, 0], 1.0)
    assert sample.item == item.item == transcripts.item_key({"goal": "Question 0"})


def test_a_task_with_another_delimiter_keeps_the_space(tmp_path: Path) -> None:
    assert convert(tmp_path, entry(0), config={"target_delimiter": ""}).items[0].choices == [" choice 0", " choice 1"]


def test_right_choices_by_their_text(tmp_path: Path) -> None:
    found = convert(tmp_path, entry(0, target="choice 1"), entry(1, target="choice 0", acc=0.0))
    assert [item.target for item in found.items] == [1, 0]


def test_no_right_choice_where_the_logged_accuracy_contradicts_it(tmp_path: Path) -> None:
    assert [item.target for item in convert(tmp_path, entry(0), entry(1, acc=0.0)).items] == [None, None]


def test_some_items_of_a_task_are_numbered_anew(tmp_path: Path) -> None:
    found = convert(tmp_path, entry(40), entry(7))
    assert [(item.position, item.prompt) for item in found.items] == [(0, "Question 7"), (1, "Question 40")]


def test_a_text_and_a_lone_continuation_have_no_right_choice(tmp_path: Path) -> None:
    text = {"arguments": {"gen_args_0": {"arg_0": "从前"}}, "resps": [["-3.5"]], "acc": None}
    found = convert(tmp_path, entry(0, **text))
    assert (found.kind, found.items[0].prompt, found.items[0].choices) == ("text", "", ["从前"])
    assert (found.samples[0].num_bytes, found.samples[0].sum_logprob) == ([6], [-3.5])
    one = {"arguments": {"gen_args_0": {"arg_0": "Once upon a", "arg_1": " time"}}, "resps": [[["-0.5", "True"]]]}
    found = convert(tmp_path, entry(0, **one))
    assert (found.kind, found.items[0].choices, found.items[0].target) == ("continuation", [" time"], None)


def test_a_free_answer_keeps_its_text(tmp_path: Path) -> None:
    arguments = {"gen_args_0": {"arg_0": "1+1=", "arg_1": {"until": ["\n"]}}}
    found = convert(tmp_path, entry(0, arguments=arguments, resps=[["It is 2."]], target="2"))
    assert (found.kind, found.items[0].answer) == ("free", "2")
    assert (found.samples[0].text, found.samples[0].num_bytes, found.samples[0].score) == ("It is 2.", [8], 1.0)


def test_groups_are_those_that_the_task_names(tmp_path: Path) -> None:
    config = {"metadata": {"grow": {"group": "goal"}}}
    assert convert(tmp_path, entry(0), config=config).items[0].group == "Question 0"
    assert convert(tmp_path, entry(0)).items[0].group == ""


@pytest.mark.parametrize("value", ["NaN", "-inf", "-1e30", "0.5", "", "low", None, [], True])
def test_a_log_probability_that_is_none_is_refused(tmp_path: Path, value: Any) -> None:
    with pytest.raises(Invalid, match="log-probability"):
        convert(tmp_path, entry(0, resps=[[[value, "False"]], [["-1.5", "True"]]]))


def test_items_of_two_kinds_are_refused(tmp_path: Path) -> None:
    text = {"arguments": {"gen_args_0": {"arg_0": "a text"}}, "resps": [["-3.5"]]}
    with pytest.raises(Invalid, match="not of one kind"):
        convert(tmp_path, entry(0), entry(1, **text))
