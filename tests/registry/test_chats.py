"""Conversations: asking, stopping, rating, clearing."""

import pytest
from sqlalchemy.orm import Session

from registry import chats, tickets
from registry.errors import Conflict, Invalid, NotFound
from registry.models import Chat, Turn
from registry.models.base import CANCELLED, FINISHED, QUEUED
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
