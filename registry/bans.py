"""Verbs of bans: who may no longer ask models anything. Reading, exporting and leaving stay possible."""

from sqlalchemy import select
from sqlalchemy.orm import Session

from registry import audit, calls, chats
from registry.errors import Conflict, Invalid, Refused
from registry.models import ApiCall, Chat, Turn, User
from registry.models.base import QUEUED, RUNNING, utcnow

OPEN = (QUEUED, RUNNING)
MAX_REASON_CHARS = 500


def ban(session: Session, actor: User, user: User, reason: str) -> None:
    """Take somebody's asking away, with all that they have in the line.

    Args:
        session: the transaction.
        actor: the administrator.
        user: whom.
        reason: shown to the person.

    Raises:
        Refused: it is the administrator's own account.
        Invalid: no reason, or an overlong one.
        Conflict: the person is banned already.
    """
    if user.id == actor.id:
        raise Refused("You cannot ban yourself.")
    reason = " ".join(reason.split())
    if not 1 <= len(reason) <= MAX_REASON_CHARS:
        raise Invalid("A ban needs a reason of 1 to %(limit)s characters; the person reads it.", limit=MAX_REASON_CHARS)
    if user.banned_at is not None:
        raise Conflict("%(name)s is banned already.", name=user.name)
    user.banned_at, user.ban_reason = utcnow(), reason
    stop_all(session, user)
    audit.note(session, actor, "ban", f"user:{user.id}", {"reason": reason})


def unban(session: Session, actor: User, user: User) -> None:
    """Let somebody ask again.

    Raises:
        Conflict: the person is not banned.
    """
    if user.banned_at is None:
        raise Conflict("%(name)s is not banned.", name=user.name)
    user.banned_at, user.ban_reason = None, ""
    audit.note(session, actor, "unban", f"user:{user.id}")


def stop_all(session: Session, user: User) -> None:
    """Take everything of a person out of the line, and stop what is being written for them."""
    waiting = select(Turn).join(Chat, Chat.id == Turn.chat_id).where(Chat.user_id == user.id, Turn.status.in_(OPEN))
    for turn in session.scalars(waiting).all():
        chats.cancel_turn(session, turn)
    asked = select(ApiCall.id).where(ApiCall.user_id == user.id, ApiCall.status.in_(OPEN))
    for call_id in session.scalars(asked).all():
        calls.cancel(session, call_id)
