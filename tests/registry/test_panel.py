"""What every task of a run has shown so far."""

import pytest
from sqlalchemy import update
from sqlalchemy.orm import Session

from registry import panel
from registry.models import Checkpoint, Result
from tests.factories import finish_evaluation, make_checkpoint, make_run, make_task


def test_the_scores_of_a_task_by_step_with_their_cost(session: Session) -> None:
    task, run = make_task(session), make_run(session)
    for step, value in ((200, 0.4), (100, 0.3)):
        finish_evaluation(session, make_checkpoint(session, run, step), task, value)
    [record] = panel.records(session, run)
    assert record.task.name == task.name
    assert [(score.step, score.value, score.n) for score in record.scores["acc"]] == [
        (100, pytest.approx(0.3), 200),
        (200, pytest.approx(0.4), 200),
    ]
    assert record.engine_seconds == pytest.approx(1.5)
    assert record.change_errors == []


def test_every_metric_is_there(session: Session) -> None:
    task, run = make_task(session), make_run(session)
    evaluation = finish_evaluation(session, make_checkpoint(session, run, 100), task, 0.3)
    session.add(Result(evaluation_id=evaluation.id, metric="prob", value=0.28, n=200))
    session.flush()
    [record] = panel.records(session, run)
    assert set(record.scores) == {"acc", "prob"}


def test_only_the_protocol_that_was_used_last_counts(session: Session) -> None:
    task, run = make_task(session), make_run(session)
    finish_evaluation(session, make_checkpoint(session, run, 100), task, 0.3, protocol={"engine": "old"})
    finish_evaluation(session, make_checkpoint(session, run, 200), task, 0.4, protocol={"engine": "new"})
    [record] = panel.records(session, run)
    assert [score.step for score in record.scores["acc"]] == [200]


def test_chat_models_and_rejected_checkpoints_are_left_out(session: Session) -> None:
    task, run = make_task(session), make_run(session)
    finish_evaluation(session, make_checkpoint(session, run, 100, kind="chat"), task, 0.3)
    rejected = make_checkpoint(session, run, 200)
    finish_evaluation(session, rejected, task, 0.3)
    session.execute(update(Checkpoint).where(Checkpoint.id == rejected.id).values(state="rejected"))
    assert panel.records(session, run) == []


def test_a_long_run_is_thinned_but_for_its_end_and_its_milestones(
    session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(panel, "MAX_CHECKPOINTS", 5)
    monkeypatch.setattr(panel, "LATEST", 2)
    task, run = make_task(session), make_run(session, max_steps=None)
    for step in range(20):
        checkpoint = make_checkpoint(session, run, step)
        finish_evaluation(session, checkpoint, task, 0.3)
        checkpoint.is_milestone = step == 9
    session.flush()
    [record] = panel.records(session, run)
    assert [score.step for score in record.scores["acc"]] == [0, 4, 8, 9, 12, 16, 18, 19]
