"""Evaluations: planned once, recorded slice by slice, finished once."""

from pathlib import Path

import pytest
from sqlalchemy.orm import Session

from registry import checkpoints, curves, evaluations, tickets
from registry.errors import Conflict
from registry.models import Evaluation
from registry.models.base import CANCELLED, FAILED, FINISHED
from registry.settings import get_settings
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
    evaluations.finish(session, done.id, results=[], protocol={"engine": "other"}, items_file="other.parquet")
    session.flush()
    session.expunge_all()
    [read] = evaluations.for_checkpoint(session, checkpoint)
    assert (read.status, read.items_file, [r.value for r in read.results]) == (FINISHED, "", [0.5])


def test_rejecting_a_checkpoint_drops_what_is_open(session: Session) -> None:
    make_task(session)
    checkpoint = make_checkpoint(session, make_run(session))
    [evaluation] = evaluations.plan(session, checkpoint)
    evaluations.cancel_for(session, checkpoint)
    assert evaluation.status == CANCELLED
    assert tickets.num_queued(session) == 0


def test_progress_counts_statuses_for_each_checkpoint(session: Session) -> None:
    task, run = make_task(session), make_run(session)
    make_task(session, "b")
    checkpoint = make_checkpoint(session, run)
    finish_evaluation(session, checkpoint, task, 0.4)
    assert evaluations.progress(session, run) == {checkpoint.id: {"finished": 1, "queued": 1}}


class TestPlan:
    def test_full_suites_are_for_milestones_and_the_rest_waits_to_be_asked(
        self, session: Session, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("GROW_MILESTONE_EVERY", "2")
        get_settings.cache_clear()
        panel, full = make_task(session, "a_panel"), make_task(session, "b_full", schedule="milestone")
        make_task(session, "rare", schedule="asked")
        run = make_run(session, max_steps=50)
        planned = {
            step: [e.task_id for e in evaluations.plan(session, make_checkpoint(session, run, step))]
            for step in (10, 20, 30, 50)
        }
        assert planned == {10: [panel.id], 20: [panel.id, full.id], 30: [panel.id], 50: [panel.id, full.id]}

    def test_the_panel_goes_before_the_full_suites(self, session: Session) -> None:
        make_task(session, "full", schedule="milestone", position=1)
        make_task(session, "panel", position=2)
        evaluations.plan(session, make_checkpoint(session, make_run(session, max_steps=10), 10))
        claims = [tickets.claim(session, "w") for _ in range(2)]
        assert [claim.lane for claim in claims if claim] == [tickets.EVALUATION, tickets.MILESTONE]

    def test_what_the_machine_cannot_do_is_not_planned(
        self, session: Session, grow_home: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        make_task(session, "code", needs="code_execution")
        make_task(session, "exam", needs="local:ceval")
        run = make_run(session)
        assert evaluations.plan(session, make_checkpoint(session, run, 1)) == []
        (grow_home / "benchmarks" / "ceval").mkdir(parents=True)
        monkeypatch.setenv("GROW_BENCHMARKS_DIR", str(grow_home / "benchmarks"))
        monkeypatch.setenv("GROW_RUN_CODE", "1")
        get_settings.cache_clear()
        assert len(evaluations.plan(session, make_checkpoint(session, run, 2))) == 2

    def test_a_task_may_be_asked_for_again_but_not_while_it_is_open(self, session: Session) -> None:
        task, checkpoint = make_task(session), make_checkpoint(session, make_run(session))
        finish_evaluation(session, checkpoint, task, 0.5)
        assert evaluations.plan_tasks(session, checkpoint, [task]) == []
        [again] = evaluations.plan_tasks(session, checkpoint, [task], again=True, by_hand=True)
        assert again.ignore_budget
        assert evaluations.plan_tasks(session, checkpoint, [task], again=True) == []


class TestSlices:
    def test_they_follow_each_other_and_add_up(self, session: Session) -> None:
        evaluation = planned(session)
        for start, stop in ((0, 60), (60, 100)):
            part = evaluations.NewSlice(start, stop, f"1/1/{start}", engine_seconds=2.0, num_truncated=1)
            evaluations.start(session, evaluation.id, 100, {"engine": "x"})
            evaluations.add_slice(session, evaluation.id, part)
        session.flush()
        session.expire_all()
        read = evaluations.get_evaluation(session, evaluation.id)
        assert (read.num_done, read.num_items, read.num_truncated, read.engine_seconds) == (100, 100, 2, 4.0)
        assert [path.name for path in evaluations.sample_paths(read)] == ["0", "60"]

    def test_the_same_stretch_twice_is_refused(self, session: Session) -> None:
        evaluation = planned(session)
        evaluations.add_slice(session, evaluation.id, evaluations.NewSlice(0, 60, "a"))
        with pytest.raises(Conflict, match="stands at item 60"):
            evaluations.add_slice(session, evaluation.id, evaluations.NewSlice(0, 50, "b"))

    def test_beginning_again_drops_them(self, session: Session) -> None:
        evaluation = planned(session)
        evaluations.add_slice(session, evaluation.id, evaluations.NewSlice(0, 60, "a"))
        session.flush()
        evaluations.begin_again(session, evaluation.id)
        session.flush()
        session.expire_all()
        read = evaluations.get_evaluation(session, evaluation.id)
        assert (read.num_done, read.slices) == (0, [])


class TestProtocol:
    def test_the_same_key_twice_changes_nothing(self, session: Session) -> None:
        task, checkpoint = make_task(session), make_checkpoint(session, make_run(session))
        finish_evaluation(session, checkpoint, task, 0.5)
        [again] = evaluations.plan_tasks(session, checkpoint, [task], again=True)
        score = evaluations.Score("acc", 0.9, 0.0, 0.9, 0.9, 200)
        evaluations.finish(session, again.id, results=[score], protocol={"engine": "scripted", "revision": "other"})
        session.flush()
        session.expire_all()
        kept = [e for e in evaluations.for_checkpoint(session, checkpoint) if e.status == FINISHED]
        assert [[r.value for r in e.results] for e in kept] == [[0.5]]
        assert "they stand" in session.get_one(Evaluation, again.id).error

    def test_another_key_is_another_evaluation(self, session: Session) -> None:
        task, checkpoint = make_task(session), make_checkpoint(session, make_run(session))
        finish_evaluation(session, checkpoint, task, 0.5)
        [again] = evaluations.plan_tasks(session, checkpoint, [task], again=True)
        score = evaluations.Score("acc", 0.9, 0.0, 0.9, 0.9, 200)
        evaluations.finish(session, again.id, results=[score], protocol={"engine": "other"})
        session.flush()
        assert again.status == FINISHED


class TestFailures:
    def test_they_keep_the_last_lines_of_the_engine_and_have_no_result(self, session: Session) -> None:
        evaluation = planned(session)
        evaluations.fail(session, evaluation.id, "The engine went down.", log="CUDA out of memory")
        assert (evaluation.status, evaluation.log, evaluation.num_done) == (FAILED, "CUDA out of memory", 0)

    def test_a_failed_one_can_be_tried_again_from_its_last_slice(self, session: Session) -> None:
        evaluation = planned(session)
        claim = tickets.claim(session, "w")
        assert claim is not None
        evaluations.add_slice(session, evaluation.id, evaluations.NewSlice(0, 60, "a"))
        tickets.finish(session, claim.ticket_id, claim.fence, FAILED)
        evaluations.fail(session, evaluation.id, "No.")
        session.flush()
        evaluations.retry(session, evaluation.id)
        again = tickets.claim(session, "w")
        assert again is not None
        assert (again.evaluation_id, again.attempts, evaluation.num_done) == (evaluation.id, 1, 60)

    def test_what_is_open_cannot_be_tried_again(self, session: Session) -> None:
        with pytest.raises(Conflict, match="is queued"):
            evaluations.retry(session, planned(session).id)


def test_a_rescored_evaluation_has_the_new_numbers_and_is_compared_again(session: Session) -> None:
    task, checkpoint = make_task(session), make_checkpoint(session, make_run(session))
    done = finish_evaluation(session, checkpoint, task, 0.5)
    done.is_compared = True
    same = evaluations.Score("acc", 0.5, 0.02, 0.5 - 1.96 * 0.02, 0.5 + 1.96 * 0.02, 200)
    assert evaluations.rescore(session, done.id, [same]) == []
    assert evaluations.rescore(session, done.id, [same._replace(value=0.6), same._replace(metric="prob")]) == [
        "acc",
        "prob",
    ]
    assert not done.is_compared


def test_imported_results_twice_are_once(session: Session) -> None:
    task, run = make_task(session), make_run(session)
    checkpoint = checkpoints.register_external(session, run, step=5, tokens_seen=20480)
    score = evaluations.Score("acc", 0.5, 0.1, 0.4, 0.6, 50)
    protocol = {"source": "lm-eval", "imported": True}
    first = evaluations.record_imported(session, checkpoint, task, protocol=protocol, results=[score], num_items=50)
    assert first is not None
    assert (
        evaluations.record_imported(session, checkpoint, task, protocol=protocol, results=[score], num_items=50) is None
    )
    assert [point.value for point in curves.growth_series(session, run, task).points] == [0.5]


def planned(session: Session) -> Evaluation:
    """An evaluation that waits."""
    make_task(session)
    [evaluation] = evaluations.plan(session, make_checkpoint(session, make_run(session)))
    return evaluation
