"""The metric of each item, row by row, whatever kinds of answers a table holds."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from registry import answers, samples
from registry.samples import Item, Sample

CHOICE = Sample("00000000000000a1", 0, 1, [-1.0, -1.5], [1, 2], [2, 4], [True, False])
FREE = Sample("00000000000000a2", 1, None, [], [4], [12], [], 0.5, "text", "stop")
LAST = CHOICE._replace(item="00000000000000a3", position=2, target=0)


@pytest.fixture
def table(tmp_path: Path) -> pa.Table:
    return samples.read_columns(samples.write_slice(tmp_path, 0, [CHOICE, FREE, LAST]))


def test_rows_without_log_probabilities_have_no_derived_metric(table: pa.Table) -> None:
    assert np.array_equal(answers.metric_values(table, "acc"), [0, np.nan, 1], equal_nan=True)
    assert np.array_equal(answers.metric_values(table, "acc_bytes"), [1, np.nan, 0], equal_nan=True)


def test_bits_per_byte_and_the_bytes_they_are_per(table: pa.Table) -> None:
    expected = [1.5 / np.log(2) / 4, np.nan, 1.0 / np.log(2) / 2]
    assert answers.metric_values(table, "bits_per_byte") == pytest.approx(expected, nan_ok=True)
    assert answers.right_bytes(table).tolist() == [4, 0, 2]


def test_other_metrics_are_the_scores_that_were_stored(table: pa.Table) -> None:
    assert np.array_equal(answers.metric_values(table, "exact_match"), [np.nan, 0.5, np.nan], equal_nan=True)


def test_the_stored_headline_counts_for_more_than_the_columns(table: pa.Table) -> None:
    scored = table.set_column(table.schema.get_field_index("score"), "score", pa.array([1.0, 1.0, 1.0]))
    assert answers.metric_values(scored, "acc", headline="acc").tolist() == [1, 1, 1]
    assert answers.metric_values(scored, "acc", headline="prob")[0] == 0


def test_characters_come_from_the_items(table: pa.Table) -> None:
    items = [Item(one.item, one.position, "", "", ["a", "abc"], one.target) for one in (CHOICE, LAST)]
    assert np.array_equal(answers.metric_values(table, "acc_norm", items), [1, np.nan, 0], equal_nan=True)


@pytest.mark.parametrize("metric", [*answers.DERIVED, "exact_match"])
def test_the_columns_that_a_metric_is_made_of_are_enough(table: pa.Table, metric: str) -> None:
    items = [Item(one.item, one.position, "", "", ["a", "abc"], one.target) for one in (CHOICE, LAST)]
    whole = answers.metric_values(table, metric, items)
    assert np.array_equal(answers.metric_values(table.select(answers.columns_of(metric)), metric, items), whole, True)
