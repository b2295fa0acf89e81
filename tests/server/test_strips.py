"""The one stream of a group: its answers, places in line, ends that no event told, and what is said of them all."""

import asyncio
import json
import re
import threading
import time
from contextlib import suppress

import pytest
from sqlalchemy import select

from registry import ages, chats, db, events, tickets
from registry.estimates import Place
from registry.models import User
from registry.models.base import FINISHED
from server import limits, live, pulse, strips
from tests.factories import make_checkpoint, make_run
from tests.server.visitors import Visitor, member

pytestmark = pytest.mark.usefixtures("database")
DONE = {"status": "finished", "finish_reason": "stop", "error": ""}


@pytest.fixture(autouse=True)
def _unlimited(database: object) -> None:
    limits._memory.reset()


def ask(kind: str = "side", name: str = "mei") -> tuple[str, list[int]]:
    """Three checkpoints asked the same by this person: the address, and the turns."""
    with db.transaction() as session:
        user = session.scalars(select(User).where(User.name == name)).one()
        run = make_run(session)
        asked = [make_checkpoint(session, run, step) for step in (0, 100, 500)]
        opening = ages.open_side if kind == "side" else ages.open_film
        group = opening(session, user, asked, "To be, or", {"max_tokens": 8})
        session.flush()
        session.expire_all()
        found = chats.get_group(session, user, group.public_id)
        return f"/chat/{kind}/{group.public_id}", [chat.turns[0].id for chat in found.chats]


def answer(turn_id: int, text: str) -> None:
    """What a worker leaves behind, without a word on any stream."""
    with db.transaction() as session:
        ticket = tickets.for_turn(session, turn_id)
        assert ticket is not None
        ticket.status = FINISHED
        chats.close_turn(session, turn_id, status=FINISHED, answer=text, finish_reason="stop")


def write(turn_id: int, *pieces: str) -> None:
    """What a worker tells."""
    assert events.append(f"turn:{turn_id}", "start", {"attempt": 1}, fence=1, number=1)
    for number, text in enumerate(pieces, start=2):
        assert events.append(
            f"turn:{turn_id}", "delta", {"text": text, "tokens": [[text, -1, []]]}, fence=1, number=number
        )
    assert events.append(f"turn:{turn_id}", "done", DONE, fence=1, number=len(pieces) + 2)


def read(visitor: Visitor, address: str) -> list[tuple[str, dict[str, object]]]:
    """Every event until the stream ends."""
    text = visitor.get(f"{address}/events", accept="text/event-stream").text
    return [(kind, json.loads(data)) for kind, data in re.findall(r"event: (\w+)\ndata: (.*)\n", text)]


def of_turn(sent: list[tuple[str, dict[str, object]]], turn_id: int) -> list[tuple[str, dict[str, object]]]:
    """The events of one answer, without its place in line."""
    return [
        (kind, {name: value for name, value in data.items() if name != "turn"})
        for kind, data in sent
        if data.get("turn") == turn_id and kind != "queued"
    ]


class TestStream:
    def test_it_brings_every_answer_whole_and_in_order_and_then_ends(self, redis_url: str) -> None:
        visitor = member()
        address, turns = ask()
        threads = [threading.Thread(target=write, args=(one, f"{one} a", " b", " c")) for one in turns]
        for thread in threads:
            thread.start()
        sent = read(visitor, address)
        for thread in threads:
            thread.join()
        for one in turns:
            pieces = [("delta", {"text": text}) for text in (f"{one} a", " b", " c")]
            assert of_turn(sent, one) == [("start", {"attempt": 1}), *pieces, ("done", DONE)]
        assert sent[-1] == ("end", {})
        assert sent[-2] == ("line", {"text": "3 of 3 answered"})

    def test_ends_that_no_event_told_come_from_the_rows(self, redis_url: str) -> None:
        visitor = member()
        address, turns = ask()
        answer(turns[0], "before")
        later = threading.Thread(target=lambda: (time.sleep(0.5), [answer(one, "later") for one in turns[1:]]))
        later.start()
        sent = read(visitor, address)
        later.join()
        assert [of_turn(sent, one) for one in turns] == [[("done", DONE)]] * 3

    def test_without_a_broker_it_says_so_and_ends_from_the_rows(self) -> None:
        visitor = member()
        address, turns = ask()
        later = threading.Thread(target=lambda: (time.sleep(0.5), [answer(one, "later") for one in turns]))
        later.start()
        sent = read(visitor, address)
        later.join()
        assert sent[-1] == ("end", {})
        assert any("Waiting for the service" in str(data.get("text")) for kind, data in sent if kind == "line")

    def test_who_waits_is_told_the_place_of_each_column_and_when_the_last_begins(self, redis_url: str) -> None:
        events.worker_beat("w", "idle", {"max_answers": 1, "patience": 20.0, "load_seconds": 0.5})
        pulse.forget()
        visitor = member()
        address, turns = ask()
        later = threading.Timer(1.0, lambda: [write(one, "x") for one in turns])
        later.start()
        sent = read(visitor, address)
        places = {data["turn"]: data["text"] for kind, data in sent if kind == "queued"}
        assert set(places) == set(turns)
        assert re.match(r"2 chats ahead of you, about ", str(places[turns[2]]))
        first_line = next(str(data["text"]) for kind, data in sent if kind == "line")
        assert re.fullmatch(r"0 of 3 answered · You are next, about .* · the last begins in about .*", first_line)

    def test_a_film_tells_its_place_once_for_all_frames(self, redis_url: str) -> None:
        visitor = member()
        address, turns = ask("film")
        later = threading.Timer(0.5, lambda: [write(one, "x") for one in turns])
        later.start()
        assert "queued" not in {kind for kind, _ in read(visitor, address)}

    def test_whoever_leaves_is_followed_no_longer(self, redis_url: str) -> None:
        looks = {one: strips.Look("queued") for one in range(1, 41)}

        async def visit() -> tuple[int, int]:
            stream = strips._events(strips.Strip(looks, tells_places=False), looks)
            await anext(stream)
            await asyncio.sleep(0.1)
            [ear] = live._ears.values()
            during = len(ear.watchers)
            await stream.aclose()
            return during, len(ear.watchers)

        assert asyncio.run(visit()) == (40, 0)

    def test_a_follower_that_lost_its_cancellation_is_cancelled_once_more(
        self, redis_url: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        following = set()

        async def follow(turn_id: int, heard: object) -> None:
            following.add(turn_id)
            with suppress(asyncio.CancelledError):  # as the broker's client does now and then
                await asyncio.Event().wait()
            try:
                await asyncio.Event().wait()
            finally:
                following.discard(turn_id)

        async def visit() -> tuple[int, int]:
            stream = strips._events(strips.Strip(looks, tells_places=False), looks)
            await anext(stream)
            await asyncio.sleep(0)
            during = len(following)
            await stream.aclose()
            return during, len(following)

        monkeypatch.setattr(strips, "_follow", follow)
        monkeypatch.setattr(strips, "CLOSE_SECONDS", 0.2)
        looks = {one: strips.Look("queued") for one in range(1, 4)}
        assert asyncio.run(visit()) == (3, 0)

    def test_it_speaks_the_language_of_whoever_reads(self) -> None:
        visitor = member()
        address, turns = ask()
        for one in turns:
            answer(one, "before")
        visitor.client.headers["accept-language"] = "zh"
        assert ("line", {"text": "3 个中已回答 3 个"}) in read(visitor, address)

    def test_nobody_reads_another_persons(self) -> None:
        member()
        address, _ = ask()
        assert member("lin").get(f"{address}/events").status_code == 404
        assert Visitor().get(f"{address}/events").status_code != 200


class TestLineText:
    @pytest.fixture(autouse=True)
    def _workers(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(pulse, "take", lambda: pulse.Pulse(broker=True, workers={"one": "idle"}))

    def test_nobody_is_ahead_of_themselves(self) -> None:
        waiting = [Place(3, 0, 9.0, 6.0, 12.0), Place(2, 0, 4.0, 2.0, 5.0)]
        assert strips.line_text(1, 4, waiting, 1) == (
            "1 of 4 answered · 1 chat ahead of you, about 2–5 s · the last begins in about 6–12 s"
        )

    def test_nothing_waits(self) -> None:
        assert strips.line_text(2, 4, [], 2) == "2 of 4 answered"

    def test_nobody_is_there(self) -> None:
        assert "Your place in line is kept" in strips.line_text(0, 2, [None, None], 0)
