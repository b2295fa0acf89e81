"""The budget of a checkpoint's evaluations: what does not fit is left out with a sentence."""

import pytest
from sqlalchemy.orm import Session

from registry import evaluations
from registry.models import Evaluation
from registry.settings import get_settings
from tests.factories import finish_evaluation, make_checkpoint, make_run, make_task
from worker.budget import why_too_dear


@pytest.fixture
def second(session: Session) -> Evaluation:
    """The second task of a checkpoint whose first one cost 1.5 s; that task cost 1.5 s at the step before."""
    first, other = make_task(session, "a"), make_task(session, "b")
    run = make_run(session)
    finish_evaluation(session, make_checkpoint(session, run, 10), other, 0.5)
    checkpoint = make_checkpoint(session, run, 20)
    finish_evaluation(session, checkpoint, first, 0.5)
    return next(e for e in evaluations.for_checkpoint(session, checkpoint) if e.task_id == other.id)


def limit(monkeypatch: pytest.MonkeyPatch, seconds: float) -> None:
    monkeypatch.setenv("GROW_EVALUATION_BUDGET_SECONDS", str(seconds))
    get_settings.cache_clear()


def test_without_a_budget_everything_is_run(session: Session, second: Evaluation) -> None:
    assert why_too_dear(session, second.id) is None


def test_what_fits_is_run(session: Session, second: Evaluation, monkeypatch: pytest.MonkeyPatch) -> None:
    limit(monkeypatch, 3.5)
    assert why_too_dear(session, second.id) is None


def test_what_would_go_over_it_is_left_out(
    session: Session, second: Evaluation, monkeypatch: pytest.MonkeyPatch
) -> None:
    limit(monkeypatch, 2.5)
    assert why_too_dear(session, second.id) == (
        "Left out: the evaluations of this checkpoint have cost 2 of their 2 engine seconds, and this one takes "
        "about 2 more. It can be run by hand."
    )


def test_what_somebody_asked_for_is_run(session: Session, second: Evaluation, monkeypatch: pytest.MonkeyPatch) -> None:
    limit(monkeypatch, 1)
    second.ignore_budget = True
    session.flush()
    assert why_too_dear(session, second.id) is None
