"""Growth curves as columns: which points they have, where those stand, and what stands beside them."""

import datetime as dt

import numpy as np
import pytest
from sqlalchemy import event
from sqlalchemy.orm import Session

from registry import evaluations, growth, news, runs, tickets
from registry.errors import Invalid
from registry.growth import View
from registry.models import Run, Task
from tests.factories import finish_evaluation, make_checkpoint, make_run, make_task


def fail(session: Session, run: Run, task: Task, step: int) -> None:
    """An evaluation that went wrong."""
    checkpoint = make_checkpoint(session, run, step)
    evaluations.plan(session, checkpoint)
    session.flush()
    [evaluation] = evaluations.for_checkpoint(session, checkpoint)
    tickets.cancel(session, evaluation_id=evaluation.id)
    evaluations.fail(session, evaluation.id, "The engine went down.", "")


def test_a_line_has_its_points_by_step(session: Session) -> None:
    run, task = make_run(session), make_task(session)
    for step, value in ((64, 0.5), (0, 0.25), (16, 0.3)):
        finish_evaluation(session, make_checkpoint(session, run, step), task, value)
    [curve] = growth.growth_curves(session, run, [task])
    [line] = curve.lines
    assert line.step.tolist() == [0, 16, 64]
    assert line.value.tolist() == [0.25, 0.3, 0.5]
    assert line.x.tolist() == [0, 16 * 4096, 64 * 4096]
    assert line.n.tolist() == [200, 200, 200]
    assert line.high.tolist() == pytest.approx([0.2892, 0.3392, 0.5392])


@pytest.mark.parametrize(("x", "at"), [("step", 16), ("tokens", 16 * 4096), ("flops", 16e9), ("time", 60)])
def test_the_axis_can_be_chosen(session: Session, x: str, at: float) -> None:
    run, task = make_run(session), make_task(session)
    checkpoint = make_checkpoint(session, run, 16)
    checkpoint.created_at = run.created_at + dt.timedelta(seconds=60)
    finish_evaluation(session, checkpoint, task, 0.3)
    [curve] = growth.growth_curves(session, run, [task], View(x=x))
    assert curve.lines[0].x.tolist() == [at]


def test_an_unknown_axis_names_the_axes(session: Session) -> None:
    with pytest.raises(Invalid, match="tokens, step, flops, time, loss"):
        growth.growth_curves(session, make_run(session), [make_task(session)], View(x="moons"))


class TestHeldOutLoss:
    def log(self, session: Session, run: Run, step: int, **losses: float) -> None:
        runs.log_metrics(session, run, step, step, {f"heldout/loss_{name}": value for name, value in losses.items()})

    def test_a_checkpoint_between_two_measurements_is_interpolated(self, session: Session) -> None:
        run, task = make_run(session), make_task(session)
        self.log(session, run, 0, zh=6.0, en=8.0)
        self.log(session, run, 100, zh=2.0, en=4.0)
        finish_evaluation(session, make_checkpoint(session, run, 25), task, 0.3)
        [curve] = growth.growth_curves(session, run, [task], View(x="loss"))
        assert curve.lines[0].x.tolist() == [6.0]

    def test_one_outside_of_the_measurements_has_no_place(self, session: Session) -> None:
        run, task = make_run(session), make_task(session)
        self.log(session, run, 10, zh=6.0)
        finish_evaluation(session, make_checkpoint(session, run, 25), task, 0.3)
        [curve] = growth.growth_curves(session, run, [task], View(x="loss"))
        assert curve.lines == []

    def test_a_step_at_which_a_language_is_missing_does_not_bend_the_mean(self, session: Session) -> None:
        run = make_run(session)
        self.log(session, run, 0, zh=6.0, en=8.0)
        self.log(session, run, 10, zh=5.0)
        self.log(session, run, 20, zh=4.0, en=6.0)
        steps, losses = growth.held_out_losses(session, run)
        assert (steps.tolist(), losses.tolist()) == ([0, 20], [7.0, 5.0])

    def test_a_language_that_comes_later_takes_no_step_away(self, session: Session) -> None:
        run = make_run(session)
        self.log(session, run, 0, zh=6.0, en=8.0)
        for step in (10, 20, 30):
            self.log(session, run, step, zh=4.0, en=6.0, fr=11.0)
        steps, losses = growth.held_out_losses(session, run)
        assert (steps.tolist(), losses.tolist()) == ([0, 10, 20, 30], [7.0, 5.0, 5.0, 5.0])

    def test_nor_does_one_that_is_measured_no_more(self, session: Session) -> None:
        run = make_run(session)
        self.log(session, run, 0, zh=6.0, en=8.0)
        self.log(session, run, 10, zh=5.0, en=7.0)
        self.log(session, run, 20, zh=4.0)
        self.log(session, run, 30, zh=3.0)
        steps, losses = growth.held_out_losses(session, run)
        assert (steps.tolist(), losses.tolist()) == ([0, 10, 20, 30], [6.0, 5.0, 4.0, 3.0])

    def test_a_run_without_any_has_no_curve_on_this_axis(self, session: Session) -> None:
        run, task = make_run(session), make_task(session)
        finish_evaluation(session, make_checkpoint(session, run, 25), task, 0.3)
        assert growth.growth_curves(session, run, [task], View(x="loss"))[0].lines == []


def test_protocols_are_lines_and_the_one_used_last_comes_last(session: Session) -> None:
    run, task = make_run(session), make_task(session)
    for step, engine in ((0, "new"), (16, "old"), (32, "new")):
        finish_evaluation(session, make_checkpoint(session, run, step), task, 0.3, protocol={"engine": engine})
    [curve] = growth.growth_curves(session, run, [task])
    assert [(line.protocol["engine"], line.step.tolist()) for line in curve.lines] == [("old", [16]), ("new", [0, 32])]


def test_a_failed_evaluation_is_no_point_but_said(session: Session) -> None:
    run, task = make_run(session), make_task(session)
    finish_evaluation(session, make_checkpoint(session, run, 0), task, 0.3)
    fail(session, run, task, 16)
    [curve] = growth.growth_curves(session, run, [task], View(x="step"))
    assert curve.lines[0].step.tolist() == [0]
    assert [(one.x, one.step, one.error) for one in curve.failures] == [(16, 16, "The engine went down.")]


def test_another_metric_of_the_same_answers_has_no_verdicts(session: Session) -> None:
    run, task = make_run(session), make_task(session)
    finish_evaluation(session, make_checkpoint(session, run, 0), task, 0.3)
    assert growth.growth_curves(session, run, [task], View(metric="prob"))[0].lines == []


def test_other_kinds_precisions_and_runs_stay_apart(session: Session) -> None:
    run, task = make_run(session), make_task(session)
    finish_evaluation(session, make_checkpoint(session, run, 0, kind="chat"), task, 0.3)
    finish_evaluation(session, make_checkpoint(session, make_run(session, "other"), 5), task, 0.4)
    assert growth.growth_curves(session, run, [task])[0].lines == []
    [curve] = growth.growth_curves(session, run, [task], View(kind="chat"))
    assert curve.lines[0].value.tolist() == [0.3]


def test_an_upload_that_does_not_know_its_tokens_is_left_out_of_that_axis_alone(session: Session) -> None:
    run, task = make_run(session), make_task(session)
    checkpoint = make_checkpoint(session, run, 3)
    checkpoint.tokens_seen = None
    finish_evaluation(session, checkpoint, task, 0.3)
    assert growth.growth_curves(session, run, [task])[0].lines == []
    [by_step] = growth.growth_curves(session, run, [task], View(x="step"))
    assert np.isnan(by_step.lines[0].tokens).tolist() == [True]


def test_the_number_of_queries_does_not_grow(session: Session) -> None:
    run = make_run(session)
    tasks = [make_task(session, name) for name in ("one", "two", "three")]
    for step in range(4):
        checkpoint = make_checkpoint(session, run, step)
        for task in tasks:
            finish_evaluation(session, checkpoint, task, 0.3)
    session.flush()
    seen: list[str] = []
    connection = session.connection()
    event.listen(connection, "before_cursor_execute", lambda _c, _k, statement, *_rest: seen.append(statement))
    growth.growth_curves(session, run, tasks)
    assert len(seen) == 5  # places, versions of the tasks, scores, protocols, failures


class TestPins:
    def test_a_post_stands_at_its_step(self, session: Session) -> None:
        run = make_run(session)
        news.publish_post(session, title="Loss spike", body="", run=run, step=20, kind="incident")
        news.publish_post(session, title="Elsewhere", body="")
        assert [(pin.post.title, pin.x) for pin in growth.pins(session, run, "tokens")] == [("Loss spike", 20 * 4096)]
        assert [pin.x for pin in growth.pins(session, run, "step")] == [20]

    def test_on_other_axes_between_checkpoints(self, session: Session) -> None:
        run = make_run(session)
        for step in (0, 40):
            make_checkpoint(session, run, step)
        news.publish_post(session, title="Half-way", body="", run=run, step=20)
        news.publish_post(session, title="Far away", body="", run=run, step=90)
        assert [pin.x for pin in growth.pins(session, run, "flops")] == [20e9]
