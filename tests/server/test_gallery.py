"""Which curves the growth page offers."""

from sqlalchemy.orm import Session

from registry import checkpoints
from registry.models import Suite
from server import gallery
from tests.factories import finish_evaluation, make_checkpoint, make_run, make_task


def test_abilities_come_in_their_order(session: Session) -> None:
    for name, ability in (("c", "code"), ("a", "astrology"), ("z", "chinese")):
        make_task(session, name, ability=ability)
    assert [one.name for one in gallery.abilities(session, make_run(session))] == ["chinese", "code", "astrology"]


def test_the_panel_goes_before_the_suites_of_milestones(session: Session) -> None:
    run = make_run(session)
    full = make_task(session, "full", schedule="milestone", position=0)
    make_task(session, "panel", position=9)
    more = make_task(session, "more", schedule="milestone")
    more.suite = Suite(name="another")
    checkpoint = make_checkpoint(session, run, 1)
    checkpoint.is_milestone = True
    for task in (full, more):
        finish_evaluation(session, checkpoint, task, 0.4)
    [ability] = gallery.abilities(session, run)
    assert [(shelf.suite, shelf.is_panel, [card.task for card in shelf.cards]) for shelf in ability.shelves] == [
        ("test", True, ["panel"]),
        ("test", False, ["full"]),
        ("another", False, ["more"]),
    ]
    assert [card.has_points for card in ability.cards] == [False, True, True]


def test_a_milestone_task_without_scores_is_named_and_one_that_cannot_be_asked_is_not(session: Session) -> None:
    make_task(session, "later", title="Later", schedule="milestone")
    make_task(session, "by hand", schedule="asked")
    make_task(session, "elsewhere", schedule="milestone", needs="local:nowhere")
    [ability] = gallery.abilities(session, make_run(session))
    assert (list(ability.shelves), list(ability.waiting)) == ([], ["Later"])


def test_scores_of_another_run_are_no_points_of_this_one(session: Session) -> None:
    task = make_task(session, schedule="milestone")
    other = make_checkpoint(session, make_run(session, "other"), 1)
    other.is_milestone = True
    finish_evaluation(session, other, task, 0.4)
    [ability] = gallery.abilities(session, make_run(session))
    assert ability.cards == []


def test_a_run_of_imported_results_offers_only_what_it_has(session: Session) -> None:
    run, task = make_run(session, kind="upload"), make_task(session)
    make_task(session, "never asked")
    finish_evaluation(session, checkpoints.register_external(session, run, step=300, tokens_seen=5_000), task, 0.4)
    [ability] = gallery.abilities(session, run)
    assert [card.task for card in ability.cards] == [task.name]
