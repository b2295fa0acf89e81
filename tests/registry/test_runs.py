"""Runs and their scalars."""

import pytest
from sqlalchemy.orm import Session

from registry import runs
from registry.errors import Conflict, Invalid, NotFound
from registry.models.base import FAILED, RUNNING
from tests.factories import make_run


@pytest.mark.parametrize("name", ["", "A", "a b", "../x", "a/b", "x" * 70, "-a", "ü"])
def test_a_name_must_stand_in_an_address(session: Session, name: str) -> None:
    with pytest.raises(Invalid):
        make_run(session, name)


def test_the_same_name_goes_on_with_the_same_run(session: Session) -> None:
    first = make_run(session, "demo", num_parameters=5)
    runs.set_status(session, first, FAILED)
    again = make_run(session, "demo")
    assert (again.id, again.status, again.num_parameters) == (first.id, RUNNING, 5)


def test_a_name_of_another_kind_is_taken(session: Session) -> None:
    make_run(session, "demo")
    with pytest.raises(Conflict, match="another name"):
        runs.create_run(session, name="demo", kind="upload")


def test_an_unknown_run_is_told_with_those_that_exist(session: Session) -> None:
    with pytest.raises(NotFound, match="Runs: –"):
        runs.get_run(session, "nope")
    make_run(session, "demo")
    with pytest.raises(NotFound, match="Runs: demo"):
        runs.get_run(session, "nope")


def test_a_step_logged_again_replaces_the_earlier_value(session: Session) -> None:
    run = make_run(session)
    runs.log_metrics(session, run, 1, 100, {"train/loss": 5.0, "train/grad_norm": 1.0})
    runs.log_metrics(session, run, 2, 200, {"train/loss": 4.0})
    runs.log_metrics(session, run, 2, 200, {"train/loss": 3.0})
    assert [(p.step, p.value, p.tokens_seen) for p in runs.metric_series(session, run, "train/loss")] == [
        (1, 5.0, 100),
        (2, 3.0, 200),
    ]
    last = runs.last_step(session, run)
    assert last is not None
    assert last.step == 2


def test_an_unknown_metric_is_told_with_those_logged(session: Session) -> None:
    run = make_run(session)
    runs.log_metrics(session, run, 1, 100, {"train/loss": 5.0})
    with pytest.raises(NotFound, match="Metrics: train/loss"):
        runs.metric_series(session, run, "vibes")


def test_uploads_find_their_run_or_get_a_new_one(session: Session) -> None:
    trained = make_run(session, "demo")
    assert runs.find_or_create(session, "demo").id == trained.id
    assert runs.find_or_create(session, "guests").kind == "upload"


class TestThinnedMetrics:
    def test_a_long_curve_becomes_few_spans_that_keep_the_extremes(self, session: Session) -> None:
        run = make_run(session)
        for step in range(100):
            runs.log_metrics(session, run, step, step * 10, {"train/loss": float(step)})
        spans = runs.thinned_metrics(session, run, limit=10)["train/loss"]
        assert [span.n for span in spans] == [10] * 10
        assert (spans[0].low, spans[0].mean, spans[0].high) == (0.0, 4.5, 9.0)
        assert (spans[-1].step, spans[-1].tokens_seen, spans[-1].high) == (99, 990, 99.0)
        assert spans[0].created_at.tzinfo is not None

    def test_a_short_curve_keeps_every_point(self, session: Session) -> None:
        run = make_run(session)
        for step in (1, 5):
            runs.log_metrics(session, run, step, step, {"train/loss": 1.0, "heldout/loss_zh": 2.0})
        assert {key: len(spans) for key, spans in runs.thinned_metrics(session, run).items()} == {
            "heldout/loss_zh": 2,
            "train/loss": 2,
        }

    def test_keys_can_be_chosen(self, session: Session) -> None:
        run = make_run(session)
        runs.log_metrics(session, run, 1, 1, {"train/loss": 1.0, "heldout/loss_zh": 2.0})
        assert list(runs.thinned_metrics(session, run, ["train/loss", "vibes"])) == ["train/loss"]
