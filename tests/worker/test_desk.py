"""Writing answers with a real checkpoint folder, a real database and a real broker."""

import json
import threading
import time
from collections.abc import Generator, Sequence
from pathlib import Path

import pytest

from registry import blocklist, chats, checkpoints, db, events, tickets
from registry.models.base import CANCELLED, FAILED, FINISHED, QUEUED
from registry.tickets import Claim
from tests.factories import make_user
from worker.desk import Desk
from worker.engine.protocol import Abort, Asked, Delta, EngineDown, Sampling
from worker.engine.scripted import ScriptedEngine
from worker.line import Residency
from worker.outcomes import MAX_ATTEMPTS, fail


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


class Slow(ScriptedEngine):
    """Takes long to start."""

    def __init__(self) -> None:
        super().__init__()
        self.ready = threading.Event()

    def use(self, folder: Path) -> None:
        self.ready.wait(10)
        super().use(folder)


class Dying(ScriptedEngine):
    """Dies in the middle of an answer."""

    def stream(self, prompt: list[int], sampling: Sampling) -> Generator[Delta, None, None]:
        yield Delta("half")
        raise EngineDown("The engine died.")


class DyingTwice(ScriptedEngine):
    """Tells its death to the answer first, and then to whoever began it."""

    def begin(self, asked: Sequence[Asked]) -> list[Abort]:
        for one in asked:
            one.put(EngineDown("The engine died."))
        time.sleep(0.5)
        raise EngineDown("The engine died.")


class Broken(ScriptedEngine):
    """Fails as no engine should."""

    def use(self, folder: Path) -> None:
        raise KeyError("secret")


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
    entries = events.client().xrange(events.answer_key(f"turn:{claim.turn_id}"))
    return [(fields["kind"], json.loads(fields["data"])) for _, fields in entries]


def turn_of(claim: Claim):
    with db.read_session() as session:
        return chats.get_turn(session, claim.turn_id)


@pytest.fixture
def desk(database):
    """A desk of a worker that does not stop."""
    stopping = threading.Event()
    yield Desk(Residency("test"), stopping, on_end=lambda: None)
    stopping.set()


def write(desk: Desk, claim: Claim, engine: ScriptedEngine, seconds: float = 10.0) -> None:
    """Writes the answer of a claim to its end."""
    desk.begin(claim, engine)
    wait_until(lambda: desk.num_open == 0, seconds)


def wait_until(holds, seconds: float = 10.0) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, "it took too long"
        time.sleep(0.01)


def test_the_stream_starts_carries_the_text_and_ends_after_the_record(ask, desk):
    claim = ask("To be, or not to be")
    write(desk, claim, ScriptedEngine())

    kinds = [kind for kind, _ in sent(claim)]
    assert kinds[0] == "start"
    assert kinds[-1] == "done"
    assert "".join(data["text"] for kind, data in sent(claim) if kind == "delta") == "To be, or not to be"
    turn = turn_of(claim)
    assert (turn.status, turn.answer, turn.finish_reason) == (FINISHED, "To be, or not to be", "stop")
    assert turn.prompt_tokens == turn.completion_tokens
    assert sent(claim)[-1][1] == {"status": FINISHED, "finish_reason": "stop", "error": ""}


def test_pieces_that_come_fast_are_sent_together(ask, desk):
    claim = ask()
    write(desk, claim, Pieces(*"abcdefghijklmnopqrstuvwxyz" * 4))
    assert len([kind for kind, _ in sent(claim) if kind == "delta"]) <= 10  # of 104
    assert turn_of(claim).answer == "abcdefghijklmnopqrstuvwxyz" * 4


def test_an_answer_s_beginning_and_end_are_told_at_once_and_hurry_no_other(
    publish, redis_url, make_checkpoint, desk, monkeypatch
):
    monkeypatch.setattr("worker.desk.FLUSH_SECONDS", 60.0)
    checkpoint_id = publish(make_checkpoint("base"))
    with db.transaction() as session:
        found = checkpoints.get_by_id(session, checkpoint_id)
        for name in "long", "short":
            chats.open_turn(session, chats.open_chat(session, make_user(session), found), name)
    with db.transaction() as session:
        long, short = (tickets.claim(session, "test") for _ in range(2))
    assert long is not None
    assert short is not None
    desk.begin(long, Pieces("one ", *["two "] * 1_000, pause=0.01))
    wait_until(lambda: any(kind == "delta" for kind, _ in sent(long)))
    desk.begin(short, Pieces("x", "y"))
    wait_until(lambda: desk.num_open == 1)

    assert turn_of(short).answer == "xy"
    assert [data for kind, data in sent(long) if kind == "delta"] == [{"text": "one "}]
    events.request_stop(f"turn:{long.turn_id}")
    wait_until(lambda: desk.num_open == 0)
    assert len(turn_of(long).answer) > len("one ")
    assert turn_of(long).answer == "".join(data["text"] for kind, data in sent(long) if kind == "delta")


def test_half_a_character_is_never_sent(ask, desk):
    claim = ask()
    write(desk, claim, Pieces("中", "\ufffd", pause=0.05))
    assert turn_of(claim).answer == "中"
    assert all("\ufffd" not in data.get("text", "") for _, data in sent(claim))


def test_a_stop_ends_the_engine_s_work_and_keeps_what_was_written(ask, desk):
    claim = ask()
    engine = Pieces("one ", *["two "] * 1_000, pause=0.01)
    desk.begin(claim, engine)
    wait_until(lambda: any(kind == "delta" for kind, _ in sent(claim)))
    events.request_stop(f"turn:{claim.turn_id}")
    wait_until(lambda: desk.num_open == 0)

    turn = turn_of(claim)
    assert (turn.status, turn.finish_reason) == (CANCELLED, "cancelled")
    assert turn.answer.startswith("one ")
    assert len(turn.answer) < 1_000
    assert turn.answer == "".join(data["text"] for kind, data in sent(claim) if kind == "delta")
    assert sent(claim)[-1][1]["status"] == CANCELLED
    wait_until(lambda: engine.closed)


def test_who_leaves_while_the_engine_starts_is_gone_at_once(ask, desk):
    claim = ask()
    engine = Slow()
    beginning = threading.Thread(target=desk.begin, args=(claim, engine))
    beginning.start()
    events.request_stop(f"turn:{claim.turn_id}")
    wait_until(lambda: turn_of(claim).status == CANCELLED)
    engine.ready.set()
    beginning.join()
    assert engine.num_streams_open == 0


def test_an_answer_to_a_ticket_that_was_passed_on_is_dropped(ask, desk):
    claim = ask()
    with db.transaction() as session:
        tickets.give_back(session, claim.ticket_id, claim.fence)
        other = tickets.claim(session, "other")
    write(desk, claim, Pieces("late"))
    assert sent(claim) == []

    write(desk, other, Pieces("in time"))
    assert turn_of(claim).answer == "in time"
    assert [data for kind, data in sent(claim) if kind == "start"] == [{"attempt": 2}]


def test_what_a_worker_writes_after_it_lost_its_ticket_reaches_nobody(ask, desk):
    claim = ask()
    engine = Pieces("late ", *["later "] * 1_000, pause=0.01)
    desk.begin(claim, engine)
    wait_until(lambda: any(kind == "delta" for kind, _ in sent(claim)))
    with db.transaction() as session:
        tickets.give_back(session, claim.ticket_id, claim.fence)
        other = tickets.claim(session, "other")
    write(Desk(Residency("other"), threading.Event(), on_end=lambda: None), other, Pieces("in time"))
    wait_until(lambda: desk.num_open == 0)
    after = [data for kind, data in sent(claim)][[kind for kind, _ in sent(claim)].index("delta") :]
    begun = next(at for at, data in enumerate(after) if data == {"attempt": 2})
    assert after[begun + 1] == {"text": "in time"}
    assert turn_of(claim).answer == "in time"


def test_an_engine_s_death_gives_every_answer_back_to_its_place(ask, desk):
    claim = ask()
    write(desk, claim, Dying())
    assert turn_of(claim).status == QUEUED
    with db.transaction() as session:
        again = tickets.claim(session, "test")
    assert again is not None
    assert (again.ticket_id, again.attempts) == (claim.ticket_id, 2)


def test_a_death_that_is_told_twice_counts_once(ask, desk, monkeypatch):
    claim, released = ask(), []
    release = desk._line.release
    monkeypatch.setattr(desk._line, "release", lambda *args, **named: (released.append(args), release(*args, **named)))
    write(desk, claim, DyingTwice())
    desk._recorder.shutdown()
    assert len(released) == 1
    assert turn_of(claim).status == QUEUED


def test_what_takes_the_engine_down_again_and_again_fails_in_the_end(ask, desk):
    claim = ask()
    for _ in range(MAX_ATTEMPTS - 1):
        write(desk, claim, Dying())
        with db.transaction() as session:
            claim = tickets.claim(session, "test")
    write(desk, claim, Dying())
    assert turn_of(claim).status == FAILED
    assert "went down 5 times" in turn_of(claim).error


def test_a_worker_that_stops_gives_back_without_blame(ask, database):
    stopping = threading.Event()
    desk = Desk(Residency("test"), stopping, on_end=lambda: None)
    claim = ask()
    desk.begin(claim, Pieces(*["word "] * 1_000, pause=0.01))
    wait_until(lambda: any(kind == "delta" for kind, _ in sent(claim)))
    stopping.set()
    wait_until(lambda: desk.num_open == 0)
    with db.transaction() as session:
        again = tickets.claim(session, "test")
    assert again is not None
    assert again.attempts == 1


def test_an_error_nobody_thought_of_is_a_sentence_without_its_text(ask, desk):
    claim = ask()
    write(desk, claim, Broken())
    assert turn_of(claim).status == FAILED
    assert "KeyError" in turn_of(claim).error
    assert "secret" not in turn_of(claim).error


def test_token_probabilities_are_told_and_kept_where_they_are_asked_for(ask, desk):
    claim = ask("To be, or not to be", logprobs=2)
    write(desk, claim, ScriptedEngine())
    told = [row for kind, data in sent(claim) if kind == "delta" for row in data.get("tokens", [])]
    assert "".join(text for text, _, _ in told) == "To be, or not to be"
    assert turn_of(claim).tokens == told


def test_what_is_blocked_is_never_shown_and_ends_the_answer(ask, desk):
    claim = ask()
    with db.transaction() as session:
        blocklist.add(session, make_user(session, role="admin"), "forbidden words", direction="out")
    engine = Pieces("these are for", "bidden", " words", *[" and more"] * 1_000, pause=0.01)
    write(desk, claim, engine)
    turn = turn_of(claim)
    assert (turn.status, turn.finish_reason, turn.answer) == (FINISHED, "content_filter", "these are ")
    assert "".join(data["text"] for kind, data in sent(claim) if kind == "delta") == "these are "
    wait_until(lambda: engine.closed)


def test_after_an_outage_of_the_broker_the_answer_is_told_once_more(ask, desk, monkeypatch):
    claim = ask()
    publish, is_down = events.publish, threading.Event()
    monkeypatch.setattr(events, "publish", lambda pieces: None if is_down.is_set() else publish(pieces))
    desk.begin(claim, Pieces(*[f"word{number} " for number in range(60)], pause=0.02))
    wait_until(lambda: sum(kind == "delta" for kind, _ in sent(claim)) >= 3)
    is_down.set()
    time.sleep(0.3)
    is_down.clear()
    wait_until(lambda: desk.num_open == 0)
    told = sent(claim)
    assert [data for kind, data in told if kind == "start"] == [{"attempt": 1}] * 2
    again = max(at for at, (kind, _) in enumerate(told) if kind == "start")
    assert "".join(data["text"] for kind, data in told[again:] if kind == "delta") == turn_of(claim).answer


def test_a_broker_that_was_started_anew_unnoticed_is_told_everything_once_more(ask, desk, monkeypatch):
    claim = ask()
    desk.begin(claim, Pieces(*[f"word{number} " for number in range(60)], pause=0.02))
    wait_until(lambda: sum(kind == "delta" for kind, _ in sent(claim)) >= 3)
    events.client().delete(events.answer_key(f"turn:{claim.turn_id}"))  # as if it had been killed before it saved
    before = events.broker_generation()
    monkeypatch.setattr(events, "broker_generation", lambda: before + 1)
    wait_until(lambda: desk.num_open == 0)
    told = sent(claim)
    again = max(at for at, (kind, _) in enumerate(told) if kind == "start")
    assert "".join(data["text"] for kind, data in told[again:] if kind == "delta") == turn_of(claim).answer
    assert told[-1][0] == "done"


def test_a_broker_that_was_started_anew_at_the_end_is_told_everything_too(ask, desk, monkeypatch):
    claim, publish = ask(), events.publish
    before = [events.broker_generation()]
    monkeypatch.setattr(events, "broker_generation", lambda: before[0])

    def forget_before_the_end(pieces):
        if any(piece.kind == "done" for piece in pieces) and len(before) == 1:
            events.client().delete(events.answer_key(f"turn:{claim.turn_id}"))
            before[:] = [before[0] + 1, 0]
        return publish(pieces)

    monkeypatch.setattr(events, "publish", forget_before_the_end)
    write(desk, claim, Pieces("one ", "two ", "three"))
    told = sent(claim)
    assert "".join(data["text"] for kind, data in told if kind == "delta") == turn_of(claim).answer
    assert [kind for kind, _ in told][-1] == "done"


def test_many_answers_are_written_at_once_each_whole(publish, redis_url, make_checkpoint, desk):
    checkpoint_id = publish(make_checkpoint("base"))
    with db.transaction() as session:
        found = checkpoints.get_by_id(session, checkpoint_id)
        for number in range(12):
            chats.open_turn(session, chats.open_chat(session, make_user(session), found), f"question {number}")
    claims = []
    with db.transaction() as session:
        while (claim := tickets.claim(session, "test")) is not None:
            claims.append(claim)
    engine = ScriptedEngine(seconds_per_token=0.02)
    for claim in claims:
        desk.begin(claim, engine)
    wait_until(lambda: desk.num_open == 0)
    for claim in claims:
        turn = turn_of(claim)
        assert turn.answer == turn.prompt
        assert turn.answer == "".join(data["text"] for kind, data in sent(claim) if kind == "delta")


def test_a_failure_is_recorded_and_told(ask, desk):
    claim = ask()
    fail(claim, "The engine refused.")
    assert (turn_of(claim).status, turn_of(claim).error) == (FAILED, "The engine refused.")
    assert sent(claim) == [("done", {"status": FAILED, "finish_reason": "error", "error": "The engine refused."})]
