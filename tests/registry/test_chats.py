"""Conversations: asking, stopping, rating, clearing."""

import pytest
from sqlalchemy.orm import Session

from registry import blocklist, chats, tickets
from registry.errors import Conflict, Invalid, NotFound, Refused
from registry.models import Chat, Turn, User
from registry.models.base import CANCELLED, FINISHED, QUEUED, utcnow
from tests.factories import make_checkpoint, make_run, make_user


@pytest.fixture
def chat(session: Session) -> Chat:
    """A thread with a ready checkpoint."""
    return chats.open_chat(session, make_user(session), make_checkpoint(session, make_run(session)))


def answered(session: Session, turn: Turn, answer: str = "fine") -> Turn:
    """The turn as its worker leaves it."""
    claim = tickets.claim(session, "w")
    assert claim is not None
    chats.start_turn(session, turn.id)
    tickets.finish(session, claim.ticket_id, claim.fence)
    chats.close_turn(session, turn.id, status=FINISHED, answer=answer, finish_reason="stop")
    return turn


def loaded(session: Session, chat: Chat) -> Chat:
    """The thread as its owner finds it, with all turns."""
    session.flush()
    session.expire(chat)
    return chats.get_chat(session, session.get_one(User, chat.user_id), chat.public_id)


def test_a_question_is_queued_with_a_ticket_and_names_the_thread(session: Session, chat: Chat) -> None:
    turn = chats.open_turn(session, chat, "How   are\nyou?", {"max_tokens": 9})
    ticket = tickets.for_turn(session, turn.id)
    assert ticket is not None
    assert (ticket.status, ticket.lane) == (QUEUED, tickets.CHAT)
    assert (chat.title, turn.position, turn.params) == ("How are you?", 0, {"max_tokens": 9})


@pytest.mark.parametrize("prompt", ["", "  \n\t", "x" * 100_000])
def test_an_empty_or_huge_message_is_refused(session: Session, chat: Chat, prompt: str) -> None:
    with pytest.raises(Invalid):
        chats.open_turn(session, chat, prompt)
    assert tickets.num_queued(session) == 0


def test_one_question_at_a_time(session: Session, chat: Chat) -> None:
    first = chats.open_turn(session, chat, "one")
    with pytest.raises(Conflict, match="still being written"):
        chats.open_turn(session, chat, "two")
    answered(session, first)
    assert chats.open_turn(session, chat, "two").position == 1


def test_an_unready_checkpoint_cannot_be_asked(session: Session) -> None:
    unready = make_checkpoint(session, make_run(session), ready=False)
    with pytest.raises(Conflict, match="is verifying"):
        chats.open_chat(session, make_user(session), unready)


def test_cancelling_a_queued_question_frees_its_place_at_once(session: Session, chat: Chat) -> None:
    turn = chats.open_turn(session, chat, "one")
    session.flush()
    chats.cancel_turn(session, turn)
    assert (turn.status, tickets.num_queued(session)) == (CANCELLED, 0)


def test_a_running_answer_is_ended_by_its_worker_and_keeps_its_text(session: Session, chat: Chat) -> None:
    turn = chats.open_turn(session, chat, "one")
    session.flush()
    claim = tickets.claim(session, "w")
    assert claim is not None
    chats.start_turn(session, turn.id)
    chats.cancel_turn(session, turn)
    assert tickets.renew(session, claim.ticket_id, claim.fence)
    chats.close_turn(session, turn.id, status=CANCELLED, answer="half an", finish_reason="cancelled")
    assert turn.answer == "half an"


class TestRating:
    def test_needs_an_answer(self, session: Session, chat: Chat) -> None:
        with pytest.raises(Conflict):
            chats.rate_turn(session, chats.open_turn(session, chat, "one"), 1)

    def test_can_be_given_changed_and_taken_back(self, session: Session, chat: Chat) -> None:
        turn = chats.open_turn(session, chat, "one")
        session.flush()
        answered(session, turn)
        for rating in (1, -1, None):
            chats.rate_turn(session, turn, rating)
            assert turn.rating == rating
        with pytest.raises(Invalid):
            chats.rate_turn(session, turn, 5)


def test_another_persons_thread_is_not_found(session: Session, chat: Chat) -> None:
    turn = chats.open_turn(session, chat, "one")
    stranger = make_user(session)
    with pytest.raises(NotFound):
        chats.get_chat(session, stranger, chat.public_id)
    with pytest.raises(NotFound):
        chats.own_turn(session, stranger, turn.id)


def test_a_cleared_thread_is_gone_and_its_question_leaves_the_line(session: Session, chat: Chat) -> None:
    chats.open_turn(session, chat, "one")
    session.flush()
    user = chat.user_id
    chats.clear_chat(session, chat)
    session.flush()
    owner = session.get_one(type(make_user(session)), user)
    assert chats.list_chats(session, owner) == []
    assert tickets.num_queued(session) == 0
    with pytest.raises(NotFound):
        chats.get_chat(session, owner, chat.public_id)


def test_a_turn_comes_with_its_whole_thread(session: Session, chat: Chat) -> None:
    first = chats.open_turn(session, chat, "one")
    session.flush()
    answered(session, first, "1")
    second = chats.open_turn(session, chat, "two")
    session.flush()
    session.expunge_all()
    turn = chats.get_turn(session, second.id)
    assert [(t.prompt, t.answer) for t in turn.chat.turns] == [("one", "1"), ("two", "")]
    assert turn.chat.checkpoint.label == "demo@0"


class TestBranches:
    def test_an_edited_question_is_kept_beside_the_first(self, session: Session, chat: Chat) -> None:
        first = answered(session, chats.open_turn(session, chat, "one"))
        follow = answered(session, chats.open_turn(session, chat, "two"))
        other = answered(session, chats.open_turn(session, chat, "other", after=None))
        whole = loaded(session, chat)
        assert [turn.prompt for turn in chats.branch(whole)] == ["other"]
        assert chats.siblings(whole, first) == [first, other]
        chats.show_turn(whole, first)
        assert whole.leaf_id == follow.id

    def test_stepping_back_shows_one_less_and_loses_nothing(self, session: Session, chat: Chat) -> None:
        first = answered(session, chats.open_turn(session, chat, "one"))
        second = answered(session, chats.open_turn(session, chat, "two"))
        whole = loaded(session, chat)
        assert chats.step_back(whole) is second
        assert chats.branch(whole) == [first]
        assert chats.step_back(whole) is first
        assert (chats.step_back(whole), len(whole.turns)) == (None, 2)

    def test_a_turn_of_another_thread_cannot_be_followed(self, session: Session, chat: Chat) -> None:
        other = chats.open_chat(session, make_user(session), chat.checkpoint)
        foreign = answered(session, chats.open_turn(session, other, "one"))
        with pytest.raises(NotFound):
            chats.open_turn(session, chat, "two", after=foreign.id)


class TestFork:
    def test_the_branch_up_to_a_turn_goes_to_another_checkpoint(self, session: Session, chat: Chat) -> None:
        first = answered(session, chats.open_turn(session, chat, "one", {"temperature": 0.3}), "1")
        answered(session, chats.open_turn(session, chat, "two"), "2")
        older = make_checkpoint(session, chat.checkpoint.run, 77)
        user = make_user(session)
        copy = loaded(session, chats.fork(session, user, loaded(session, chat), first, older))
        assert (copy.user_id, copy.checkpoint_id, copy.forked_from_id) == (user.id, older.id, chat.id)
        assert [(t.prompt, t.answer, t.params) for t in chats.branch(copy)] == [("one", "1", {"temperature": 0.3})]
        assert chats.open_turn(session, copy, "and you?").position == 1

    def test_what_is_still_being_written_stays_behind(self, session: Session, chat: Chat) -> None:
        turn = chats.open_turn(session, chat, "one")
        copy = chats.fork(session, make_user(session), loaded(session, chat), turn, chat.checkpoint)
        assert loaded(session, copy).turns == []

    def test_an_unready_checkpoint_is_refused(self, session: Session, chat: Chat) -> None:
        unready = make_checkpoint(session, chat.checkpoint.run, 78, ready=False)
        with pytest.raises(Conflict):
            chats.fork(session, make_user(session), loaded(session, chat), None, unready)


def test_a_rating_has_a_reason_until_it_changes(session: Session, chat: Chat) -> None:
    turn = answered(session, chats.open_turn(session, chat, "one"))
    with pytest.raises(Conflict):
        chats.explain_rating(session, turn, "why")
    chats.rate_turn(session, turn, -1)
    chats.explain_rating(session, turn, "  wrong\n" + "x" * 900)
    assert turn.rating_reason == ("wrong " + "x" * 900)[:500]
    chats.rate_turn(session, turn, 1)
    assert turn.rating_reason == ""


def test_a_banned_person_asks_nothing_and_is_told_why(session: Session) -> None:
    user = make_user(session)
    chat = chats.open_chat(session, user, make_checkpoint(session, make_run(session)))
    user.banned_at, user.ban_reason = utcnow(), "spam"
    session.flush()
    with pytest.raises(Refused, match="spam"):
        chats.open_turn(session, chat, "hello")


def test_a_blocked_pattern_is_refused_without_being_repeated(session: Session) -> None:
    user = make_user(session)
    blocklist.add(session, make_user(session, role="admin"), "forbidden words")
    chat = chats.open_chat(session, user, make_checkpoint(session, make_run(session)))
    with pytest.raises(Invalid, match="rules do not allow") as refusal:
        chats.open_turn(session, chat, "Say the Forbidden WORDS")
    assert "forbidden" not in str(refusal.value)
