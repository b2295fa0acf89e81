"""Runs and their scalars."""

import pytest
from sqlalchemy.orm import Session

from registry import runs
from registry.errors import Conflict, Invalid, NotFound
from registry.models import Run
from registry.models.base import FAILED, RUNNING
from registry.runs import Origin
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

    def test_a_stretch_is_thinned_by_itself(self, session: Session) -> None:
        run = make_run(session)
        for step in range(100):
            runs.log_metrics(session, run, step, step * 10, {"train/loss": float(step)})
        found = runs.thinned_family(session, [run], limit=10, within=runs.Window(40, 49))[run.id]["train/loss"]
        assert [(span.step, span.n) for span in found] == [(step, 1) for step in range(40, 50)]
        assert runs.thinned_family(session, [run], within=runs.Window(500, 900)) == {}

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


class TestRewinds:
    """A run that goes on from an earlier step keeps what it did before, beside its curve."""

    def test_later_points_step_aside_and_stay_to_be_read(self, session: Session) -> None:
        run = make_run(session)
        for step in (1, 2, 3, 4):
            runs.log_metrics(session, run, step, step * 10, {"train/loss": float(step), "train/grad_norm": 1.0})
        assert runs.rewind(session, run, 2) == 4
        runs.log_metrics(session, run, 3, 30, {"train/loss": 2.5})
        assert [(p.step, p.value) for p in runs.metric_series(session, run, "train/loss")] == [(1, 1), (2, 2), (3, 2.5)]
        [(key, spans)] = runs.superseded_metrics(session, [run], limit=10).items()
        assert key == (run.id, 1)
        assert [(span.step, span.mean, span.tokens_seen) for span in spans["train/loss"]] == [
            (3, 3.0, 30),
            (4, 4.0, 40),
        ]
        assert [span.step for span in spans["train/grad_norm"]] == [3, 4]

    def test_each_rewind_is_an_attempt_of_its_own(self, session: Session) -> None:
        run = make_run(session)
        for value in (5.0, 4.0, 3.0):
            runs.rewind(session, run, 0)
            runs.log_metrics(session, run, 1, 10, {"train/loss": value})
        assert runs.num_rewinds(session, run) == 2
        found = runs.superseded_metrics(session, [run])
        assert {attempt: spans["train/loss"][0].mean for (_, attempt), spans in found.items()} == {1: 5.0, 2: 4.0}

    def test_nothing_later_is_no_rewind(self, session: Session) -> None:
        run = make_run(session)
        runs.log_metrics(session, run, 1, 10, {"train/loss": 5.0})
        assert (runs.rewind(session, run, 1), runs.num_rewinds(session, run)) == (0, 0)

    def test_the_newest_step_is_that_of_the_newest_attempt(self, session: Session) -> None:
        run = make_run(session)
        for step in (1, 2, 3):
            runs.log_metrics(session, run, step, step * 10, {"train/loss": 5.0})
        runs.rewind(session, run, 1)
        last = runs.last_step(session, run)
        assert last is not None
        assert last.step == 1


class TestNextPoints:
    def test_superseded_points_come_after_those_of_the_curve(self, session: Session) -> None:
        run = make_run(session)
        for value in (5.0, 4.0):
            runs.rewind(session, run, 0)
            runs.log_metrics(session, run, 1, 10, {"train/loss": value, "train/grad_norm": 1.0})
        rows = [(row.attempt, row.key, row.value) for row in runs.next_points(session, run, ["train/loss"])]
        assert rows == [(0, "train/loss", 4.0), (1, "train/loss", 5.0)]
        assert len(runs.next_points(session, run)) == 4

    def test_read_in_small_pieces_they_are_the_same(self, session: Session) -> None:
        run = make_run(session)
        for value in (5.0, 4.0, 3.0):
            runs.rewind(session, run, 0)
            for step in (1, 2):
                runs.log_metrics(session, run, step, 10, {"train/loss": value, "train/grad_norm": value})
        rows, after = [], runs.BEGINNING
        while found := runs.next_points(session, run, after=after, limit=3):
            rows += found
            after = runs.Place(found[-1].attempt, found[-1].key, found[-1].step)
        assert len(rows) == 12
        assert rows == runs.next_points(session, run)


class TestStepAt:
    def test_tokens_are_counted_in_steps(self, session: Session) -> None:
        assert runs.step_at(session, make_run(session), 4096 * 7 + 100) == 7

    def test_a_run_that_does_not_say_how_many_a_step_reads_is_asked_its_points(self, session: Session) -> None:
        run = make_run(session, tokens_per_step=None)
        with pytest.raises(Invalid, match="give the step"):
            runs.step_at(session, run, 100)
        for step in (10, 20, 30):
            runs.log_metrics(session, run, step, step * 100, {"train/loss": 1.0})
        assert runs.step_at(session, run, 2_100) == 20


class TestFamily:
    def grow(self, session: Session) -> dict[str, Run]:
        first = make_run(session, "first")
        second = make_run(session, "second", origin=Origin(first, 500, is_rewind=True))
        third = make_run(session, "third", origin=Origin(second, 800))
        early = make_run(session, "early", origin=Origin(first, 100))
        make_run(session, "stranger")
        return {run.name: run for run in (first, second, third, early)}

    def test_a_tree_is_told_from_any_of_its_runs_parents_first(self, session: Session) -> None:
        found = self.grow(session)
        for run in found.values():
            tree = runs.family(session, run)
            assert [(branch.run.name, branch.depth, branch.from_step) for branch in tree] == [
                ("first", 0, None),
                ("early", 1, 100),
                ("second", 1, 500),
                ("third", 2, 800),
            ]
            assert [branch.parent.name if branch.parent else "" for branch in tree] == ["", "first", "first", "second"]

    def test_a_rewind_supersedes_its_parent_and_a_branch_does_not(self, session: Session) -> None:
        tree = runs.family(session, self.grow(session)["third"])
        assert {branch.run.name: branch.superseded_after for branch in tree} == {
            "first": 500,
            "early": None,
            "second": None,
            "third": None,
        }

    def test_a_run_without_relatives_is_alone(self, session: Session) -> None:
        self.grow(session)
        [branch] = runs.family(session, runs.get_run(session, "stranger"))
        assert (branch.run.name, branch.parent, branch.superseded_after) == ("stranger", None, None)

    def test_every_family_is_one_tree_of_the_list(self, session: Session) -> None:
        self.grow(session)
        trees = runs.families(runs.list_runs(session))
        assert sorted(len(tree) for tree in trees) == [1, 4]

    def test_the_origin_cannot_change(self, session: Session) -> None:
        first = make_run(session, "first")
        make_run(session, "second", origin=Origin(first, 500))
        assert make_run(session, "second", origin=Origin(first, 500)).parent_step == 500
        with pytest.raises(Conflict, match="did not begin at step 600 of 'first'"):
            make_run(session, "second", origin=Origin(first, 600))

    def test_relatives_are_thinned_at_the_same_steps_in_one_question(self, session: Session) -> None:
        first = make_run(session, "first")
        second = make_run(session, "second", origin=Origin(first, 50))
        for run, start in ((first, 0), (second, 50)):
            for step in range(start, start + 50):
                runs.log_metrics(session, run, step, step, {"train/loss": float(step)})
        found = runs.thinned_family(session, [first, second], limit=10)
        assert [span.step for span in found[first.id]["train/loss"]] == [9, 19, 29, 39, 49]
        assert [span.step for span in found[second.id]["train/loss"]] == [59, 69, 79, 89, 99]
