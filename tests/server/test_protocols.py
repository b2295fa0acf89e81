"""Protocols in words."""

from sqlalchemy.orm import Session

from registry import curves
from server import i18n, protocols
from tests.factories import finish_evaluation, make_checkpoint, make_run, make_task
from tests.server.answers import OLD_PROTOCOL, PROTOCOL


def test_the_summary_names_engine_number_format_and_examples() -> None:
    assert protocols.summary(PROTOCOL) == "vllm 0.32.0 · bfloat16 · 0-shot"
    assert protocols.summary({"source": "lm-eval 0.4.8", "imported": True}) == "lm-eval 0.4.8"
    assert protocols.summary({}) == ""


def test_a_difference_names_each_field_with_both_values() -> None:
    text = protocols.difference_text(OLD_PROTOCOL, PROTOCOL)
    assert text == "engine version 0.31.0, now 0.32.0; number format float32, now bfloat16"


def test_of_a_digest_only_that_it_differs_is_said() -> None:
    assert protocols.difference_text(PROTOCOL | {"template": "ffff"}, PROTOCOL) == "prompt template"


def test_what_numbers_do_not_depend_on_is_no_difference() -> None:
    assert protocols.difference_text(PROTOCOL | {"revision": "older"}, PROTOCOL) == ""


def test_the_table_begins_with_what_numbers_depend_on() -> None:
    fields = protocols.table({"revision": "4f0c2a9", "own_field": 1, "num_fewshot": 5, "chat_template": False})
    assert [(field.name, field.value, field.is_identity) for field in fields] == [
        ("examples in the prompt", "5", True),
        ("chat template", "no", True),
        ("code revision", "4f0c2a9", False),
        ("own_field", "1", False),
    ]


def test_words_are_in_the_readers_language() -> None:
    i18n.use("zh")
    try:
        assert protocols.difference_text(OLD_PROTOCOL, PROTOCOL).startswith("引擎版本 0.31.0，现为 0.32.0；")
    finally:
        i18n.use("en")


def test_the_protocol_of_every_line_is_found(session: Session) -> None:
    task, run = make_task(session), make_run(session)
    for step, protocol in ((10, OLD_PROTOCOL), (20, PROTOCOL)):
        finish_evaluation(session, make_checkpoint(session, run, step), task, 0.4, protocol=protocol)
    series = curves.growth_series(session, run, task)
    found = protocols.of_series(session, [series])
    assert [found[line[0].protocol_key]["engine_version"] for line in series.lines] == ["0.31.0", "0.32.0"]
    assert protocols.of_series(session, []) == {}
