"""Verbs of leaving: everything that an account holds, to take along, and the account's end.

Conversations, groups, calls, keys and logins go with the account, by their foreign keys. What belongs to others or to
the record stays without a name: votes, proposed prompts, reports, posts, and the deeds in the audit trail.
"""

from typing import Any

import orjson
from sqlalchemy import delete as sql_delete
from sqlalchemy import func, or_, select
from sqlalchemy.orm import Session, selectinload

from registry import audit, bans, chatfiles, events
from registry.errors import Refused
from registry.models import ApiCall, ApiKey, Chat, ChatGroup, LoginSession, ProposedPrompt, Report, Turn, User, Vote
from registry.models.chats import BATTLE

BATCH = 50


def export(session: Session, user: User) -> bytes:
    """Everything that is kept under a person's account, as JSON; secrets are not, since only their hashes are kept."""
    content = {
        "account": _fields(user, "name", "role", "created_at", "banned_at", "ban_reason"),
        "logins": _rows(session, LoginSession, user, "user_agent", "created_at", "last_seen_at", "revoked_at"),
        "conversations": _conversations(session, user),
        "groups": _rows(session, ChatGroup, user, "public_id", "kind", "title", "created_at", "cleared_at"),
        "api_keys": _rows(
            session, ApiKey, user, "name", "prefix", "scopes", "created_at", "last_used_at", "revoked_at",
        ),
        "api_calls": _rows(
            session, ApiCall, user, "public_id", "status", "request", "result", "prompt_tokens", "completion_tokens",
            "created_at",
        ),
        "votes": _rows(session, Vote, user, "choice", "left_id", "right_id", "voter", "created_at"),
        "proposed_prompts": _rows(session, ProposedPrompt, user, "text", "state", "created_at"),
        "reports": _rows(session, Report, user, "turn_id", "reason", "note", "state", "created_at"),
    }  # fmt: skip
    return orjson.dumps(content, option=orjson.OPT_INDENT_2)


def delete(session: Session, user: User) -> None:
    """End an account, with everything that is only its own.

    Raises:
        Refused: nobody else could administer the site.
    """
    if user.is_admin and not _has_other_admin(session, user):
        raise Refused("You are the only administrator: make somebody else one first, then leave.")
    bans.stop_all(session, user)
    audit.forget_name(session, user)
    audit.note(session, None, "account_deleted", f"user:{user.id}")
    session.flush()
    _forget_answers(session, user)
    session.execute(sql_delete(User).where(User.id == user.id), execution_options={"synchronize_session": False})


def _forget_answers(session: Session, user: User) -> None:
    turns = session.scalars(select(Turn.id).join(Chat).where(Chat.user_id == user.id))
    events.forget(session, [events.subject_of(turn_id=number) for number in turns])
    calls = session.scalars(select(ApiCall.id).where(ApiCall.user_id == user.id))
    events.forget(session, [events.subject_of(call_id=number) for number in calls])


def _has_other_admin(session: Session, user: User) -> bool:
    others = select(func.count(User.id)).where(User.role == "admin", User.id != user.id, User.disabled_at.is_(None))
    return bool(session.scalar(others))


def _conversations(session: Session, user: User) -> list[Any]:
    """All threads, those that the person has deleted but that are kept for a while included; no undecided battle."""
    blind = select(ChatGroup.id).outerjoin(Vote, Vote.group_id == ChatGroup.id)
    blind = blind.where(ChatGroup.kind == BATTLE, ChatGroup.cleared_at.is_(None), Vote.id.is_(None))
    query = select(Chat).where(Chat.user_id == user.id, or_(Chat.group_id.is_(None), Chat.group_id.not_in(blind)))
    query = query.order_by(Chat.id).options(selectinload(Chat.turns))
    found = []
    for chat in session.scalars(query.execution_options(yield_per=BATCH)):
        kept = {"public_id": chat.public_id, "group_id": chat.group_id, "shared": chat.share_token is not None}
        found.append({**orjson.loads(chatfiles.to_json(chat)), **kept, "deleted_at": chat.cleared_at})
    return found


def _rows(session: Session, table: type[Any], user: User, *names: str) -> list[dict[str, Any]]:
    return [_fields(row, *names) for row in session.scalars(select(table).where(table.user_id == user.id))]


def _fields(row: Any, *names: str) -> dict[str, Any]:
    return {name: getattr(row, name) for name in names}
