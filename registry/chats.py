"""Verbs of conversations."""

import secrets
from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.orm import Session, joinedload, selectinload

from registry import events, tickets
from registry.errors import Conflict, Invalid, NotFound
from registry.models import Chat, Checkpoint, Turn, User
from registry.models.base import CANCELLED, FINISHED, QUEUED, READY, RUNNING, utcnow
from registry.settings import get_settings

OPEN = (QUEUED, RUNNING)
TITLE_CHARS = 60


def open_chat(session: Session, user: User, checkpoint: Checkpoint) -> Chat:
    """Begin a thread with a checkpoint.

    Raises:
        Conflict: the checkpoint is not ready.
    """
    if checkpoint.state != READY:
        raise Conflict(
            "%(checkpoint)s is %(state)s and cannot answer. Choose another checkpoint.",
            checkpoint=checkpoint.label,
            state=checkpoint.state,
        )
    chat = Chat(public_id=secrets.token_urlsafe(15), user_id=user.id, checkpoint=checkpoint)
    session.add(chat)
    session.flush()  # turns carry the id
    return chat


def open_turn(session: Session, chat: Chat, prompt: str, params: Mapping[str, Any] | None = None) -> Turn:
    """Ask something: a turn, queued, with a ticket in the chat lane.

    Raises:
        Invalid: an empty or an overlong message.
        Conflict: the answer before is still being written.
    """
    limit = get_settings().max_prompt_chars
    if not prompt.strip():
        raise Invalid("The message is empty: write something for the model to go on from.")
    if len(prompt) > limit:
        raise Invalid(
            "The message has %(count)s characters; at most %(limit)s are accepted.",
            count=f"{len(prompt):,}",
            limit=f"{limit:,}",
        )
    last = session.scalar(select(Turn).where(Turn.chat_id == chat.id).order_by(Turn.position.desc()).limit(1))
    if last is not None and last.status in OPEN:
        raise Conflict("The answer before is still being written: wait for it or stop it.")
    turn = Turn(chat_id=chat.id, position=last.position + 1 if last else 0, prompt=prompt, params=dict(params or {}))
    chat.title = chat.title or " ".join(prompt.split())[:TITLE_CHARS]
    session.add(turn)
    session.flush()  # the ticket carries the id
    tickets.issue(session, lane=tickets.CHAT, checkpoint_id=chat.checkpoint_id, turn_id=turn.id)
    return turn


def get_turn(session: Session, turn_id: int) -> Turn:
    """A turn with its chat, the chat's checkpoint and all its turns.

    Raises:
        NotFound: there is none of that id.
    """
    options = joinedload(Turn.chat).selectinload(Chat.turns)
    turn = session.scalar(select(Turn).where(Turn.id == turn_id).options(options))
    if turn is None:
        raise NotFound("There is no message with the id %(turn_id)s.", turn_id=turn_id)
    return turn


def own_turn(session: Session, user: User, turn_id: int) -> Turn:
    """A turn of this person; another's is not found."""
    turn = get_turn(session, turn_id)
    if turn.chat.user_id != user.id:
        raise NotFound("There is no message with the id %(turn_id)s.", turn_id=turn_id)
    return turn


def start_turn(session: Session, turn_id: int) -> None:
    """A worker has begun to answer; a turn taken over from a dead worker starts afresh."""
    turn = session.get_one(Turn, turn_id)
    turn.status, turn.answer, turn.started_at = RUNNING, "", utcnow()


def close_turn(
    session: Session,
    turn_id: int,
    *,
    status: str,
    answer: str = "",
    finish_reason: str = "",
    prompt_tokens: int | None = None,
    completion_tokens: int | None = None,
    error: str = "",
) -> None:
    """Record the whole answer. The fence is the caller's: `tickets.finish` in the same transaction."""
    turn = session.get_one(Turn, turn_id)
    turn.status, turn.answer, turn.finish_reason, turn.error = status, answer, finish_reason, error
    turn.prompt_tokens, turn.completion_tokens = prompt_tokens, completion_tokens
    turn.finished_at = utcnow()


def requeue_turn(session: Session, turn_id: int) -> None:
    """The worker gave it back."""
    session.get_one(Turn, turn_id).status = QUEUED


def cancel_turn(session: Session, turn: Turn) -> None:
    """Stop a turn: a queued one leaves the line at once, a running one is ended by its worker.

    The running one keeps what was written until then, so only its worker closes it.
    """
    if turn.status == QUEUED and tickets.cancel(session, turn_id=turn.id):
        turn.status, turn.finish_reason, turn.finished_at = CANCELLED, "cancelled", utcnow()
        events.append_turn(turn.id, "done", {"status": CANCELLED, "finish_reason": "cancelled", "error": ""})
    elif turn.status in OPEN:
        events.request_stop(turn.id)


def rate_turn(session: Session, turn: Turn, rating: int | None) -> None:
    """Thumbs up (1), down (-1), or neither (None).

    Raises:
        Invalid: another number.
        Conflict: there is no answer yet.
    """
    if rating not in (1, -1, None):
        raise Invalid("A rating is 1, -1 or nothing.")
    if turn.status not in (FINISHED, CANCELLED):
        raise Conflict("There is no answer to rate yet.")
    turn.rating = rating


def get_chat(session: Session, user: User, public_id: str) -> Chat:
    """A person's own thread with its turns.

    Raises:
        NotFound: there is none, or it is another person's.
    """
    query = select(Chat).where(Chat.public_id == public_id, Chat.user_id == user.id, Chat.cleared_at.is_(None))
    chat = session.scalar(query.options(selectinload(Chat.turns)))
    if chat is None:
        raise NotFound("There is no such conversation, or it is another person's.")
    return chat


def list_chats(session: Session, user: User, limit: int = 50) -> Sequence[Chat]:
    """A person's threads, the newest first."""
    query = select(Chat).where(Chat.user_id == user.id, Chat.cleared_at.is_(None))
    return session.scalars(query.order_by(Chat.id.desc()).limit(limit)).all()


def clear_chat(session: Session, chat: Chat) -> None:
    """Hide a thread, stopping what is still being written."""
    chat.cleared_at = utcnow()
    for turn in session.scalars(select(Turn).where(Turn.chat_id == chat.id, Turn.status.in_(OPEN))):
        cancel_turn(session, turn)


def count_turns(session: Session) -> int:
    """How many messages were ever sent."""
    return session.scalar(select(func.count(Turn.id))) or 0
