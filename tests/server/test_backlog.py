"""How far a run's evaluations are, what they cost, and what comes next."""

import pytest
from sqlalchemy.orm import Session

from registry import evaluations, runs, tickets
from registry.evaluations import NewSlice
from registry.models import Run
from registry.models.base import FINISHED
from registry.settings import get_settings
from server import backlog, growth
from server.backlog import Backlog
from tests.factories import finish_evaluation, make_checkpoint, make_run, make_task


def look(session: Session, run: Run) -> Backlog:
    session.flush()
    return backlog.backlog_of(session, run, growth.checkpoint_rows(session, run))


def test_a_run_without_evaluations(session: Session) -> None:
    found = look(session, make_run(session))
    assert (found.done, found.open, found.median_seconds, list(found.upcoming)) == (0, 0, None, [])


def test_it_counts_what_is_done_open_failed_and_left_out(session: Session) -> None:
    run, checkpoint_of = make_run(session), {}
    tasks = [make_task(session, name) for name in "abcd"]
    checkpoint_of[1] = make_checkpoint(session, run, 1)
    finish_evaluation(session, checkpoint_of[1], tasks[0], 0.4)
    by_task = {one.task_id: one for one in evaluations.for_checkpoint(session, checkpoint_of[1])}
    evaluations.fail(session, by_task[tasks[1].id].id, "It failed.")
    evaluations.cancel(session, by_task[tasks[2].id].id, "Left out.")
    found = look(session, run)
    assert (found.done, found.open, found.failed, found.left_out) == (1, 1, 1, 1)


def test_the_cost_of_a_checkpoint_is_the_median_of_those_that_are_through(
    session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(get_settings(), "evaluation_budget_seconds", 60.0)
    run, task = make_run(session), make_task(session)
    for step, seconds in ((1, 1.0), (2, 2.0), (3, 9.0)):
        part = NewSlice(0, 200, f"{step}.parquet", engine_seconds=seconds)
        finish_evaluation(session, make_checkpoint(session, run, step), task, 0.4, part=part)
    evaluations.plan(session, make_checkpoint(session, run, 4))
    found = look(session, run)
    assert (found.median_seconds, found.budget_seconds) == (2.0, 60.0)


def test_what_has_begun_is_named_with_its_progress(session: Session) -> None:
    run, task = make_run(session), make_task(session, title="Idioms")
    [begun] = evaluations.plan(session, make_checkpoint(session, run, 7))
    evaluations.start(session, begun.id, 200, {"engine": "scripted"})
    evaluations.add_slice(session, begun.id, NewSlice(0, 64, "x.parquet"))
    found = look(session, run)
    assert [(one.title, one.step, one.num_done, one.num_items) for one in found.running] == [(task.title, 7, 64, 200)]
    assert list(found.upcoming) == []  # it goes on with the same checkpoint


class TestNext:
    def test_a_finished_run_goes_from_both_ends_to_the_middle(self, session: Session) -> None:
        run = make_run(session)
        make_task(session)
        for step in (1, 2, 3, 4, 5):
            evaluations.plan(session, make_checkpoint(session, run, step))
        runs.set_status(session, run, FINISHED)
        assert [row.checkpoint.step for row in look(session, run).upcoming] == [1, 5, 3, 2]

    def test_of_a_run_that_trains_the_newest_comes_first(self, session: Session) -> None:
        run = make_run(session)
        make_task(session)
        for step in (1, 2, 3, 4, 5):
            evaluations.plan(session, make_checkpoint(session, run, step))
        assert [row.checkpoint.step for row in look(session, run).upcoming] == [5, 1, 3, 2]

    def test_it_is_the_order_in_which_workers_claim(self, session: Session) -> None:
        run = make_run(session)
        make_task(session)
        for step in (1, 2, 3, 4, 5, 6):
            evaluations.plan(session, make_checkpoint(session, run, step))
        expected = [row.checkpoint.id for row in look(session, run).upcoming]
        claimed = []
        for _ in expected:
            claim = tickets.claim(session, "worker")
            assert claim is not None
            claimed.append(claim.checkpoint_id)
        assert claimed == expected

    def test_the_panel_of_all_goes_before_the_full_suites(self, session: Session) -> None:
        run, panel = make_run(session), make_task(session, "panel")
        make_task(session, "full", schedule="milestone")
        first = make_checkpoint(session, run, 1)
        first.is_milestone = True
        finish_evaluation(session, first, panel, 0.4)
        evaluations.plan(session, make_checkpoint(session, run, 2))
        evaluations.plan(session, make_checkpoint(session, run, 3))
        assert [row.checkpoint.step for row in look(session, run).upcoming] == [3, 2, 1]
