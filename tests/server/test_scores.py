"""A checkpoint's evaluations as rows: the score, its change, what stands beside it."""

import pytest
from sqlalchemy.orm import Session

from registry import changes, evaluations
from registry.models import Change, Checkpoint, Evaluation, Suite, Task
from registry.settings import get_settings
from server import scores
from server.scores import Before, ScoreRow
from tests.factories import finish_evaluation, make_checkpoint, make_run, make_task


def compare(session: Session, evaluation: Evaluation) -> None:
    """What the comparing job does."""
    session.flush()
    session.expire_all()
    loaded = changes.load(session, evaluation.id)
    assert loaded is not None
    for pair in changes.pairs(session, loaded):
        changes.record(session, pair, changes.difference(pair))
    session.flush()
    session.expire_all()


def rows_of(session: Session, checkpoint: Checkpoint) -> list[ScoreRow]:
    groups = scores.score_groups(session, evaluations.for_checkpoint(session, checkpoint))
    return [row for group in groups for row in group.rows]


def make_change(**fields: object) -> Change:
    plain = {"value": 0.02, "low": -0.01, "high": 0.05, "p_value": 0.2, "n": 200, "is_paired": True}
    return Change(evaluation_id=1, against_id=2, **{**plain, "verdict": "within noise", **fields})


def view(change: Change) -> scores.ChangeView:
    evaluation = Evaluation(task=Task(name="t", metric="acc"), change=change, status="finished")
    found = scores.change_view(evaluation, Before(250, 0.4))
    assert found is not None
    return found


class TestRows:
    def test_a_score_stands_beside_the_one_before(self, session: Session) -> None:
        run, task = make_run(session), make_task(session)
        finish_evaluation(session, make_checkpoint(session, run, 10), task, 0.3)
        checkpoint = make_checkpoint(session, run, 20)
        compare(session, finish_evaluation(session, checkpoint, task, 0.6))
        [row] = rows_of(session, checkpoint)
        assert row.change is not None
        assert (row.value, row.interval, row.n) == ("60.0%", "56.1% – 63.9%", 200)
        assert (row.change.before, row.change.before_step, row.change.change) == ("30.0%", 10, "+30.0 points")
        assert (row.change.verdict, row.change.mark, row.change.is_paired) == ("gain", "▲", False)

    def test_the_first_has_nothing_to_compare_with(self, session: Session) -> None:
        checkpoint = make_checkpoint(session, make_run(session), 10)
        finish_evaluation(session, checkpoint, make_task(session), 0.3)
        assert rows_of(session, checkpoint)[0].change is None

    def test_what_is_not_done_says_how_far_it_is_or_why_not(self, session: Session) -> None:
        checkpoint = make_checkpoint(session, make_run(session), 10)
        for name in ("a", "b", "c"):
            make_task(session, name)
        one, two, _ = evaluations.plan(session, checkpoint)
        evaluations.start(session, one.id, 200, {"engine": "scripted"})
        evaluations.add_slice(session, one.id, evaluations.NewSlice(0, 64, "x.parquet", num_truncated=3))
        evaluations.fail(session, two.id, "The engine went down.")
        session.flush()
        session.expire_all()
        running, failed, queued = rows_of(session, checkpoint)
        assert (running.status, running.num_done, running.num_items, running.num_truncated) == ("running", 64, 200, 3)
        assert (failed.value, failed.error, failed.can_retry) == ("", "The engine went down.", True)
        assert (queued.status, queued.can_retry) == ("queued", False)

    def test_the_newest_protocol_stands_for_the_task_and_the_others_beside_it(self, session: Session) -> None:
        checkpoint, task = make_checkpoint(session, make_run(session), 10), make_task(session)
        finish_evaluation(session, checkpoint, task, 0.3, protocol={"dtype": "float32"})
        [again] = evaluations.plan_tasks(session, checkpoint, [task], again=True)
        score = evaluations.Score("acc", 0.4, 0.02, 0.36, 0.44, 200)
        evaluations.finish(session, again.id, results=[score], protocol={"dtype": "bfloat16"})
        session.flush()
        [row] = rows_of(session, checkpoint)
        assert row.value == "40.0%"
        assert [(other.value, other.differs) for other in row.others] == [
            ("30.0%", "number format float32, now bfloat16")
        ]

    def test_an_attempt_that_was_given_up_hides_no_score(self, session: Session) -> None:
        checkpoint, task = make_checkpoint(session, make_run(session), 10), make_task(session)
        finish_evaluation(session, checkpoint, task, 0.3)
        [again] = evaluations.plan_tasks(session, checkpoint, [task], again=True)
        evaluations.cancel(session, again.id, "Left out.")
        session.flush()
        [row] = rows_of(session, checkpoint)
        assert (row.value, [other.differs for other in row.others]) == ("30.0%", ["Left out."])

    def test_probes_have_no_score(self, session: Session) -> None:
        checkpoint = make_checkpoint(session, make_run(session), 10)
        make_task(session, "probe", metric="", is_probe=True)
        evaluations.plan(session, checkpoint)
        assert rows_of(session, checkpoint) == []

    def test_suites_are_apart(self, session: Session) -> None:
        checkpoint = make_checkpoint(session, make_run(session), 10)
        make_task(session, "a")
        make_task(session, "b").suite = Suite(name="another")
        evaluations.plan(session, checkpoint)
        groups = scores.score_groups(session, evaluations.for_checkpoint(session, checkpoint))
        assert [(group.suite, len(group.rows)) for group in groups] == [("test", 1), ("another", 1)]


class TestChange:
    @pytest.mark.parametrize(
        ("p", "words"),
        [
            (None, "nobody can say"),
            (0.0001, "less than once in 1,000"),
            (0.004, "about 4 of 1,000"),
            (0.2, "about 20 of 100"),
            (1.0, "about 100 of 100"),
        ],
    )
    def test_a_p_value_is_told_in_plain_words(self, p: float | None, words: str) -> None:
        assert words in view(make_change(p_value=p)).in_words

    def test_an_interval_is_missing_where_only_the_scores_were_compared(self) -> None:
        assert view(make_change(low=None, high=None)).interval == ""

    def test_a_change_that_does_not_count_among_many_says_so(self) -> None:
        assert view(make_change(p_value=0.03)).is_corrected_away
        assert not view(make_change(p_value=0.03, verdict="gain")).is_corrected_away
        assert not view(make_change(p_value=0.3)).is_corrected_away


class TestCost:
    def test_what_was_asked_for_by_hand_is_not_of_the_budget(
        self, session: Session, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(get_settings(), "evaluation_budget_seconds", 3.0)
        checkpoint, task = make_checkpoint(session, make_run(session), 10), make_task(session)
        other = make_task(session, "other")
        finish_evaluation(session, checkpoint, task, 0.3)
        finish_evaluation(session, checkpoint, other, 0.3).ignore_budget = True
        session.flush()
        cost = scores.cost_of(session, checkpoint, evaluations.for_checkpoint(session, checkpoint))
        assert (cost.seconds, cost.spent, cost.by_hand, cost.share) == (3.0, 1.5, 1.5, 0.5)

    def test_without_a_budget_there_is_no_share(self) -> None:
        assert scores.Cost(3.0, 3.0, 0.0).share == 0.0
