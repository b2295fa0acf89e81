"""The scores of a checkpoint as columns: always what its rows say."""

from pathlib import Path

import pytest
from sqlalchemy import select, text
from sqlalchemy.orm import Session

from registry import changes, columns, db, evaluations
from registry.evaluations import Score
from registry.models import Checkpoint, Evaluation, Run, ScoreColumn, Task
from tests.factories import finish_evaluation, make_checkpoint, make_run, make_task
from tests.registry.test_migrations import OLD_ROWS, upgrade


def read(session: Session, run: Run, task: Task, metric: str = "acc") -> list[tuple[object, ...]]:
    """Checkpoint, evaluation, value, interval, items and verdict of each score of a task."""
    found = columns.read(session, [Checkpoint.run_id == run.id], {metric: [task.id]})
    names = ["evaluation", "value", "low", "high", "n", "verdict"]
    return [
        (checkpoint, *record)
        for checkpoint, record in zip(found.checkpoint, found.records[names].tolist(), strict=True)
    ]


def test_results_are_there_as_soon_as_they_are_recorded(session: Session) -> None:
    run, task, other = make_run(session), make_task(session), make_task(session, "other")
    checkpoint = make_checkpoint(session, run, 8)
    evaluation = finish_evaluation(session, checkpoint, task, 0.5, stderr=0.1)
    finish_evaluation(session, checkpoint, other, 0.7)
    low, high = pytest.approx(0.304), pytest.approx(0.696)
    assert read(session, run, task) == [(checkpoint.id, evaluation.id, 0.5, low, high, 200, 0)]
    assert read(session, run, task, "prob") == []


def test_a_score_without_an_interval_has_none(session: Session) -> None:
    run, task = make_run(session), make_task(session)
    checkpoint = make_checkpoint(session, run, 8)
    score = Score("acc", 0.5, None, None, None, 10)
    evaluations.record_imported(session, checkpoint, task, protocol={"a": 1}, results=[score], num_items=10)
    [(*_, low, high, _n, _verdict)] = read(session, run, task)
    assert low != low
    assert high != high


def test_they_follow_a_rescoring(session: Session) -> None:
    run, task = make_run(session), make_task(session)
    evaluation = finish_evaluation(session, make_checkpoint(session, run, 8), task, 0.5)
    new = [Score("acc", 0.6, 0.1, 0.5, 0.7, 200), Score("prob", 0.4, 0.1, 0.3, 0.5, 200)]
    evaluations.rescore(session, evaluation.id, new)
    assert read(session, run, task)[0][2:6] == (0.6, 0.5, 0.7, 200)
    assert read(session, run, task, "prob")[0][2:6] == (0.4, 0.3, 0.5, 200)


def test_they_carry_the_verdict(session: Session) -> None:
    run, task = make_run(session), make_task(session)
    finish_evaluation(session, make_checkpoint(session, run, 8), task, 0.3)
    second = finish_evaluation(session, make_checkpoint(session, run, 16), task, 0.8)
    session.expire_all()
    evaluation = changes.load(session, second.id)
    assert evaluation is not None
    [pair] = changes.pairs(session, evaluation)
    changes.record(session, pair, changes.difference(pair))
    assert [columns.VERDICTS[row[-1]] for row in read(session, run, task)] == ["", "gain"]  # type: ignore[call-overload]


def test_they_go_with_their_checkpoint(session: Session) -> None:
    run, task = make_run(session), make_task(session)
    checkpoint = make_checkpoint(session, run, 8)
    finish_evaluation(session, checkpoint, task, 0.3)
    session.execute(text("DELETE FROM tickets"))
    session.execute(text("DELETE FROM evaluations"))
    session.execute(text("DELETE FROM checkpoints"))
    assert session.execute(select(ScoreColumn)).all() == []


def test_a_migration_makes_them_from_what_older_versions_recorded(tmp_path: Path) -> None:
    engine = db.get_engine(f"sqlite:///{tmp_path / 'old.db'}")
    upgrade(engine, "0001")
    with engine.begin() as connection:
        for statement in OLD_ROWS:
            connection.execute(text(statement))
    upgrade(engine, "head")
    with Session(engine) as session:
        migrated = session.scalars(select(ScoreColumn.records)).all()
        assert len(migrated) == 1
        assert session.get_one(Evaluation, 1).checkpoint_id == 1
        columns.write(session, 1)
        assert session.scalars(select(ScoreColumn.records)).all() == migrated
