"""Conversations with answers, for tests of what is said about them."""

from sqlalchemy import select

from registry import chats, checkpoints, conversations, db
from registry.models import Chat, Turn, User
from registry.models.base import FINISHED
from tests.factories import make_checkpoint, make_run

ANSWER = "Something that should not stand."


def answer(name: str, text: str = ANSWER, prompt: str = "A question") -> Turn:
    """A finished answer of this person's, in a conversation of its own."""
    with db.transaction() as session:
        user = session.scalars(select(User).where(User.name == name)).one()
        ready = checkpoints.newest(session)
        chat = chats.open_chat(session, user, ready[0] if ready else make_checkpoint(session, make_run(session)))
        turn = chats.open_turn(session, chat, prompt)
        chats.close_turn(session, turn.id, status=FINISHED, answer=text, finish_reason="stop")
        session.info.pop("deferred_jobs", None)  # no broker listens
        turn.chat = chat
        return turn


def share(turn: Turn) -> str:
    """The token of the link to an answer's conversation."""
    with db.transaction() as session:
        owner = session.get_one(User, session.get_one(Chat, turn.chat_id).user_id)
        return conversations.share(session, chats.get_chat(session, owner, turn.chat.public_id))
