"""Growth curves: by step, on several axes, a line for each protocol."""

import pytest
from sqlalchemy.orm import Session

from registry import curves
from registry.errors import Invalid, NotFound
from tests.factories import finish_evaluation, make_checkpoint, make_run, make_task


class TestGrowthSeries:
    def test_orders_by_step_and_keeps_other_kinds_apart(self, session: Session) -> None:
        task, run = make_task(session), make_run(session)
        for step, value in ((20, 0.6), (10, 0.4)):
            finish_evaluation(session, make_checkpoint(session, run, step), task, value)
        finish_evaluation(session, make_checkpoint(session, run, 15, kind="chat"), task, 0.9)
        series = curves.growth_series(session, run, task)
        assert [(p.step, p.value, p.x) for p in series.points] == [(10, 0.4, 40960), (20, 0.6, 81920)]
        assert series.metric == "acc"
        assert all(p.low is not None and p.low < p.value for p in series.points)

    @pytest.mark.parametrize(("x", "at"), [("tokens", 40960), ("step", 10), ("flops", 1e10)])
    def test_offers_several_axes(self, session: Session, x: str, at: float) -> None:
        task, run = make_task(session), make_run(session)
        finish_evaluation(session, make_checkpoint(session, run, 10), task, 0.4)
        assert [p.x for p in curves.growth_series(session, run, task, x=x).points] == [at]

    def test_time_counts_from_the_start_of_the_run(self, session: Session) -> None:
        task, run = make_task(session), make_run(session)
        finish_evaluation(session, make_checkpoint(session, run, 10), task, 0.4)
        [point] = curves.growth_series(session, run, task, x="time").points
        assert 0 <= point.x < 60

    def test_a_checkpoint_of_unknown_age_is_left_out_of_the_token_axis_only(self, session: Session) -> None:
        task, run = make_task(session), make_run(session)
        finish_evaluation(session, make_checkpoint(session, run, 10, tokens_seen=None), task, 0.4)
        assert curves.growth_series(session, run, task).points == []
        assert len(curves.growth_series(session, run, task, x="step").points) == 1

    def test_an_unknown_axis_or_metric_is_told_with_what_exists(self, session: Session) -> None:
        task, run = make_task(session), make_run(session)
        with pytest.raises(Invalid, match="tokens, step, flops, time"):
            curves.growth_series(session, run, task, x="moon")
        with pytest.raises(NotFound, match="Metrics: acc"):
            curves.growth_series(session, run, task, metric="vibes")

    def test_a_metric_known_but_without_points_here_is_an_empty_curve(self, session: Session) -> None:
        task = make_task(session)
        finish_evaluation(session, make_checkpoint(session, make_run(session)), task, 0.4)
        assert curves.growth_series(session, make_run(session, "other"), task).points == []


class TestLines:
    def test_a_changed_protocol_begins_another_line(self, session: Session) -> None:
        task, run = make_task(session), make_run(session)
        for step, engine in ((10, "old"), (20, "old"), (30, "new")):
            finish_evaluation(session, make_checkpoint(session, run, step), task, 0.4, protocol={"engine": engine})
        lines = curves.growth_series(session, run, task, x="step").lines
        assert [[point.step for point in line] for line in lines] == [[10, 20], [30]]

    def test_what_is_only_told_about_a_protocol_begins_none(self, session: Session) -> None:
        task, run = make_task(session), make_run(session)
        for step, revision in ((10, "a1"), (20, "b2")):
            protocol = {"engine": "x", "revision": revision}
            finish_evaluation(session, make_checkpoint(session, run, step), task, 0.4, protocol=protocol)
        assert len(curves.growth_series(session, run, task).lines) == 1

    def test_an_older_version_of_a_task_stays_on_the_chart_as_a_line_of_its_own(self, session: Session) -> None:
        run = make_run(session)
        old = make_task(session, "a", version="1")
        finish_evaluation(session, make_checkpoint(session, run, 10), old, 0.4, protocol={"task_version": "1"})
        old.retired = True
        new = make_task(session, "a", version="2")
        finish_evaluation(session, make_checkpoint(session, run, 20), new, 0.5, protocol={"task_version": "2"})
        series = curves.growth_series(session, run, new, x="step")
        assert [[point.step for point in line] for line in series.lines] == [[10], [20]]

    def test_imported_points_say_so(self, session: Session) -> None:
        task, run = make_task(session), make_run(session)
        protocol = {"source": "lm-eval", "imported": True}
        finish_evaluation(session, make_checkpoint(session, run, 10), task, 0.4, protocol=protocol)
        assert [point.is_imported for point in curves.growth_series(session, run, task).points] == [True]


def test_a_probe_has_no_curve(session: Session) -> None:
    task = make_task(session, "probe", metric="", is_probe=True)
    make_task(session, "scored")
    with pytest.raises(NotFound, match="Tasks with one: scored"):
        curves.growth_series(session, make_run(session), task)
