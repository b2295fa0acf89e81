"""Bans: asking is taken away, with what waits in line; nothing else is."""

import pytest
from sqlalchemy import select
from sqlalchemy.orm import Session

from registry import accounts, bans, calls, chats
from registry.errors import Conflict, Invalid, Refused
from registry.models import AuditEntry, Ticket
from registry.models.base import CANCELLED
from tests.factories import make_checkpoint, make_run, make_user


def test_a_banned_person_can_ask_nothing_and_leaves_the_line(session: Session) -> None:
    keeper, mei = make_user(session, role="admin"), make_user(session, "mei")
    session.flush()
    checkpoint = make_checkpoint(session, make_run(session))
    chat = chats.open_chat(session, mei, checkpoint)
    turn = chats.open_turn(session, chat, "Hello")
    request = {"kind": "text", "prompts": ["Hello"], "params": {"max_tokens": 8}}
    call = calls.open_call(session, mei, None, checkpoint, request)
    session.flush()

    bans.ban(session, keeper, mei, "  sends   spam ")

    assert (turn.status, call.status) == (CANCELLED, CANCELLED)
    assert set(session.scalars(select(Ticket.status).where(Ticket.user_id == mei.id))) == {CANCELLED}
    assert mei.ban_reason == "sends spam"
    with pytest.raises(Refused, match="sends spam"):
        chats.open_turn(session, chat, "Hello again")
    assert accounts.authenticate(session, "mei", "correct horse") is mei

    bans.unban(session, keeper, mei)
    assert chats.open_turn(session, chat, "Hello again").prompt == "Hello again"
    session.flush()
    trail = session.execute(select(AuditEntry.action, AuditEntry.subject).order_by(AuditEntry.id)).all()
    assert [tuple(one) for one in trail] == [("ban", f"user:{mei.id}"), ("unban", f"user:{mei.id}")]


def test_a_ban_needs_a_reason_and_somebody_else_who_is_not_banned(session: Session) -> None:
    keeper, mei = make_user(session, role="admin"), make_user(session)
    session.flush()
    with pytest.raises(Refused):
        bans.ban(session, keeper, keeper, "tired")
    with pytest.raises(Invalid):
        bans.ban(session, keeper, mei, "  ")
    with pytest.raises(Conflict):
        bans.unban(session, keeper, mei)
    bans.ban(session, keeper, mei, "spam")
    with pytest.raises(Conflict):
        bans.ban(session, keeper, mei, "spam")
