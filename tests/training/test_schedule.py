"""The learning rate over a run."""

import pytest

from training.config import Schedule
from training.schedule import learning_rate

WSD = Schedule(kind="wsd", warmup_steps=10, decay_fraction=0.2, final_fraction=0.1)
COSINE = Schedule(kind="cosine", warmup_steps=10, final_fraction=0.1)


def rates(schedule: Schedule) -> list[float]:
    return [learning_rate(schedule, step=step, max_steps=100, peak=1.0) for step in range(100)]


@pytest.mark.parametrize("schedule", [WSD, COSINE])
def test_it_warms_up_in_a_straight_line_and_never_starts_at_zero(schedule: Schedule) -> None:
    assert rates(schedule)[:10] == pytest.approx([step / 10 for step in range(1, 11)])


@pytest.mark.parametrize("schedule", [WSD, COSINE])
def test_the_last_step_has_the_final_rate(schedule: Schedule) -> None:
    assert rates(schedule)[-1] == pytest.approx(0.1)


def test_wsd_stays_at_the_top_until_its_last_fifth() -> None:
    values = rates(WSD)
    assert values[10:80] == pytest.approx([1.0] * 70)
    assert values[79:] == sorted(values[79:], reverse=True)
    assert values[89] == pytest.approx(0.55)


def test_cosine_is_half_way_down_in_the_middle() -> None:
    assert rates(COSINE)[54] == pytest.approx(0.55)


def test_a_run_shorter_than_its_warm_up_only_warms_up() -> None:
    assert learning_rate(WSD, step=3, max_steps=4, peak=1.0) == pytest.approx(0.4)
