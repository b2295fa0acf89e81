"""The stream of a turn: its place in line, then its answer, whatever goes away meanwhile."""

import asyncio
import json
import re
import threading
import time

import pytest
from sqlalchemy import select

from registry import chats, db, events, tickets
from registry.estimates import Place
from registry.models import Turn, User
from registry.models.base import FINISHED
from server import pulse, turns
from tests.factories import make_checkpoint, make_run
from tests.server.visitors import Visitor, member

pytestmark = pytest.mark.usefixtures("database")
DONE = {"status": "finished", "finish_reason": "stop", "error": ""}


def ask(name: str = "mei") -> Turn:
    """A queued message of this person."""
    with db.transaction() as session:
        user = session.scalars(select(User).where(User.name == name)).one()
        checkpoint = make_checkpoint(session, make_run(session), 500)
        return chats.open_turn(session, chats.open_chat(session, user, checkpoint), "To be, or")


def answer(turn_id: int, text: str) -> None:
    """What a worker leaves behind."""
    with db.transaction() as session:
        claim = tickets.claim(session, "worker")
        assert claim is not None
        tickets.finish(session, claim.ticket_id, claim.fence, FINISHED)
        chats.close_turn(session, turn_id, status=FINISHED, answer=text, finish_reason="stop", completion_tokens=4)


def tell(turn: Turn, number: int, kind: str, data: dict[str, object]) -> None:
    """One event, as the worker with the first ticket writes it."""
    assert events.append(f"turn:{turn.id}", kind, data, fence=1, number=number)


def read_stream(visitor: Visitor, turn_id: int, **headers: str) -> list[tuple[str, dict[str, str]]]:
    """Every event until the stream ends."""
    text = visitor.get(f"/chat/turns/{turn_id}/events", accept="text/event-stream", **headers).text
    found = re.findall(r"event: (\w+)\ndata: (.*)\n", text)
    return [(kind, json.loads(data)) for kind, data in found]


class TestStream:
    def test_it_replays_the_answer_from_the_start(self, redis_url: str) -> None:
        visitor = member()
        turn = ask()
        tell(turn, 1, "start", {"attempt": 1})
        tell(turn, 2, "delta", {"text": "not "})
        tell(turn, 3, "delta", {"text": "to be"})
        tell(turn, 4, "done", DONE)
        sent = [event for event in read_stream(visitor, turn.id) if event[0] != "queued"]
        assert sent == [
            ("start", {"attempt": 1}),
            ("delta", {"text": "not "}),
            ("delta", {"text": "to be"}),
            ("done", DONE),
        ]

    def test_a_reconnecting_browser_gets_the_rest(self, redis_url: str) -> None:
        visitor = member()
        turn = ask()
        tell(turn, 1, "delta", {"text": "old"})
        tell(turn, 2, "delta", {"text": "new"})
        tell(turn, 3, "done", DONE)
        sent = read_stream(visitor, turn.id, **{"last-event-id": "1-1"})
        assert [data["text"] for kind, data in sent if kind == "delta"] == ["new"]

    def test_what_is_written_while_somebody_watches_reaches_them_once_and_in_order(self, redis_url: str) -> None:
        visitor = member()
        turn = ask()

        def write() -> None:
            for number in range(1, 40):
                tell(turn, number, "delta", {"text": f"{number} "})
                time.sleep(0.01)
            tell(turn, 40, "done", DONE)

        worker = threading.Thread(target=write)
        worker.start()
        sent = read_stream(visitor, turn.id)
        worker.join()
        text = "".join(data["text"] for kind, data in sent if kind == "delta")
        assert text == "".join(f"{number} " for number in range(1, 40))

    def test_a_stream_that_expired_ends_from_the_row(self, redis_url: str) -> None:
        visitor = member()
        turn = ask()
        answer(turn.id, "not to be")
        assert read_stream(visitor, turn.id) == [("done", DONE)]

    def test_who_opens_an_answer_that_has_just_ended_is_told_so_at_once(self, redis_url: str) -> None:
        member()
        turn = ask()

        async def open_late() -> turns.Look:
            assert (await turns.look_at(turn.id)).is_open
            await asyncio.to_thread(answer, turn.id, "not to be")  # the shared look still has it in line
            return await turns.look_at(turn.id, trusts_shared=False)

        assert asyncio.run(open_late()).status == FINISHED

    def test_without_a_broker_it_waits_and_ends_from_the_row(self) -> None:
        visitor = member()
        turn = ask()
        worker = threading.Thread(target=lambda: (time.sleep(1), answer(turn.id, "not to be")))
        worker.start()
        sent = read_stream(visitor, turn.id)
        worker.join()
        assert [kind for kind, _ in sent] == ["queued", "done"]
        assert "Waiting for the service" in sent[0][1]["text"]

    def test_who_waits_is_told_their_place_and_how_long(self, redis_url: str) -> None:
        events.worker_beat("w", "idle", {"max_answers": 1, "patience": 20.0, "load_seconds": 0.5})
        pulse.forget()
        visitor = member()
        first, second = ask(), ask()
        sending = threading.Timer(1.0, lambda: events.append(f"turn:{second.id}", "done", DONE))
        sending.start()
        sent = read_stream(visitor, second.id)
        assert first.id < second.id
        assert sent[0][0] == "queued"
        assert sent[0][1]["text"].startswith("1 chat ahead of you, about ")
        assert float(sent[0][1]["low"]) < float(sent[0][1]["high"])


class TestPlaceText:
    @pytest.fixture(autouse=True)
    def _workers(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(pulse, "take", lambda: pulse.Pulse(broker=True, workers={"one": "idle"}))

    def test_it_counts_what_is_ahead(self) -> None:
        text = turns.place_text(Place(2, 1, 8.0, 5.6, 11.2))
        assert text == "2 chats and 1 evaluation slice ahead of you, about 6–11 s"

    def test_nothing_ahead(self) -> None:
        assert turns.place_text(Place(0, 0, 0.0, 0.0, 0.6)) == "You are next, about 1–2 s"

    def test_long_waits_are_in_minutes(self) -> None:
        text = turns.place_text(Place(0, 40, 300.0, 150.0, 450.0))
        assert text == "40 evaluation slices ahead of you, about 2–8 minutes"

    def test_without_a_worker_the_place_is_kept(self) -> None:
        assert "Your place in line is kept" in turns.place_text(None)
