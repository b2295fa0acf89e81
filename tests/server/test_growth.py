"""What pages say about a run."""

import datetime as dt

from sqlalchemy.orm import Session

from registry import checkpoints, curves, evaluations, fingerprints, runs
from registry.models import Run, Task
from registry.models.base import FINISHED, utcnow
from server import growth
from server.charts import Chart
from tests.factories import finish_evaluation, make_checkpoint, make_run, make_task


class TestAge:
    def test_a_run_that_has_not_begun(self, session: Session) -> None:
        age = growth.age_of(session, make_run(session))
        assert (age.exists, age.step, age.tokens_seen, age.newest) == (False, 0, 0, None)

    def test_the_newest_of_log_and_checkpoints_counts(self, session: Session) -> None:
        run = make_run(session)
        make_checkpoint(session, run, 100)
        runs.log_metrics(session, run, 250, 250 * 4096, {"train/loss": 3.0})
        age = growth.age_of(session, run)
        assert (age.step, age.tokens_seen, age.share) == (250, 250 * 4096, 0.25)

    def test_scores_done_and_to_come(self, session: Session) -> None:
        run, task = make_run(session), make_task(session)
        make_task(session, "other")
        finish_evaluation(session, make_checkpoint(session, run, 1), task, 0.3)
        age = growth.age_of(session, run)
        assert (age.num_done, age.num_open) == (1, 1)

    def test_a_run_is_live_while_it_is_heard_from(self, session: Session) -> None:
        run = make_run(session)
        assert growth.age_of(session, run).is_live
        run.heartbeat_at = utcnow() - dt.timedelta(minutes=10)
        assert not growth.age_of(session, run).is_live
        runs.set_status(session, run, FINISHED)
        assert not growth.age_of(session, run).is_live


def test_addresses_of_checkpoints_name_what_is_unusual(session: Session) -> None:
    run = make_run(session)
    assert growth.checkpoint_href(make_checkpoint(session, run, 5)) == "/runs/demo/checkpoints/5"
    chat = make_checkpoint(session, run, 5, kind="chat")
    assert growth.checkpoint_href(chat) == "/runs/demo/checkpoints/5?kind=chat"


class TestCharts:
    def chart(self, session: Session, run: Run, task: Task) -> Chart:
        [made] = growth.growth_charts(session, run, [curves.growth_series(session, run, task, x="step")])
        return made

    def test_a_failed_evaluation_is_a_gap(self, session: Session) -> None:
        run, task = make_run(session), make_task(session)
        for step in (10, 30):
            finish_evaluation(session, make_checkpoint(session, run, step), task, 0.4)
        [failed] = evaluations.plan(session, make_checkpoint(session, run, 20))
        evaluations.fail(session, failed.id, "The engine went down.")
        session.flush()
        chart = self.chart(session, run, task)
        assert [(dot.step, dot.y) for dot in chart.dots] == [(10, 0.4), (20, None), (30, 0.4)]
        assert chart.dots[1].evaluation_href == f"/evaluations/{failed.id}"

    def test_a_failure_beside_a_score_of_the_same_checkpoint_is_none(self, session: Session) -> None:
        run, task = make_run(session), make_task(session)
        checkpoint = make_checkpoint(session, run, 10)
        finish_evaluation(session, checkpoint, task, 0.4)
        [again] = evaluations.plan_tasks(session, checkpoint, [task], again=True)
        evaluations.fail(session, again.id, "The engine went down.")
        session.flush()
        assert [dot.failed for dot in self.chart(session, run, task).dots] == [""]

    def test_a_failure_without_an_age_is_left_out_of_the_token_axis(self, session: Session) -> None:
        run, task = make_run(session), make_task(session)
        [failed] = evaluations.plan(session, make_checkpoint(session, run, 20, tokens_seen=None))
        evaluations.fail(session, failed.id, "The engine went down.")
        session.flush()
        [chart] = growth.growth_charts(session, run, [curves.growth_series(session, run, task)])
        assert list(chart.dots) == []

    def test_points_of_checkpoints_with_a_warning_are_marked(self, session: Session) -> None:
        run, task = make_run(session), make_task(session)
        for step in (10, 20):
            finish_evaluation(session, make_checkpoint(session, run, step), task, 0.4)
        fingerprints.warn(checkpoints.get_checkpoint(session, run, 20), fingerprints.TWIN, step=10, distance=0.0)
        session.flush()
        assert [dot.warned for dot in self.chart(session, run, task).dots] == [False, True]


def test_a_run_of_imported_results_has_the_age_of_its_steps(session: Session) -> None:
    run = make_run(session, kind="upload")
    checkpoints.register_external(session, run, step=300, tokens_seen=5_000)
    age = growth.age_of(session, run)
    assert (age.step, age.tokens_seen, age.num_checkpoints, age.num_ready, age.newest) == (300, 5_000, 1, 0, None)
