"""Leaving: what goes with an account, what stays without a name, and what may be taken along. On both databases."""

import orjson
import pytest
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from registry import accounts, audit, calls, chats, conversations, db, departures, events, keys, news, reports
from registry.errors import Refused
from registry.models import (
    ApiCall,
    ApiKey,
    AuditEntry,
    Chat,
    ChatGroup,
    LoginSession,
    Post,
    Report,
    Ticket,
    Turn,
    User,
    Vote,
)
from registry.models.base import FINISHED
from tests.factories import make_checkpoint, make_run, make_user

ALONE = (Chat, ChatGroup, Turn, ApiKey, ApiCall, LoginSession, Ticket)


def count(session: Session, table: type) -> int:
    return session.scalar(select(func.count()).select_from(table)) or 0


def live(session: Session, name: str) -> User:
    """Somebody who has used everything."""
    user = make_user(session, name)
    session.flush()
    checkpoint = make_checkpoint(session, make_run(session, f"run-{name}"))
    accounts.open_session(session, user)
    chat = chats.open_chat(session, user, checkpoint)
    turn = chats.open_turn(session, chat, f"{name} asks")
    chats.close_turn(session, turn.id, status=FINISHED, answer=f"an answer for {name}", finish_reason="stop")
    chats.open_turn(session, chat, "and waits")
    conversations.share(session, chats.get_chat(session, user, chat.public_id))
    chats.fork(session, user, chats.get_chat(session, user, chat.public_id), turn, checkpoint)
    group = chats.open_group(session, user, "battle", [checkpoint, checkpoint])
    key = keys.make(session, user, "a program")
    calls.open_call(
        session, user, key.key, checkpoint, {"kind": "text", "prompts": ["Hello"], "params": {"max_tokens": 8}}
    )
    vote = Vote(group_id=group.id, run_id=checkpoint.run_id, left_id=checkpoint.id, right_id=checkpoint.id)
    vote.choice, vote.left_tokens, vote.right_tokens = "left", 3, 4
    vote.prompt_hash, vote.voter, vote.address_hash, vote.signature = "p", "v", "a", "s"
    vote.user_id = user.id
    session.add(vote)
    news.publish_post(session, title="A post", body="", author=user)
    audit.note(session, user, "prompt_refused", "pattern:1")
    session.flush()
    return user


def test_everything_that_is_only_ones_own_goes_and_the_record_stays_without_a_name(session: Session) -> None:
    before = {table: count(session, table) for table in ALONE}
    mei = live(session, "mei")
    other = live(session, "other")
    of_mei = session.scalars(select(Turn).join(Chat).where(Chat.user_id == mei.id, Turn.status == FINISHED)).first()
    of_other = session.scalars(select(Turn).join(Chat).where(Chat.user_id == other.id, Turn.status == FINISHED)).first()
    assert of_mei is not None
    assert of_other is not None
    reports.report(session, mei, of_other, "wrong")
    # A copy of mei's thread that somebody else went on with stays theirs.
    copied = chats.fork(session, other, chats.get_turn(session, of_mei.id).chat, of_mei, of_mei.chat.checkpoint)
    session.flush()
    session.expire_all()
    both = {table: count(session, table) for table in ALONE}

    departures.delete(session, session.get_one(User, mei.id))
    departures_of = mei.id
    session.flush()
    session.expire_all()

    assert session.scalar(select(User.id).where(User.id == departures_of)) is None
    for table in ALONE:
        # Both have used the same, but for the copy.
        extra = {Chat: 1, Turn: 1}.get(table, 0)
        assert count(session, table) - before[table] == (both[table] - before[table] + extra) // 2, table.__name__
    kept = session.get(Chat, copied.id)
    assert kept is not None
    assert kept.forked_from_id is None
    first = session.scalars(select(Vote).order_by(Vote.id)).first()
    assert (first.user_id, first.group_id) == (None, None)
    assert session.scalars(select(Post).order_by(Post.id)).first().author_id is None
    assert [one.user_id for one in session.scalars(select(Report))] == [None]
    deeds = session.scalars(select(AuditEntry).where(AuditEntry.action == "prompt_refused").order_by(AuditEntry.id))
    assert [(one.actor_id, one.actor_name) for one in deeds] == [(None, audit.DELETED), (other.id, "other")]
    assert audit.list_entries(session, action="account_deleted").total == 1


@pytest.mark.usefixtures("database")
def test_the_broker_forgets_the_answers_of_who_has_left(redis_url: str) -> None:
    with db.transaction() as session:
        user = make_user(session, "mei")
        chat = chats.open_chat(session, user, make_checkpoint(session, make_run(session)))
        subject = events.subject_of(turn_id=chats.open_turn(session, chat, "a secret").id)
    assert events.append(subject, "delta", {"text": "kept?"})
    with db.transaction() as session:
        departures.delete(session, session.get_one(User, user.id))
    assert not events.client().exists(events.answer_key(subject))


def test_the_last_administrator_stays(session: Session) -> None:
    keeper = make_user(session, role="admin")
    session.flush()
    with pytest.raises(Refused):
        departures.delete(session, keeper)
    make_user(session, role="admin")
    session.flush()
    departures.delete(session, keeper)


def test_an_export_holds_what_is_kept_and_no_secret(session: Session) -> None:
    mei = live(session, "mei")
    live(session, "other")
    session.expire_all()
    text = departures.export(session, session.get_one(User, mei.id))
    found = orjson.loads(text)
    assert found["account"]["name"] == "mei"
    assert [turn["answer"] for turn in found["conversations"][0]["turns"]] == ["an answer for mei"]
    assert found["api_calls"][0]["request"]["prompts"] == ["Hello"]
    assert (len(found["votes"]), len(found["api_keys"]), len(found["logins"])) == (1, 1, 1)
    assert b"other asks" not in text
    assert b"hash" not in text
