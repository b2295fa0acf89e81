"""Answering chat turns with a real checkpoint folder, a real database and a real broker."""

import json
import time
from collections.abc import Generator

import pytest

from registry import chats, checkpoints, db, events, tickets
from registry.errors import Conflict
from registry.models.base import CANCELLED, FAILED, FINISHED, RUNNING
from registry.tickets import Claim
from tests.factories import make_user
from worker.answer import Question, answer_turn, fail_turn, prompt_tokens, read_sampling
from worker.engine.protocol import Delta, Sampling
from worker.engine.scripted import ScriptedEngine
from worker.engine.tokenizer import load_tokenizer


class Pieces(ScriptedEngine):
    """Streams the given pieces."""

    def __init__(self, *pieces: str, pause: float = 0.0) -> None:
        super().__init__()
        self.pieces, self.pause = pieces, pause
        self.closed = False

    def stream(self, prompt: list[int], sampling: Sampling) -> Generator[Delta, None, None]:
        try:
            for piece in self.pieces:
                time.sleep(self.pause)
                yield Delta(piece)
            yield Delta("", "length", len(prompt), len(self.pieces))
        finally:
            self.closed = True


@pytest.fixture
def ask(publish, redis_url, make_checkpoint):
    """Asks a checkpoint something and claims the ticket."""

    def ask(prompt: str = "To be, or", **params) -> Claim:
        checkpoint_id = publish(make_checkpoint("base"))
        with db.transaction() as session:
            chat = chats.open_chat(session, make_user(session), checkpoints.get_by_id(session, checkpoint_id))
            chats.open_turn(session, chat, prompt, params)
        with db.transaction() as session:
            claim = tickets.claim(session, "test")
        assert claim is not None
        return claim

    return ask


def sent(claim: Claim) -> list[tuple[str, dict]]:
    assert claim.turn_id is not None
    entries = events.client().xrange(events.turn_key(claim.turn_id))
    return [(fields["kind"], json.loads(fields["data"])) for _, fields in entries]


def turn_of(claim: Claim):
    with db.read_session() as session:
        return chats.get_turn(session, claim.turn_id)


def go_on() -> None:
    """The check of a lease that is never lost."""


def test_the_stream_starts_carries_the_text_and_ends_after_the_record(ask):
    claim = ask("To be, or not to be")
    answer_turn(claim, ScriptedEngine(), go_on)

    kinds = [kind for kind, _ in sent(claim)]
    assert kinds[0] == "start"
    assert kinds[-1] == "done"
    assert "".join(data["text"] for kind, data in sent(claim) if kind == "delta") == "To be, or not to be"
    turn = turn_of(claim)
    assert (turn.status, turn.answer, turn.finish_reason) == (FINISHED, "To be, or not to be", "stop")
    assert turn.prompt_tokens == turn.completion_tokens
    assert sent(claim)[-1][1] == {"status": FINISHED, "finish_reason": "stop", "error": ""}


def test_pieces_that_come_fast_are_sent_together(ask):
    claim = ask()
    answer_turn(claim, Pieces(*"abcdefghijklmnopqrstuvwxyz" * 4), go_on)
    assert len([kind for kind, _ in sent(claim) if kind == "delta"]) <= 3
    assert turn_of(claim).answer == "abcdefghijklmnopqrstuvwxyz" * 4


def test_half_a_character_is_never_sent(ask):
    claim = ask()
    answer_turn(claim, Pieces("中", "\ufffd", pause=0.05), go_on)
    assert turn_of(claim).answer == "中"
    assert all("\ufffd" not in data.get("text", "") for _, data in sent(claim))


def test_a_stop_ends_the_engine_s_work_and_keeps_what_was_written(ask):
    claim = ask()
    events.request_stop(claim.turn_id)
    engine = Pieces("one ", "two ", "three ", pause=0.05)
    answer_turn(claim, engine, go_on)

    turn = turn_of(claim)
    assert (turn.status, turn.answer, turn.finish_reason) == (CANCELLED, "one ", "cancelled")
    assert engine.closed
    assert sent(claim)[-1][1]["status"] == CANCELLED


def test_an_answer_to_a_ticket_that_was_passed_on_is_dropped(ask):
    claim = ask()
    with db.transaction() as session:
        tickets.give_back(session, claim.ticket_id, claim.fence)
        other = tickets.claim(session, "other")
    with pytest.raises(Conflict):
        answer_turn(claim, Pieces("late"), go_on)
    assert turn_of(claim).answer == ""
    assert turn_of(claim).status == RUNNING
    assert "done" not in [kind for kind, _ in sent(claim)]

    answer_turn(other, Pieces("in time"), go_on)
    assert turn_of(claim).answer == "in time"
    assert [data for kind, data in sent(claim) if kind == "start"] == [{"attempt": 1}, {"attempt": 2}]


def test_a_failure_is_recorded_and_told(ask):
    claim = ask()
    fail_turn(claim, "The engine refused.")
    assert (turn_of(claim).status, turn_of(claim).error) == (FAILED, "The engine refused.")
    assert sent(claim) == [("done", {"status": FAILED, "finish_reason": "error", "error": "The engine refused."})]


class TestPromptTokens:
    def test_a_base_model_goes_on_from_the_text_alone(self, make_checkpoint):
        folder = make_checkpoint("base")
        messages = [
            {"role": "user", "content": "earlier"},
            {"role": "assistant", "content": "answer"},
            {"role": "user", "content": "To be"},
        ]
        token_ids = prompt_tokens(Question(folder, False, messages, Sampling()))
        assert load_tokenizer(folder).decode(token_ids) == "<|begin|>To be"

    def test_a_chat_model_gets_its_template_and_the_history(self, make_checkpoint):
        folder = make_checkpoint("chat", chat=True)
        messages = [
            {"role": "user", "content": "hi"},
            {"role": "assistant", "content": "ho"},
            {"role": "user", "content": "who?"},
        ]
        token_ids = prompt_tokens(Question(folder, True, messages, Sampling(max_tokens=8)))
        assert load_tokenizer(folder).decode(token_ids) == "<|begin|>user: hi\nassistant: ho\nuser: who?\nassistant:"

    def test_history_that_does_not_fit_leaves_exchange_by_exchange(self, make_checkpoint):
        folder = make_checkpoint("chat", chat=True)
        messages = []
        for number in range(5):
            messages += [
                {"role": "user", "content": f"{number} " * 12},
                {"role": "assistant", "content": "word " * 8},
            ]
        messages.append({"role": "user", "content": "the last"})
        text = load_tokenizer(folder).decode(prompt_tokens(Question(folder, True, messages, Sampling(max_tokens=16))))
        assert text.startswith("<|begin|>user: ")
        assert text.endswith("user: the last\nassistant:")
        assert "0 0" not in text


def test_sampling_has_openai_s_names_and_sensible_defaults():
    assert read_sampling({}).temperature > 0
    given = read_sampling({"max_tokens": 7, "temperature": 0, "top_p": 0.5, "seed": 3})
    assert given == Sampling(max_tokens=7, temperature=0.0, top_p=0.5, seed=3)
