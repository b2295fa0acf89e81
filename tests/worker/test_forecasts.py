"""The comparing job writes forecasts down when a score arrives, and scores those whose time has come."""

import pytest
from sqlalchemy import select

from registry import db, forecasts, ledger, runs, suites
from registry.models import Evaluation, Forecast
from tests.factories import finish_evaluation, make_checkpoint, make_run, make_task
from worker.jobs import compare


def arrive(step: int, value: float) -> int:
    """A checkpoint's score comes in and is compared; returns the evaluation's id."""
    with db.transaction() as session:
        run, task = runs.get_run(session, "demo"), suites.get_task(session, "zh_next_line")
        evaluation_id = finish_evaluation(session, make_checkpoint(session, run, step), task, value).id
    compare(evaluation_id)
    return evaluation_id


def kept() -> list[Forecast]:
    with db.read_session() as session:
        return list(session.scalars(select(Forecast).order_by(Forecast.made_step, Forecast.target_step)))


@pytest.fixture
def a_run(redis_url: str, database: object, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run and a task; its evaluations have results but no files of answers, so there are no cells to keep."""
    monkeypatch.setattr(ledger, "keep_cells", lambda *_: None)
    with db.transaction() as session:
        make_run(session)
        make_task(session)


def test_the_fifth_point_brings_the_first_forecasts_and_the_sixth_decides_one(a_run: None) -> None:
    for step in range(100, 500, 100):
        arrive(step, 0.7 - 30 / step)
    assert kept() == []
    arrive(500, 0.64)
    first = kept()
    assert [(row.horizon, row.outcome) for row in first] == [("next", None), ("half", None), ("end", None)]
    arrive(600, 0.65)
    again = {row.id: row for row in kept()}
    assert [again[row.id].outcome for row in first] == [pytest.approx(0.65), None, None]
    assert [(again[row.id].value, again[row.id].low) for row in first] == [(row.value, row.low) for row in first]


def test_comparing_again_writes_nothing_twice(a_run: None) -> None:
    for step in range(100, 600, 100):
        last = arrive(step, 0.7 - 30 / step)
    number = len(kept())
    compare(last)
    assert len(kept()) == number


def test_a_forecast_that_breaks_leaves_the_verdicts_in_place(a_run: None, monkeypatch: pytest.MonkeyPatch) -> None:
    def breaks(*_: object) -> None:
        raise ArithmeticError("no curve")

    monkeypatch.setattr(forecasts, "make", breaks)
    with pytest.raises(ArithmeticError):
        arrive(100, 0.4)
    with db.read_session() as session:
        [evaluation] = session.scalars(select(Evaluation))
        assert evaluation.is_compared
