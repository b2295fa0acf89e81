"""Which revisions of a repository are checkpoints, and where each belongs."""

import pytest

from registry import hubimport
from registry.errors import Invalid
from registry.hubimport import Wanted

SHA = "a" * 40


def chosen(names: list[str], pattern: str = "*") -> list[tuple[str, str, int]]:
    """The revisions, runs and steps."""
    listed = hubimport.choose([(name, SHA) for name in names], Wanted.make("lab/Model_X", pattern=pattern))
    return [(one.revision, one.run, one.step) for one in listed.chosen]


def test_revisions_come_in_the_order_of_their_steps() -> None:
    names = ["step1000", "main", "step143000", "step2"]
    assert chosen(names) == [("step2", "model_x", 2), ("step1000", "model_x", 1000), ("step143000", "model_x", 143_000)]
    listed = hubimport.choose([(name, SHA) for name in names], Wanted.make("lab/m"))
    assert listed.left_out == ["main"]
    assert chosen(names, "step1*") == [("step1000", "model_x", 1000), ("step143000", "model_x", 143_000)]


def test_stages_that_count_on_are_one_run_and_stages_that_count_anew_are_several() -> None:
    on = ["stage1-step-40000", "stage2-step-3480000", "it-SFT"]
    assert [run for _, run, _ in chosen(on)] == ["model_x", "model_x"]
    anew = ["stage1-step1000-tokens5B", "stage1-step2000-tokens9B", "stage2-step1000-tokens3B"]
    assert [(run, step) for _, run, step in chosen(anew)] == [
        ("model_x", 1000),
        ("model_x", 2000),
        ("model_x-stage2", 1000),
    ]


def test_of_two_for_one_step_the_first_is_taken() -> None:
    listed = hubimport.choose(
        [("stage1-ingredient1-step5", SHA), ("stage1-ingredient2-step5", SHA)], Wanted.make("lab/m")
    )
    assert [one.revision for one in listed.chosen] == ["stage1-ingredient1-step5"]
    assert listed.left_out == ["stage1-ingredient2-step5"]


def test_a_chat_model_stands_beside_the_pretrained_one_and_small_forms_are_left_out() -> None:
    named = [(name, SHA) for name in ("step-5", "step-5-chat", "step-5-4bit", "step-5-8bit", "step-5-avg3")]
    listed = hubimport.choose(named, Wanted.make("lab/m"))
    assert [(one.revision, one.kind) for one in listed.chosen] == [("step-5", "pretrained"), ("step-5-chat", "chat")]
    assert listed.left_out == ["step-5-4bit", "step-5-8bit", "step-5-avg3"]


@pytest.mark.parametrize(("run", "endpoint"), [("A B", ""), ("x", "file:///etc"), ("x", "site"), ("", "ftp://x")])
def test_what_cannot_be_asked(run: str, endpoint: str) -> None:
    with pytest.raises(Invalid):
        Wanted.make("lab/m" if run else "lab/-", endpoint=endpoint, run=run)
