"""Requests to the OpenAI-compatible interface: opening, cancelling, and what they have used."""

import datetime as dt
from typing import Any

import pytest
from sqlalchemy import select
from sqlalchemy.orm import Session

from registry import calls, events, keys, tickets
from registry.errors import Conflict, Invalid, Refused
from registry.models import ApiCall, Checkpoint, Ticket, User
from registry.models.base import CANCELLED, FINISHED, QUEUED, RUNNING, utcnow
from tests.factories import make_checkpoint, make_run, make_user


@pytest.fixture
def user(session: Session) -> User:
    return make_user(session)


@pytest.fixture
def checkpoint(session: Session) -> Checkpoint:
    return make_checkpoint(session, make_run(session))


def text(*prompts: Any, n: int = 1, max_tokens: int = 10) -> dict[str, Any]:
    """A request for completions."""
    return {"kind": "text", "prompts": list(prompts), "params": {"max_tokens": max_tokens, "n": n}, "echo": False}


def chat(*contents: str) -> dict[str, Any]:
    """A request for an answer in a conversation."""
    messages = [{"role": "user", "content": content} for content in contents]
    return {"kind": "chat", "messages": messages, "params": {"max_tokens": 10}, "echo": False}


def ticket_of(session: Session, call: ApiCall) -> Ticket:
    return session.scalars(select(Ticket).where(Ticket.call_id == call.id)).one()


def finish(session: Session, call: ApiCall, prompt_tokens: int, completion_tokens: int) -> None:
    """What a worker leaves behind."""
    claim = tickets.claim(session, "w")
    assert claim is not None
    calls.start(session, call.id)
    tickets.finish(session, claim.ticket_id, claim.fence)
    result = [{"index": 0, "text": "fine"}]
    calls.close_call(
        session,
        call.id,
        status=FINISHED,
        result=result,
        finish_reason="stop",
        prompt_tokens=prompt_tokens,
        completion_tokens=completion_tokens,
    )
    session.flush()


def test_a_request_waits_in_the_line_for_all_its_answers(session: Session, user: User, checkpoint: Checkpoint) -> None:
    key = keys.make(session, user, "mine").key
    call = calls.open_call(session, user, key, checkpoint, text("one", [1, 2], n=3, max_tokens=7))
    ticket = ticket_of(session, call)
    assert (ticket.status, ticket.lane, ticket.user_id, ticket.size) == (QUEUED, tickets.CHAT, user.id, 6 * 7)
    assert (call.status, call.key_id, call.public_id[:5]) == (QUEUED, key.id, "cmpl-")
    assert calls.open_call(session, user, key, checkpoint, chat("hi")).public_id.startswith("chatcmpl-")
    assert calls.under_way(session, user)[0] == 2


@pytest.mark.parametrize(
    ("request_", "sentence"),
    [
        (text(""), "empty"),
        (text("fine", []), "empty"),
        (text("x" * 64_001), "64,001 characters"),
        (text([5] * 16_001), "16,001 tokens"),
        (text(*["p"] * 33), "At most 32 prompts"),
        (text(*["p"] * 32, n=3), "At most 64 answers"),
        (chat("x" * 40_000, "y" * 40_000), "characters"),
    ],
)
def test_what_cannot_be_answered_is_refused(
    session: Session, user: User, checkpoint: Checkpoint, request_: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(Invalid, match=sentence):
        calls.open_call(session, user, None, checkpoint, request_)
    assert tickets.num_queued(session) == 0


def test_an_unready_checkpoint_or_a_banned_person_gets_nothing(session: Session, user: User) -> None:
    unready = make_checkpoint(session, make_run(session), ready=False)
    with pytest.raises(Conflict, match="is verifying"):
        calls.open_call(session, user, None, unready, text("hi"))
    user.banned_at = utcnow()
    with pytest.raises(Refused, match="may not ask"):
        calls.open_call(session, user, None, unready, text("hi"))


def test_cancelling_frees_a_queued_place_at_once(session: Session, user: User, checkpoint: Checkpoint) -> None:
    call = calls.open_call(session, user, None, checkpoint, text("hi"))
    calls.cancel(session, call.id)
    session.flush()
    session.expire_all()
    assert (call.status, ticket_of(session, call).status) == (CANCELLED, CANCELLED)
    assert tickets.claim(session, "w") is None
    assert calls.under_way(session, user)[0] == 0


def test_a_running_one_is_left_to_its_worker(
    session: Session, user: User, checkpoint: Checkpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    call = calls.open_call(session, user, None, checkpoint, text("hi"))
    assert tickets.claim(session, "w") is not None
    calls.start(session, call.id)
    stopped: list[str] = []
    monkeypatch.setattr(events, "request_stop", stopped.append)
    calls.cancel(session, call.id)
    assert call.status == RUNNING
    assert stopped == [f"call:{call.id}"]


def test_a_call_that_a_worker_took_just_now_is_asked_to_stop(
    session: Session, user: User, checkpoint: Checkpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    call = calls.open_call(session, user, None, checkpoint, text("hi"))
    calls.start(session, call.id)
    calls.requeue(session, call.id)
    assert call.status == QUEUED
    stopped: list[str] = []
    monkeypatch.setattr(events, "request_stop", stopped.append)
    calls.cancel(session, call.id)
    assert stopped == [f"call:{call.id}"]


def test_usage_is_told_by_day_and_key(session: Session, user: User, checkpoint: Checkpoint) -> None:
    one, two = (keys.make(session, user, name).key for name in ("one", "two"))
    for key, read, written in ((one, 10, 5), (one, 1, 2), (two, 100, 50)):
        finish(session, calls.open_call(session, user, key, checkpoint, text("hi")), read, written)
    old = calls.open_call(session, user, one, checkpoint, text("hi"))
    finish(session, old, 1_000, 0)
    old.created_at = utcnow() - dt.timedelta(days=2)
    ancient = calls.open_call(session, user, one, checkpoint, text("hi"))
    finish(session, ancient, 5_000, 0)
    ancient.created_at = utcnow() - dt.timedelta(days=40)
    session.flush()
    today = utcnow().date()
    assert calls.usage(session, user) == [
        calls.Usage(today, one.id, 2, 11, 7),
        calls.Usage(today, two.id, 1, 100, 50),
        calls.Usage(today - dt.timedelta(days=2), one.id, 1, 1_000, 0),
    ]
    assert calls.usage(session, user)[0].tokens == 18
    assert calls.usage(session, make_user(session)) == []


def test_todays_tokens_count_what_is_under_way(session: Session, user: User, checkpoint: Checkpoint) -> None:
    finish(session, calls.open_call(session, user, None, checkpoint, text("hi")), 30, 12)
    calls.open_call(session, user, None, checkpoint, text("hi", max_tokens=100, n=2))
    assert calls.today(session, user) == calls.Today(used=42, reserved=200)
    assert calls.today(session, make_user(session)) == calls.Today(0, 0)


def test_texts_are_forgotten_an_hour_after_the_end(session: Session, user: User, checkpoint: Checkpoint) -> None:
    fresh, old = (calls.open_call(session, user, None, checkpoint, text("secret")) for _ in range(2))
    waiting = calls.open_call(session, user, None, checkpoint, text("later"))
    for call in (fresh, old):
        finish(session, call, 3, 4)
    old.finished_at = utcnow() - calls.KEPT - dt.timedelta(seconds=1)
    session.flush()
    assert calls.empty_delivered(session) == 1
    session.expire_all()
    assert (old.request, old.result, old.completion_tokens) == ({}, None, 4)
    assert fresh.result == [{"index": 0, "text": "fine"}]
    assert waiting.request["prompts"] == ["later"]
    assert calls.empty_delivered(session) == 0
