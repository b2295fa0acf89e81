"""The chat pages: choosing, sending, streaming, rating, stopping."""

import json
import re
import threading
import time

import pytest
from sqlalchemy import func, select

from registry import chats, db, events, tickets
from registry.models import Chat, Turn
from registry.models.base import FAILED, FINISHED
from server import limits, pulse, turns
from tests.factories import make_checkpoint, make_run, make_task
from tests.server.visitors import Visitor, member

pytestmark = pytest.mark.usefixtures("database")


@pytest.fixture(autouse=True)
def _checkpoints(database: object) -> None:
    limits._memory.reset()
    with db.transaction() as session:
        run = make_run(session)
        make_checkpoint(session, run, 0)
        make_checkpoint(session, run, 500)
        make_checkpoint(session, run, 500, kind="chat")
        make_checkpoint(session, run, 900, ready=False)


def ask(visitor: Visitor, prompt: str = "To be, or", checkpoint: str = "demo@500", **fields: str) -> str:
    """Sends a first message and gives the conversation's address."""
    answer = visitor.post("/chat", {"checkpoint": checkpoint, "prompt": prompt, **fields}, page="/chat")
    assert answer.status_code == 303, answer.text
    return str(answer.headers["location"])


def last_turn() -> Turn:
    """The newest message of all."""
    with db.read_session() as session:
        turn_id = session.scalar(select(func.max(Turn.id)))
        assert turn_id is not None
        return chats.get_turn(session, turn_id)


def answer_turn(turn_id: int, text: str, status: str = FINISHED) -> None:
    """What a worker leaves behind."""
    with db.transaction() as session:
        claim = tickets.claim(session, "worker")
        assert claim is not None
        chats.start_turn(session, turn_id)
        tickets.finish(session, claim.ticket_id, claim.fence, status)
        chats.close_turn(session, turn_id, status=status, answer=text, finish_reason="stop", completion_tokens=4)


class TestPage:
    def test_a_visitor_sees_it_and_is_asked_in(self) -> None:
        answer = Visitor().get("/chat")
        assert answer.status_code == 200
        assert "/register?next=/chat" in answer.text
        assert "<textarea" not in answer.text

    def test_the_newest_chat_model_is_chosen_first(self) -> None:
        assert '<option value="demo@500-chat" selected>' in member().get("/chat").text

    def test_the_address_chooses_a_checkpoint_and_says_what_it_has_read(self) -> None:
        page = member().get("/chat?checkpoint=demo@500").text
        assert '<option value="demo@500" selected>' in page
        assert "base model" in page
        assert "2M tokens" in page

    def test_newer_checkpoints_come_first_and_unready_ones_not_at_all(self) -> None:
        offered = re.findall(r'<option value="(demo@[^"]*)"', member().get("/chat").text)
        assert offered == ["demo@500-chat", "demo@500", "demo@0"]

    def test_a_checkpoint_that_is_not_ready_says_so(self) -> None:
        assert "demo@900 is verifying and cannot answer" in member().get("/chat?checkpoint=demo@900").text

    def test_an_unknown_step_or_run_lists_what_exists(self) -> None:
        wrong_step = member().get("/chat?checkpoint=demo@7")
        assert wrong_step.status_code == 404
        assert "0, 500, 900" in wrong_step.text
        wrong_run = Visitor().get("/chat?checkpoint=nothing@7")
        assert wrong_run.status_code == 404
        assert "demo" in wrong_run.text
        assert Visitor().get("/chat?checkpoint=nonsense").status_code == 404


class TestSend:
    def test_the_first_message_opens_a_conversation_with_a_place_in_line(self) -> None:
        visitor = member()
        address = ask(visitor, max_tokens="64", temperature="0.5")
        turn = last_turn()
        assert (turn.prompt, turn.status) == ("To be, or", "queued")
        assert turn.params == {"max_tokens": 64, "temperature": 0.5}
        page = visitor.get(address).text
        assert f'data-stream="/chat/turns/{turn.id}/events"' in page
        assert "To be, or" in page

    def test_a_script_is_told_where_to_go(self) -> None:
        answer = member().post("/chat", {"checkpoint": "demo@0", "prompt": "x"}, page="/chat", htmx=True)
        assert answer.headers["hx-redirect"].startswith("/chat/")

    def test_the_next_message_comes_back_as_a_fragment(self) -> None:
        visitor = member()
        address = ask(visitor)
        answer_turn(last_turn().id, "not to be")
        answer = visitor.post(address, {"prompt": "And then?"}, htmx=True)
        assert answer.status_code == 200
        assert answer.text.lstrip().startswith("<article")
        assert last_turn().position == 1

    @pytest.mark.parametrize("prompt", ["", "   \n "])
    def test_an_empty_message_is_refused(self, prompt: str) -> None:
        answer = member().post("/chat", {"checkpoint": "demo@0", "prompt": prompt}, page="/chat")
        assert answer.status_code == 422
        assert "empty" in answer.text

    def test_a_message_of_100_kilobytes_is_refused_and_not_lost(self) -> None:
        visitor = member()
        prompt = "多" * 33_334
        page = visitor.post("/chat", {"checkpoint": "demo@0", "prompt": prompt}, page="/chat")
        assert page.status_code == 422
        assert "33,334 characters; at most 8,000" in page.text
        assert prompt in page.text
        script = visitor.post("/chat", {"checkpoint": "demo@0", "prompt": prompt}, page="/chat", htmx=True)
        assert script.headers["content-type"].startswith("text/plain")
        assert "at most 8,000" in script.text
        with db.read_session() as session:
            assert session.scalar(select(func.count(Chat.id))) == 0

    @pytest.mark.parametrize(
        ("fields", "said"),
        [
            ({"temperature": "hot"}, "Temperature"),
            ({"temperature": "nan"}, "Temperature"),
            ({"temperature": "2.1"}, "Temperature"),
            ({"max_tokens": "0"}, "Longest answer"),
            ({"max_tokens": "99999"}, "Longest answer"),
        ],
    )
    def test_a_setting_out_of_range_is_named(self, fields: dict[str, str], said: str) -> None:
        answer = member().post("/chat", {"checkpoint": "demo@0", "prompt": "keep me", **fields}, page="/chat")
        assert answer.status_code == 422
        assert said in answer.text
        assert "keep me" in answer.text

    def test_an_unready_checkpoint_is_a_conflict(self) -> None:
        answer = member().post("/chat", {"checkpoint": "demo@900", "prompt": "keep me"}, page="/chat")
        assert answer.status_code == 409
        assert "keep me" in answer.text

    def test_a_second_message_waits_for_the_first_answer(self) -> None:
        visitor = member()
        answer = visitor.post(ask(visitor), {"prompt": "hurry"}, htmx=True)
        assert answer.status_code == 409
        assert "still being written" in answer.text

    def test_too_many_messages_are_told_how_long_to_wait(self, monkeypatch: pytest.MonkeyPatch) -> None:
        visitor = member()
        for _ in range(20):
            ask(visitor)
        answer = visitor.post("/chat", {"checkpoint": "demo@0", "prompt": "keep me"}, page="/chat")
        assert answer.status_code == 429
        assert "Wait" in answer.text
        assert "keep me" in answer.text

    def test_without_login_nothing_is_sent(self) -> None:
        answer = Visitor().post("/chat", {"checkpoint": "demo@0", "prompt": "x"}, page="/login")
        assert answer.status_code == 303
        assert answer.headers["location"].startswith("/login")


class TestAnswer:
    def test_it_is_only_ever_text(self) -> None:
        visitor = member()
        address = ask(visitor, prompt="<b>bold</b>")
        answer_turn(last_turn().id, "<script>alert(1)</script>\n  two  spaces")
        page = visitor.get(address).text
        assert "<script>alert(1)" not in page
        assert "&lt;script&gt;alert(1)&lt;/script&gt;\n  two  spaces" in page
        assert "&lt;b&gt;bold" in page

    def test_it_can_be_rated_and_the_rating_taken_back(self) -> None:
        visitor = member()
        ask(visitor)
        turn = last_turn()
        answer_turn(turn.id, "not to be")
        up = visitor.post(f"/chat/turns/{turn.id}/rate", {"rating": "1"}, htmx=True)
        assert 'aria-pressed="true"' in up.text
        assert last_turn().rating == 1
        visitor.post(f"/chat/turns/{turn.id}/rate", {"rating": "0"}, htmx=True)
        assert last_turn().rating is None
        assert visitor.post(f"/chat/turns/{turn.id}/rate", {"rating": "7"}).status_code == 422

    def test_a_failure_shows_its_reason(self) -> None:
        visitor = member()
        address = ask(visitor)
        turn = last_turn()
        with db.transaction() as session:
            chats.close_turn(session, turn.id, status=FAILED, error="The engine ended.")
        assert "The engine ended." in visitor.get(address).text


class TestOthers:
    def test_a_conversation_is_its_owners_alone(self) -> None:
        mei, lin = member("mei"), member("lin")
        address = ask(mei)
        turn = last_turn()
        assert lin.get(address).status_code == 404
        assert lin.post(address, {"prompt": "x"}).status_code == 404
        assert lin.post(f"{address}/clear", {}).status_code == 404
        assert lin.get(f"/chat/turns/{turn.id}/events").status_code == 404
        assert lin.post(f"/chat/turns/{turn.id}/stop", {}).status_code == 404
        assert lin.post(f"/chat/turns/{turn.id}/rate", {"rating": "1"}).status_code == 404


class TestStopAndClear:
    def test_stopping_leaves_the_line(self) -> None:
        visitor = member()
        ask(visitor)
        turn = last_turn()
        assert visitor.post(f"/chat/turns/{turn.id}/stop", {}).status_code == 303
        assert last_turn().status == "cancelled"
        with db.read_session() as session:
            assert tickets.num_queued(session) == 0

    def test_a_cleared_conversation_is_gone(self) -> None:
        visitor = member()
        address = ask(visitor)
        answer = visitor.post(f"{address}/clear", {})
        assert answer.headers["location"] == "/chat?checkpoint=demo@500"
        assert visitor.get(address).status_code == 404
        assert address not in visitor.get("/chat").text


def read_stream(visitor: Visitor, turn_id: int, **headers: str) -> list[tuple[str, dict[str, str]]]:
    """Every event until the stream ends."""
    text = visitor.get(f"/chat/turns/{turn_id}/events", accept="text/event-stream", **headers).text
    found = re.findall(r"event: (\w+)\ndata: (.*)\n", text)
    return [(kind, json.loads(data)) for kind, data in found]


class TestStream:
    def test_it_replays_the_answer_from_the_start(self, redis_url: str) -> None:
        visitor = member()
        ask(visitor)
        turn = last_turn()
        events.append_turn(turn.id, "start", {"attempt": 1})
        events.append_turn(turn.id, "delta", {"text": "not "})
        events.append_turn(turn.id, "delta", {"text": "to be"})
        events.append_turn(turn.id, "done", {"status": "finished", "finish_reason": "stop", "error": ""})
        kinds = [kind for kind, _ in read_stream(visitor, turn.id)]
        assert kinds == ["queued", "start", "delta", "delta", "done"]

    def test_a_reconnecting_browser_gets_the_rest(self, redis_url: str) -> None:
        visitor = member()
        ask(visitor)
        turn = last_turn()
        events.append_turn(turn.id, "delta", {"text": "old"})
        [(last_id, _)] = events.client().xrange(events.turn_key(turn.id))
        events.append_turn(turn.id, "delta", {"text": "new"})
        events.append_turn(turn.id, "done", {"status": "finished", "finish_reason": "stop", "error": ""})
        sent = read_stream(visitor, turn.id, **{"last-event-id": str(last_id)})
        assert [data["text"] for kind, data in sent if kind == "delta"] == ["new"]

    def test_a_stream_that_expired_ends_from_the_row(self, redis_url: str) -> None:
        visitor = member()
        ask(visitor)
        turn = last_turn()
        answer_turn(turn.id, "not to be")
        assert read_stream(visitor, turn.id) == [
            ("done", {"status": "finished", "finish_reason": "stop", "error": ""}),
        ]

    def test_without_a_broker_it_waits_and_ends_from_the_row(self) -> None:
        visitor = member()
        ask(visitor)
        turn = last_turn()
        worker = threading.Thread(target=lambda: (time.sleep(1), answer_turn(turn.id, "not to be")))
        worker.start()
        sent = read_stream(visitor, turn.id)
        worker.join()
        assert [kind for kind, _ in sent] == ["queued", "done"]
        assert "Waiting for the service" in sent[0][1]["text"]


class TestPlaceText:
    @pytest.fixture(autouse=True)
    def _workers(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(pulse, "take", lambda: pulse.Pulse(broker=True, workers={"one": "idle"}))

    def test_it_counts_what_is_ahead(self) -> None:
        text = turns.place_text(tickets.Position(2, 1, 5.6, 11.2))
        assert text == "2 chats and 1 evaluation ahead of you, about 6–11 s"

    def test_nothing_ahead(self) -> None:
        assert turns.place_text(tickets.Position(0, 0, 0, 0)) == "You are next."

    def test_long_waits_are_in_minutes(self) -> None:
        text = turns.place_text(tickets.Position(0, 40, 150, 450))
        assert text == "40 evaluations ahead of you, about 2–8 minutes"

    def test_a_real_line(self) -> None:
        with db.transaction() as session:
            make_task(session)
        mei, lin = member("mei"), member("lin")
        ask(mei)
        ask(lin)
        assert turns.read_look(last_turn().id).place.startswith("1 chat ahead of you")
