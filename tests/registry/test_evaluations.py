"""Evaluations: planned once, recorded once, read as curves."""

import pytest
from sqlalchemy.orm import Session

from registry import evaluations, tickets
from registry.errors import Invalid, NotFound
from registry.models.base import CANCELLED, FINISHED
from tests.factories import finish_evaluation, make_checkpoint, make_run, make_task


def test_planning_twice_plans_once(session: Session) -> None:
    make_task(session, "a")
    make_task(session, "b", retired=True)
    checkpoint = make_checkpoint(session, make_run(session))
    assert len(evaluations.plan(session, checkpoint)) == 1
    assert evaluations.plan(session, checkpoint) == []
    assert tickets.num_queued(session) == 1


def test_a_finished_evaluation_stays_as_it_is(session: Session) -> None:
    task = make_task(session)
    checkpoint = make_checkpoint(session, make_run(session))
    done = finish_evaluation(session, checkpoint, task, 0.5)
    evaluations.finish(
        session, done.id, results=[], protocol={}, num_items=0, engine_seconds=0, samples_file="other.parquet"
    )
    session.flush()
    session.expunge_all()
    [read] = evaluations.for_checkpoint(session, checkpoint)
    assert (read.status, read.num_items, [r.value for r in read.results]) == (FINISHED, 200, [0.5])


def test_rejecting_a_checkpoint_drops_what_is_open(session: Session) -> None:
    make_task(session)
    checkpoint = make_checkpoint(session, make_run(session))
    [evaluation] = evaluations.plan(session, checkpoint)
    evaluations.cancel_for(session, checkpoint)
    assert evaluation.status == CANCELLED
    assert tickets.num_queued(session) == 0


class TestGrowthSeries:
    def test_orders_by_step_and_keeps_other_kinds_apart(self, session: Session) -> None:
        task, run = make_task(session), make_run(session)
        for step, value in ((20, 0.6), (10, 0.4)):
            finish_evaluation(session, make_checkpoint(session, run, step), task, value)
        finish_evaluation(session, make_checkpoint(session, run, 15, kind="chat"), task, 0.9)
        series = evaluations.growth_series(session, run, task)
        assert [(p.step, p.value, p.x) for p in series.points] == [(10, 0.4, 40960), (20, 0.6, 81920)]
        assert series.metric == "acc"
        assert all(p.low is not None and p.low < p.value for p in series.points)

    @pytest.mark.parametrize(("x", "at"), [("tokens", 40960), ("step", 10), ("flops", 1e10)])
    def test_offers_several_axes(self, session: Session, x: str, at: float) -> None:
        task, run = make_task(session), make_run(session)
        finish_evaluation(session, make_checkpoint(session, run, 10), task, 0.4)
        assert [p.x for p in evaluations.growth_series(session, run, task, x=x).points] == [at]

    def test_time_counts_from_the_start_of_the_run(self, session: Session) -> None:
        task, run = make_task(session), make_run(session)
        finish_evaluation(session, make_checkpoint(session, run, 10), task, 0.4)
        [point] = evaluations.growth_series(session, run, task, x="time").points
        assert 0 <= point.x < 60

    def test_a_checkpoint_of_unknown_age_is_left_out_of_the_token_axis_only(self, session: Session) -> None:
        task, run = make_task(session), make_run(session)
        finish_evaluation(session, make_checkpoint(session, run, 10, tokens_seen=None), task, 0.4)
        assert evaluations.growth_series(session, run, task).points == []
        assert len(evaluations.growth_series(session, run, task, x="step").points) == 1

    def test_an_unknown_axis_or_metric_is_told_with_what_exists(self, session: Session) -> None:
        task, run = make_task(session), make_run(session)
        with pytest.raises(Invalid, match="tokens, step, flops, time"):
            evaluations.growth_series(session, run, task, x="moon")
        with pytest.raises(NotFound, match="Metrics: acc"):
            evaluations.growth_series(session, run, task, metric="vibes")

    def test_a_metric_known_but_without_points_here_is_an_empty_curve(self, session: Session) -> None:
        task = make_task(session)
        finish_evaluation(session, make_checkpoint(session, make_run(session)), task, 0.4)
        assert evaluations.growth_series(session, make_run(session, "other"), task).points == []


def test_progress_counts_statuses_for_each_checkpoint(session: Session) -> None:
    task, run = make_task(session), make_run(session)
    make_task(session, "b")
    checkpoint = make_checkpoint(session, run)
    finish_evaluation(session, checkpoint, task, 0.4)
    assert evaluations.progress(session, run) == {checkpoint.id: {"finished": 1, "queued": 1}}


class TestRunSeries:
    def test_it_is_every_headline_curve_and_equals_the_single_ones(self, session: Session) -> None:
        run = make_run(session)
        tasks = [make_task(session, "a", position=1), make_task(session, "b", position=2)]
        make_task(session, "probe", metric="", is_probe=True)
        for step, value in ((10, 0.3), (20, 0.4)):
            checkpoint = make_checkpoint(session, run, step)
            for task in tasks:
                finish_evaluation(session, checkpoint, task, value)
        assert evaluations.run_series(session, run, "step") == [
            evaluations.growth_series(session, run, task, x="step") for task in tasks
        ]

    def test_a_task_without_results_is_an_empty_curve(self, session: Session) -> None:
        make_task(session)
        [series] = evaluations.run_series(session, make_run(session))
        assert series.points == []

    def test_an_unknown_axis_is_refused(self, session: Session) -> None:
        with pytest.raises(Invalid, match="tokens, step, flops, time"):
            evaluations.run_series(session, make_run(session), "moon")


def test_a_probe_has_no_curve(session: Session) -> None:
    task = make_task(session, "probe", metric="", is_probe=True)
    make_task(session, "scored")
    with pytest.raises(NotFound, match="Tasks with one: scored"):
        evaluations.growth_series(session, make_run(session), task)
