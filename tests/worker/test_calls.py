"""Calls that are answered as a whole: recorded with their ticket, with echo, several choices, and blocked words."""

from typing import Any

import pytest

from registry import blocklist, calls, checkpoints, db, events, tickets
from registry.errors import Conflict
from registry.models import ApiCall
from registry.models.base import CANCELLED, FAILED, FINISHED
from registry.tickets import Claim
from tests.factories import make_user
from tests.worker.conftest import CHAT_TEMPLATE, CONTEXT_LENGTH, VOCAB_SIZE
from worker.calls import answer_call
from worker.engine.scripted import ScriptedEngine
from worker.engine.tokenizer import load_tokenizer

pytestmark = pytest.mark.usefixtures("redis_url")


@pytest.fixture
def open_call(publish, make_checkpoint, redis_url):
    """Opens a call to a published checkpoint and claims its ticket."""
    ids = {
        kind: publish(make_checkpoint(f"calls-{kind}", chat=kind == "chat"), step=step, kind=kind)
        for step, kind in enumerate(("pretrained", "chat"))
    }

    def open_call(request: dict[str, Any], kind: str = "pretrained") -> Claim:
        with db.transaction() as session:
            checkpoint = checkpoints.get_by_id(session, ids[kind])
            calls.open_call(session, make_user(session), None, checkpoint, request)
        with db.transaction() as session:
            claim = tickets.claim(session, "w")
        assert claim is not None
        return claim

    return open_call


def text(*prompts: Any, echo: bool = False, **params: Any) -> dict[str, Any]:
    return {"kind": "text", "prompts": list(prompts), "params": {"max_tokens": 4, **params}, "echo": echo}


def answer(claim: Claim, engine: ScriptedEngine | None = None) -> ApiCall:
    """Answers a call and gives its row."""
    answer_call(claim, engine or ScriptedEngine(), lambda: None)
    with db.read_session() as session:
        assert claim.call_id is not None
        return calls.get(session, claim.call_id)


def told(claim: Claim) -> list[str]:
    """The kinds of events in the call's stream."""
    entries = events.client().xrange(events.answer_key(f"call:{claim.call_id}"))
    return [fields["kind"] for _, fields in entries]  # type: ignore[union-attr]


def test_every_prompt_gets_its_answers_in_order(open_call):
    claim = open_call(text("one two three four five", [5, 6], n=2))
    call = answer(claim)
    assert (call.status, call.finish_reason) == (FINISHED, "stop")
    assert call.result is not None
    assert [choice["index"] for choice in call.result] == [0, 1, 2, 3]
    assert call.result[0]["text"] == call.result[1]["text"] != call.result[2]["text"]
    assert call.result[0]["tokens"] is None
    assert call.completion_tokens == sum(choice["completion_tokens"] for choice in call.result)
    assert call.prompt_tokens == call.result[0]["prompt_tokens"] + 2
    assert told(claim) == ["start", "done"]


def test_echo_brings_the_prompt_and_its_logprobs(open_call):
    call = answer(open_call(text([5, 6, 7, 8], echo=True, logprobs=1, max_tokens=1)))
    assert call.result is not None
    [choice] = call.result
    tokenizer = load_tokenizer(checkpoints.path(call.checkpoint))
    assert choice["text"].startswith(tokenizer.decode([5, 6, 7, 8]))
    assert "".join(row[0] for row in choice["tokens"]) == choice["text"]
    assert choice["tokens"][0][1] is None
    assert all(row[1] < 0 and len(row[2]) >= 1 for row in choice["tokens"][1:4])


def test_echo_alone_writes_nothing(open_call):
    call = answer(open_call(text("Sein oder", "Nichtsein", echo=True, logprobs=0, max_tokens=0)))
    assert call.result is not None
    assert [choice["text"] for choice in call.result] == ["Sein oder", "Nichtsein"]
    assert call.completion_tokens == 0
    assert call.result[0]["tokens"][0][:2] == [call.result[0]["tokens"][0][0], None]


def test_echo_without_logprobs_is_only_text(open_call):
    [choice] = answer(open_call(text("Sein", echo=True))).result or []
    assert choice["text"].startswith("Sein")
    assert choice["tokens"] is None


def test_with_echo_nothing_is_cut_off(open_call):
    claim = open_call(text([5] * (CONTEXT_LENGTH - 3), echo=True, logprobs=1))
    call = answer(claim)
    assert (call.status, call.finish_reason, call.result) == (FAILED, calls.NOT_FITTING, None)
    assert f"reads {CONTEXT_LENGTH} tokens" in call.error
    assert told(claim) == ["start", "done"]
    fitting = answer(open_call(text([5] * (CONTEXT_LENGTH - 4), echo=True, logprobs=1)))
    assert fitting.status == FINISHED


def test_a_token_that_the_model_does_not_know_is_refused(open_call):
    call = answer(open_call(text([VOCAB_SIZE + 1], [4])))
    assert (call.status, call.finish_reason) == (FAILED, calls.NOT_FITTING)
    assert "this model knows those from 0" in call.error


def test_a_chat_model_gets_its_template(open_call):
    assert "role" in CHAT_TEMPLATE
    messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"}]
    request = {"kind": "chat", "messages": messages, "params": {"max_tokens": 100, "n": 2}, "echo": False}
    call = answer(open_call(request, "chat"))
    assert call.result is not None
    assert len(call.result) == 2
    assert "system: Be brief." in call.result[0]["text"]  # the scripted engine says what it was asked


def test_an_answer_ends_where_it_would_say_what_is_blocked(open_call):
    with db.transaction() as session:
        blocklist.add(session, make_user(session, role="admin"), "forbidden", direction="out")
    call = answer(open_call(text("good and forbidden fruit", "good", max_tokens=60, logprobs=0)))
    assert call.result is not None
    assert [choice["finish_reason"] for choice in call.result] == ["content_filter", "stop"]
    assert call.result[0]["text"] == "good and "
    assert "forbidden" not in "".join(row[0] for row in call.result[0]["tokens"])


def test_a_stop_ends_it_and_is_recorded(open_call):
    claim = open_call(text("one", "two"))
    engine = ScriptedEngine(seconds_per_token=0.5)
    events.request_stop(f"call:{claim.call_id}")
    call = answer(claim, engine)
    assert (call.status, call.finish_reason, call.result) == (CANCELLED, "cancelled", None)
    assert told(claim) == ["start", "done"]


def test_a_report_that_comes_too_late_counts_for_nothing(open_call):
    claim = open_call(text("one", "two"))
    with db.transaction() as session:
        tickets.cancel(session, call_id=claim.call_id)
    with pytest.raises(Conflict):
        answer(claim)
    with db.read_session() as session:
        assert claim.call_id is not None
        assert calls.get(session, claim.call_id).result is None
    assert told(claim) == ["start"]
