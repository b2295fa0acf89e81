"""The chat pages: choosing, sending, streaming, rating, stopping."""

import re

import pytest
from sqlalchemy import func, select

from registry import chats, db, tickets
from registry.models import Chat, Turn
from registry.models.base import FAILED, FINISHED
from registry.settings import get_settings
from server import limits
from tests.factories import make_checkpoint, make_run
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
        given = {"max_tokens": 64, "temperature": 0.5, "top_p": 0.95, "repetition_penalty": 1.1}
        assert turn.params == given
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

    def test_people_of_one_address_have_a_limit_together(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("GROW_CHAT_LIMIT", "1/hour")
        get_settings.cache_clear()
        for number in range(5):
            ask(member(f"neighbour{number}"))
        sixth = member("neighbour5")
        answer = sixth.post("/chat", {"checkpoint": "demo@0", "prompt": "keep me"}, page="/chat")
        assert answer.status_code == 429
        assert "Wait" in answer.text
        assert "keep me" in answer.text

    def test_without_login_nothing_is_sent(self) -> None:
        answer = Visitor().post("/chat", {"checkpoint": "demo@0", "prompt": "x"}, page="/login")
        assert answer.status_code == 303
        assert answer.headers["location"].startswith("/login")


class TestAnswer:
    def test_a_base_models_text_is_shown_as_it_is(self) -> None:
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
        public_id = address.removeprefix("/chat/")
        assert answer.headers["location"] == f"/chat?checkpoint=demo%40500&cleared={public_id}"
        assert visitor.get(address).status_code == 404
        assert f'href="{address}"' not in visitor.get("/chat").text


class TestOtherWays:
    def test_an_edited_question_stands_beside_the_first_and_both_can_be_read(self) -> None:
        visitor = member()
        address = ask(visitor, "first way")
        first = last_turn().id
        answer_turn(first, "one")
        edited = visitor.post(address, {"prompt": "second way", "after": "0"}, htmx=True)
        assert "2/2" in edited.text
        assert "first way" not in edited.text
        answer_turn(last_turn().id, "two")
        back = visitor.post(f"/chat/turns/{first}/show", {}, htmx=True)
        assert "1/2" in back.text
        assert "first way" in visitor.get(address).text

    def test_another_answer_to_the_same_question_takes_the_settings_of_now(self) -> None:
        visitor = member()
        ask(visitor, seed="7")
        first = last_turn()
        answer_turn(first.id, "one")
        visitor.post(f"/chat/turns/{first.id}/again", {"temperature": "1.5"}, htmx=True)
        again = last_turn()
        assert (again.prompt, again.parent_id, again.params["temperature"]) == (first.prompt, None, 1.5)
        assert again.params["seed"] == 8, "the same seed would write the same answer"

    def test_a_place_that_is_no_turn_is_refused(self) -> None:
        visitor = member()
        address = ask(visitor)
        answer_turn(last_turn().id, "one")
        assert visitor.post(address, {"prompt": "x", "after": "99999"}, htmx=True).status_code == 404
        assert visitor.post(address, {"prompt": "x", "after": "-1"}, htmx=True).status_code == 404


class TestSettings:
    def test_each_kind_of_model_begins_with_its_own(self) -> None:
        base, chat = (member("mei").get("/chat?checkpoint=demo@500").text, member("lin").get("/chat").text)
        assert 'name="temperature" min="0" max="2" step="0.05" value="0.8"' in base
        assert 'name="temperature" min="0" max="2" step="0.05" value="0.7"' in chat
        assert 'name="system"' in chat
        assert 'name="system"' not in base

    def test_they_are_kept_from_the_last_turn(self) -> None:
        visitor = member()
        address = ask(visitor, checkpoint="demo@500-chat", top_p="0.5", seed="11", system="Be brief.")
        assert last_turn().params["system"] == "Be brief."
        page = visitor.get(address).text
        assert 'name="seed" min="0" max="2147483647" step="1" value="11"' in page
        assert "Be brief." in page
        assert 'step="0.05" value="0.5"' in page

    def test_a_base_model_is_told_no_system_prompt(self) -> None:
        ask(member(), system="Be brief.")
        assert "system" not in last_turn().params

    @pytest.mark.parametrize(
        ("fields", "said"),
        [
            ({"top_p": "0"}, "Top-p"),
            ({"repetition_penalty": "9"}, "Repetition penalty"),
            ({"seed": "-1"}, "Seed"),
            ({"seed": "1.5"}, "whole number"),
            ({"max_tokens": "12.5"}, "whole number"),
            ({"system": "x" * 2001}, "2,001 characters"),
        ],
    )
    def test_one_out_of_range_is_named(self, fields: dict[str, str], said: str) -> None:
        answer = member().post("/chat", {"checkpoint": "demo@500-chat", "prompt": "x", **fields}, page="/chat")
        assert answer.status_code == 422
        assert said in answer.text


class TestReason:
    def test_it_is_asked_after_a_thumb_and_kept(self) -> None:
        visitor = member()
        address = ask(visitor)
        turn = last_turn()
        answer_turn(turn.id, "not to be")
        assert (
            '<details class="reason" open>'
            in visitor.post(f"/chat/turns/{turn.id}/rate", {"rating": "-1"}, htmx=True).text
        )
        visitor.post(f"/chat/turns/{turn.id}/reason", {"reason": ["wrong", "made up"], "note": "no verse"}, htmx=True)
        assert last_turn().rating_reason == "wrong; no verse"
        assert 'value="no verse"' in visitor.get(address).text


class TestFork:
    def test_the_same_question_goes_to_another_checkpoint(self) -> None:
        visitor = member()
        ask(visitor, checkpoint="demo@500")
        turn = last_turn()
        answer_turn(turn.id, "not to be")
        answer = visitor.post(f"/chat/turns/{turn.id}/fork", {"checkpoint": "demo@0", "how": "ask"})
        forked = last_turn()
        assert answer.headers["location"] == f"/chat/{forked.chat.public_id}"
        assert (forked.prompt, forked.chat.checkpoint.label, forked.status) == ("To be, or", "demo@0", "queued")

    def test_or_the_conversation_goes_on_with_it(self) -> None:
        visitor = member()
        ask(visitor)
        turn = last_turn()
        answer_turn(turn.id, "not to be")
        visitor.post(f"/chat/turns/{turn.id}/fork", {"checkpoint": "demo@0", "how": "go on"})
        assert (last_turn().answer, last_turn().chat.checkpoint.label) == ("not to be", "demo@0")

    def test_an_unready_one_says_why(self) -> None:
        visitor = member()
        ask(visitor)
        turn = last_turn()
        answer = visitor.post(f"/chat/turns/{turn.id}/fork", {"checkpoint": "demo@900"})
        assert answer.status_code == 409


HOSTILE = "<img src=x onerror=alert(1)>\x1b[31mred \u202egnp.exe " + "w" * 10_000


def test_hostile_text_is_shown_and_does_nothing() -> None:
    visitor = member()
    for checkpoint in ("demo@500", "demo@500-chat"):
        address = ask(visitor, HOSTILE[:7000], checkpoint)
        answer_turn(last_turn().id, HOSTILE)
        page = re.sub(r"<textarea.*?</textarea>", "", visitor.get(address).text, flags=re.DOTALL)
        assert "<img src=x" not in page
        assert "\x1b" not in page
        assert "\u202e" not in page
        assert "␛[31mred ⟨U+202E⟩gnp.exe" in page
