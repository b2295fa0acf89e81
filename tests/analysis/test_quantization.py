"""Averages of what quantization costs, and whether it grows with training."""

import numpy as np
import pytest

from analysis.quantization import Cost, average, trend

TOKENS = [1e6, 3e6, 1e7, 3e7, 1e8, 3e8, 1e9]


def test_an_average_counts_each_task_alike() -> None:
    found = average([Cost(0.02, 0.03), Cost(0.04, 0.04)])
    assert found.value == pytest.approx(0.03)
    assert found.stderr == pytest.approx(0.025)
    assert found.low == pytest.approx(0.03 - 1.959964 * 0.025)
    assert found.num_tasks == 2


def test_an_error_that_nobody_knows_leaves_no_interval() -> None:
    found = average([Cost(0.02, 0.03), Cost(0.04, None)])
    assert (found.value, found.stderr, found.low, found.high) == (pytest.approx(0.03), None, None, None)
    with pytest.raises(ValueError, match="at least one"):
        average([])


def test_a_cost_that_grows_is_told_with_its_slope() -> None:
    costs = [Cost(0.01 * np.log10(at), 0.001) for at in TOKENS]
    found = trend(TOKENS, costs)
    assert found is not None
    assert found.slope == pytest.approx(0.01)
    assert (found.direction, found.num_points) == ("grows", 7)
    falling = trend(TOKENS, [Cost(-cost.value, cost.stderr) for cost in costs])
    assert falling is not None
    assert falling.direction == "shrinks"


def test_points_that_scatter_more_than_their_errors_widen_the_interval_and_never_narrow_it() -> None:
    rng = np.random.default_rng(1)
    noise = rng.normal(0, 1, len(TOKENS))
    wide = trend(TOKENS, [Cost(0.01 * one, 0.0001) for one in noise])
    calm = trend(TOKENS, [Cost(0.0, 0.01) for _ in TOKENS])
    assert wide is not None
    assert calm is not None
    assert (wide.direction, calm.direction) == ("unclear", "unclear")
    assert calm.high - calm.low > 0.01


def test_the_interval_holds_the_truth_as_often_as_it_says() -> None:
    rng = np.random.default_rng(2)
    inside = 0
    for _ in range(400):
        costs = [Cost(float(rng.normal(0.004 * np.log10(at), 0.01)), 0.01) for at in TOKENS]
        found = trend(TOKENS, costs)
        assert found is not None
        inside += found.low <= 0.004 <= found.high
    assert inside >= 0.94 * 400


def test_too_few_places_have_no_trend() -> None:
    assert trend(TOKENS[:2], [Cost(0.0, 0.1)] * 2) is None
    assert trend([0.0, 1e6, 1e6, 1e7], [Cost(0.0, 0.1)] * 4) is None
    assert trend(TOKENS[:3], [Cost(0.0, 0.1), Cost(0.0, None), Cost(0.0, 0.1)]) is None
    with pytest.raises(ValueError, match="zip"):
        trend(TOKENS, [])
