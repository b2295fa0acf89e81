"""Reports: who may make them, how they wait, and what follows from a decision."""

import pytest
from sqlalchemy.orm import Session

from registry import audit, blocklist, chats, conversations, reports
from registry.errors import Conflict, Invalid, NotFound, Refused
from registry.models import Checkpoint, Turn, User
from registry.models.base import FINISHED
from tests.factories import make_checkpoint, make_run, make_user


@pytest.fixture
def checkpoint(session: Session) -> Checkpoint:
    return make_checkpoint(session, make_run(session))


def answered(session: Session, user: User, checkpoint: Checkpoint, answer: str = "something bad") -> Turn:
    session.flush()
    chat = chats.open_chat(session, user, checkpoint)
    turn = chats.open_turn(session, chat, "a question")
    chats.close_turn(session, turn.id, status=FINISHED, answer=answer, finish_reason="stop")
    session.flush()
    session.expire_all()
    return chats.get_turn(session, turn.id)


def test_a_person_reports_an_answer_once_and_may_say_it_better(session: Session, checkpoint: Checkpoint) -> None:
    mei = make_user(session, "mei")
    turn = answered(session, mei, checkpoint)
    first = reports.report(session, mei, turn, "wrong", "not so")
    session.flush()
    again = reports.report(session, mei, turn, "harmful", " worse than I thought ")
    assert again is first
    assert (again.reason, again.note) == ("harmful", "worse than I thought")
    assert reports.count_open(session) == 1


def test_only_what_one_may_read_can_be_reported(session: Session, checkpoint: Checkpoint) -> None:
    mei, other = make_user(session, "mei"), make_user(session, "other")
    turn = answered(session, mei, checkpoint)
    with pytest.raises(NotFound):
        reports.readable_turn(session, other, turn.id)
    token = conversations.share(session, turn.chat)
    session.flush()
    assert reports.readable_turn(session, other, turn.id, token).id == turn.id
    with pytest.raises(NotFound):
        reports.readable_turn(session, other, turn.id + 1, token)


def test_what_is_no_report_is_refused(session: Session, checkpoint: Checkpoint) -> None:
    mei = make_user(session, "mei")
    turn = answered(session, mei, checkpoint)
    with pytest.raises(Invalid):
        reports.report(session, mei, turn, "because")
    with pytest.raises(Invalid):
        reports.report(session, mei, turn, "other", "x" * 1001)
    turn.answer = ""
    with pytest.raises(Conflict):
        reports.report(session, mei, turn, "other")


def test_an_upheld_report_can_hide_the_answer_everywhere_ban_and_block(
    session: Session, checkpoint: Checkpoint
) -> None:
    keeper, mei, other = make_user(session, role="admin"), make_user(session, "mei"), make_user(session, "other")
    turn = answered(session, mei, checkpoint)
    copy = chats.fork(session, other, turn.chat, turn, checkpoint)
    copy_of_copy = chats.fork(session, mei, chats.get_chat(session, other, copy.public_id), None, checkpoint)
    untouched = answered(session, other, checkpoint)
    session.flush()
    reports.report(session, mei, turn, "harmful")
    reports.report(session, other, turn, "hateful")
    session.flush()
    [case] = reports.docket(session).cases
    assert (case.author.name, [one.reason for one in case.reports]) == ("mei", ["harmful", "hateful"])
    assert [one.id for one in case.path] == [turn.id]

    reports.uphold(session, keeper, turn.id, hide=True, ban_reason="asks for bad things", pattern="something bad")
    session.flush()
    session.expire_all()

    assert reports.count_open(session) == 0
    hidden = [turn.id, chats.get_chat(session, other, copy.public_id).turns[0].id]
    for turn_id in hidden:
        found = session.get_one(Turn, turn_id)
        assert (found.answer, found.tokens, found.finish_reason) == ("", None, reports.WITHHELD)
    assert session.get_one(Turn, untouched.id).answer == "something bad"  # somebody else's, that nobody reported
    assert copy_of_copy.id
    assert session.get_one(User, mei.id).ban_reason == "asks for bad things"
    assert blocklist.outgoing(session).find("Something BAD") is not None
    deeds = [one.action for one in audit.list_entries(session).entries]
    assert deeds == ["block_pattern", "ban", "answer_withheld", "report_upheld", "report_made", "report_made"]


def test_a_dismissed_report_leaves_the_answer_and_is_not_made_again(session: Session, checkpoint: Checkpoint) -> None:
    keeper, mei = make_user(session, role="admin"), make_user(session, "mei")
    turn = answered(session, mei, checkpoint)
    reports.report(session, mei, turn, "wrong")
    session.flush()
    reports.dismiss(session, keeper, turn.id)
    session.flush()
    assert (turn.answer, reports.count_open(session)) == ("something bad", 0)
    with pytest.raises(Conflict):
        reports.report(session, mei, turn, "wrong")
    with pytest.raises(NotFound):
        reports.dismiss(session, keeper, turn.id)


def test_an_administrators_own_answer_is_upheld_without_a_ban(session: Session, checkpoint: Checkpoint) -> None:
    keeper = make_user(session, role="admin")
    turn = answered(session, keeper, checkpoint)
    reports.report(session, keeper, turn, "wrong")
    session.flush()
    with pytest.raises(Refused):
        reports.uphold(session, keeper, turn.id, ban_reason="me")


def test_a_removed_answer_is_gone_from_a_notebooks_later_text_too(session: Session, checkpoint: Checkpoint) -> None:
    keeper, mei = make_user(session, role="admin"), make_user(session, "mei")
    turn = answered(session, mei, checkpoint, answer=" of 100% night_mares")
    later = chats.open_turn(session, turn.chat, "a question of 100% night_mares, and more")
    session.flush()
    reports.withhold(session, keeper, turn)
    session.flush()
    session.expire_all()
    assert session.get_one(Turn, later.id).prompt == "a question, and more"
