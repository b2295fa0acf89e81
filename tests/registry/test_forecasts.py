"""Forecasts are made when a run has grown, kept as they were, and scored when their time comes."""

import pytest
from sqlalchemy import select
from sqlalchemy.orm import Session

from registry import changes, forecasts, runs
from registry.forecasts import DOUBLE, END, HALF, NEXT, Score
from registry.models import Evaluation, Forecast, Run, Task
from tests.factories import finish_evaluation, make_checkpoint, make_run, make_task


def score_at(step: int) -> float:
    return 0.8 - 0.5 * (step / 100) ** -0.5


def arrive(session: Session, run: Run, task: Task, step: int, value: float | None = None) -> list[Forecast]:
    """A checkpoint's score comes in, and the comparing job foretells."""
    score = score_at(step) if value is None else value
    evaluation = finish_evaluation(session, make_checkpoint(session, run, step), task, score)
    return foretell(session, evaluation)


def foretell(session: Session, evaluation: Evaluation) -> list[Forecast]:
    session.flush()
    session.expire_all()
    loaded = changes.load(session, evaluation.id)
    assert loaded is not None
    made = forecasts.make(session, loaded)
    forecasts.keep(session, made)
    forecasts.score(session, loaded)
    return made


def kept(session: Session) -> list[Forecast]:
    return list(session.scalars(select(Forecast).order_by(Forecast.made_step, Forecast.target_step)))


def test_where_a_curve_goes_is_written_down_for_four_places(session: Session) -> None:
    task, run = make_task(session), make_run(session)
    for step in range(100, 600, 100):
        made = arrive(session, run, task, step)
    assert [(row.horizon, row.target_step) for row in made] == [(NEXT, 600), (HALF, 800), (END, 1000)]
    row = made[0]
    assert (row.task, row.metric, row.made_step, row.made_tokens) == (task.name, "acc", 500, 500 * 4096)
    assert (row.target_tokens, row.outcome) == (600 * 4096, None)
    assert row.low <= score_at(600) <= row.high
    assert kept(session) == made


def test_four_points_are_too_few(session: Session) -> None:
    task, run = make_task(session), make_run(session)
    assert [arrive(session, run, task, step) for step in (100, 200, 300, 400)] == [[]] * 4


def test_without_a_planned_end_twice_the_tokens_is_the_furthest(session: Session) -> None:
    task, run = make_task(session), make_run(session, max_steps=None)
    for step in range(100, 600, 100):
        made = arrive(session, run, task, step)
    assert [(row.horizon, row.target_step) for row in made] == [(NEXT, 600), (HALF, 800), (DOUBLE, 1000)]


def test_a_forecast_never_changes_and_is_scored_when_its_time_comes(session: Session) -> None:
    task, run = make_task(session), make_run(session)
    for step in range(100, 600, 100):
        first = arrive(session, run, task, step)
    before = [(row.value, row.low, row.high) for row in first]
    arrive(session, run, task, 600)
    assert [row.outcome for row in first] == [pytest.approx(score_at(600)), None, None]
    assert first[0].low <= score_at(600) <= first[0].high
    arrive(session, run, task, 700)
    arrive(session, run, task, 800, 0.2)
    assert (first[1].outcome, first[1].outcome_step) == (pytest.approx(0.2), 800)
    assert first[1].low > 0.2
    assert [(row.value, row.low, row.high) for row in first] == before
    assert first[2].outcome is None


def test_a_point_before_its_aim_does_not_decide_a_forecast(session: Session) -> None:
    task, run = make_task(session), make_run(session)
    for step in range(100, 600, 100):
        first = arrive(session, run, task, step)
    arrive(session, run, task, 580)
    assert first[0].outcome is None
    arrive(session, run, task, 610)
    assert first[0].outcome_step == 610


def test_what_was_never_measured_near_its_aim_waits_no_longer(session: Session) -> None:
    task, run = make_task(session), make_run(session)
    for step in range(100, 600, 100):
        first = arrive(session, run, task, step)
    assert forecasts.num_waiting(session, run) == 3
    arrive(session, run, task, 700)
    assert (first[0].outcome, first[0].outcome_step) == (None, 700)
    made_later = [row for row in kept(session) if row.made_step == 700]
    assert forecasts.num_waiting(session, run) == 2 + len(made_later)
    assert forecasts.coverage(session, run) == {}


def test_a_late_score_near_its_aim_decides_it_after_all(session: Session) -> None:
    task, run = make_task(session), make_run(session)
    for step in range(100, 600, 100):
        first = arrive(session, run, task, step)
    arrive(session, run, task, 700)
    arrive(session, run, task, 600)
    assert (first[0].outcome, first[0].outcome_step) == (pytest.approx(score_at(600)), 600)


def test_a_run_that_has_hardly_grown_is_not_forecast_again(session: Session) -> None:
    task, run = make_task(session), make_run(session)
    for step in range(100, 600, 100):
        arrive(session, run, task, step)
    assert arrive(session, run, task, 510) == []
    assert arrive(session, run, task, 530) != []


def test_the_same_arrival_twice_writes_nothing_twice(session: Session) -> None:
    task, run = make_task(session), make_run(session)
    for step in range(100, 500, 100):
        arrive(session, run, task, step)
    evaluation = finish_evaluation(session, make_checkpoint(session, run, 500), task, 0.5)
    made = foretell(session, evaluation)
    assert foretell(session, evaluation) == []
    again = [
        Forecast(**{c.key: getattr(row, c.key) for c in Forecast.__table__.columns if c.key != "id"}) for row in made
    ]
    forecasts.keep(session, again)
    assert len(kept(session)) == len(made)


def test_an_earlier_checkpoint_that_is_scored_late_foretells_nothing(session: Session) -> None:
    task, run = make_task(session), make_run(session)
    for step in range(200, 800, 100):
        arrive(session, run, task, step)
    assert arrive(session, run, task, 150) == []


def test_held_out_losses_are_forecast_beside_the_task(session: Session) -> None:
    task, run = make_task(session), make_run(session)
    for step in range(20, 520, 20):
        values = {"heldout/loss_zh": 3 + 4 * step**-0.4, "train/loss": 5.0}
        runs.log_metrics(session, run, step, step * 4096, values)
    made = arrive(session, run, task, 500)
    assert {(row.task, row.metric) for row in made} == {("", "heldout/loss_zh")}
    assert [(row.horizon, row.target_step) for row in made] == [(NEXT, 520), (HALF, 760), (END, 1000)]
    runs.log_metrics(session, run, 520, 520 * 4096, {"heldout/loss_zh": 3 + 4 * 520**-0.4})
    arrive(session, run, task, 520)
    assert made[0].outcome is not None
    assert made[0].low <= made[0].outcome <= made[0].high


def test_a_chat_model_is_no_point_of_the_curve(session: Session) -> None:
    task, run = make_task(session), make_run(session)
    for step in range(100, 600, 100):
        arrive(session, run, task, step)
    chat = finish_evaluation(session, make_checkpoint(session, run, 900, kind="chat"), task, 0.5)
    assert foretell(session, chat) == []


def test_coverage_counts_what_came_due_by_horizon(session: Session) -> None:
    run = make_run(session)
    other = make_run(session, "other")
    rows = [
        (run, NEXT, 0.5, 0.50),
        (run, NEXT, 0.5, 0.95),
        (run, NEXT, 0.5, None),
        (run, END, 0.5, 0.59),
        (other, END, 0.5, 0.0),
    ]
    for number, (owner, horizon, value, outcome) in enumerate(rows):
        session.add(make_forecast(owner, number, horizon, value, outcome))
    session.flush()
    assert forecasts.coverage(session, run) == {NEXT: Score(2, 1), END: Score(1, 1)}
    assert forecasts.coverage(session) == {NEXT: Score(2, 1), END: Score(2, 1)}
    assert forecasts.num_waiting(session, run) == 1


def test_the_worst_misses_come_first(session: Session) -> None:
    run = make_run(session)
    for number, outcome in enumerate((0.62, 0.1, 0.55, 0.9)):
        session.add(make_forecast(run, number, NEXT, 0.5, outcome))
    session.flush()
    assert [row.outcome for row in forecasts.worst_misses(session, run)] == [0.1, 0.9, 0.62]


def make_forecast(run: Run, number: int, horizon: str, value: float, outcome: float | None) -> Forecast:
    return Forecast(
        run_id=run.id,
        task="a_task",
        metric="acc",
        protocol_key="key",
        horizon=horizon,
        made_step=number,
        made_tokens=number,
        target_step=number + 1,
        target_tokens=number + 1,
        value=value,
        low=value - 0.1,
        high=value + 0.1,
        method="power law",
        outcome=outcome,
    )
