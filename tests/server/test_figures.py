"""Numbers as pages write them."""

import pytest

from registry.models import Task
from server import figures, i18n


@pytest.mark.parametrize(
    ("metric", "value", "text"),
    [
        ("acc", 0.3417, "34.2%"),
        ("exact_match,strict-match", 0.5, "50.0%"),
        ("bits_per_byte", 1.5732, "1.573"),
        ("train/learning_rate", 0.001, "1.00e-03"),
        ("train/tokens_per_second", 5812.3, "5,812"),
        ("acc", None, "–"),
    ],
)
def test_a_value_is_written_as_its_metric_is_read(metric: str, value: float | None, text: str) -> None:
    assert figures.value_text(metric, value) == text


@pytest.mark.parametrize(
    ("metric", "change", "text"),
    [
        ("acc", 0.0231, "+2.3 points"),
        ("acc", -0.0231, "−2.3 points"),
        ("acc", -0.0001, "0.0 points"),
        ("bits_per_byte", -0.25, "−0.250"),
        ("acc", None, ""),
    ],
)
def test_a_change_has_its_sign(metric: str, change: float | None, text: str) -> None:
    assert figures.change_text(metric, change) == text


def test_an_interval_of_a_change_has_the_sign_of_each_end() -> None:
    assert figures.change_range_text("acc", -0.012, 0.034) == "−1.2 … +3.4"
    assert figures.change_range_text("bits_per_byte", None, None) == ""


@pytest.mark.parametrize(
    ("p", "text"), [(0.00001, "p < 0.001"), (0.0123, "p = 0.012"), (0.456, "p = 0.46"), (1.0, "p = 1.00"), (None, "")]
)
def test_a_p_value_is_written_as_papers_write_it(p: float | None, text: str) -> None:
    assert figures.p_text(p) == text


def test_metrics_have_names_and_a_filter_keeps_its_own() -> None:
    assert figures.metric_name("acc_norm") == "accuracy, by characters"
    assert figures.metric_name("exact_match,strict-match") == "exact matches (strict-match)"
    assert figures.metric_name("something_new") == "something_new"


def test_a_title_is_in_the_readers_language_where_there_is_one() -> None:
    task, plain = Task(title="Idioms", title_zh="成语"), Task(title="Idioms", title_zh="")
    i18n.use("zh")
    try:
        assert [figures.task_title(task), figures.task_title(plain)] == ["成语", "Idioms"]
    finally:
        i18n.use("en")
