"""Results derived again from files: new metrics appear, wrong numbers are mended, no engine is asked."""

from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from registry import checkpoints, db, evaluations, suites
from registry.models import Result
from tests.worker.own_suite import OwnSuite, questions
from worker import rescore
from worker.engine.scripted import ScriptedEngine
from worker.evaluate import record, run_slice


@pytest.fixture
def evaluation_id(publish: Any, make_checkpoint: Any, own_suite: OwnSuite) -> int:
    """A finished four-choice evaluation."""
    name = own_suite.write("plain", questions(20))
    checkpoint_id = publish(make_checkpoint("rescore", seed=1))
    with db.transaction() as session:
        task = suites.add_task(session, name, suite="own", metric="acc", schedule="panel")
        [evaluation] = evaluations.plan_tasks(session, checkpoints.get_by_id(session, checkpoint_id), [task])
    outcome = run_slice(ScriptedEngine(), evaluation.id)
    with db.transaction() as session:
        record(session, evaluation.id, outcome)
    return evaluation.id


def run(*arguments: str) -> str:
    app = typer.Typer()
    app.command()(rescore.main)
    result = CliRunner().invoke(app, list(arguments))
    assert result.exit_code == 0, result.output
    return result.output


def numbers(evaluation_id: int) -> dict[str, float]:
    with db.read_session() as session:
        return {r.metric: r.value for r in session.query(Result).filter_by(evaluation_id=evaluation_id)}


def test_what_is_right_stays(evaluation_id: int) -> None:
    assert "0 evaluations changed, 1 are as they were, 0 could not" in run()


def test_a_wrong_and_a_missing_number_are_put_right(evaluation_id: int) -> None:
    before = numbers(evaluation_id)
    with db.transaction() as session:
        session.query(Result).filter_by(evaluation_id=evaluation_id, metric="acc").one().value = 0.123
        session.delete(session.query(Result).filter_by(evaluation_id=evaluation_id, metric="brier_score").one())
    assert "plain of demo@0: acc, brier_score" in run("--run", "demo", "--task", "plain")
    assert numbers(evaluation_id) == before


def test_the_task_need_not_be_there_any_more(evaluation_id: int, own_suite: OwnSuite) -> None:
    for file in own_suite.folder.iterdir():
        file.unlink()
    assert "1 are as they were" in run()


def test_a_missing_file_is_said_and_the_rest_goes_on(evaluation_id: int, database: Path) -> None:
    for file in database.rglob("000000-*.parquet"):
        file.unlink()
    output = run()
    assert "There is no sample file" in output
    assert "1 could not be derived" in output
