"""The arena's pages: blind before the vote, open after it; ratings, raw votes, and what administrators decide."""

import csv
import io
import json
import re
from collections.abc import AsyncIterator

import httpx
import pytest
from fastapi.routing import APIRoute

from registry import accounts, arena, db, estimates, events, standings, tickets, votes
from registry.arena import Battle
from registry.estimates import Place
from registry.models import Chat, Run, Vote
from registry.models.base import FAILED
from registry.settings import get_settings
from server import limits, places, pulse
from server.arena import _blind
from server.places import Look
from server.pulse import Pulse
from tests.factories import make_checkpoint, make_half, make_run
from tests.registry.arena_battles import answer, change_by_hand
from tests.server.visitors import PASSWORD, Visitor, application, member

pytestmark = pytest.mark.usefixtures("database")

NAMES = re.compile(r"demo@|step[ -]?\d|\b4096\b|checkpoints/")
"""What tells a checkpoint of the run below."""


@pytest.fixture(autouse=True)
def _run(database: object, monkeypatch: pytest.MonkeyPatch) -> None:
    limits._memory.reset()
    standings.forget()
    votes.forget()
    estimates.forget()
    monkeypatch.setattr(events, "worker_facts", dict)
    with db.transaction() as session:
        run = make_run(session)
        for step in (0, 100):
            make_checkpoint(session, run, step)


def begin(visitor: Visitor, prompt: str = "Once upon") -> str:
    """The address of a new battle."""
    opened = visitor.post("/arena", {"pool": "demo:pretrained", "prompt": prompt}, page="/arena")
    assert opened.status_code == 303, opened.text
    return str(opened.headers["location"])


def load(name: str, address: str) -> Battle:
    """The battle as its owner finds it."""
    with db.read_session() as session:
        return arena.get_battle(session, accounts.authenticate(session, name, PASSWORD), address.rsplit("/", 1)[1])


def write_answers(name: str, address: str, texts: tuple[str, str] = ("a time", "a mattress")) -> None:
    """As a worker does."""
    with db.transaction() as session:
        user = accounts.authenticate(session, name, PASSWORD)
        answer(session, user, arena.get_battle(session, user, address.rsplit("/", 1)[1]), texts)


def choose(visitor: Visitor, address: str, choice: str = "left", **more: bool) -> httpx.Response:
    """Press one of the four buttons."""
    return visitor.post(f"{address}/vote", {"choice": choice}, page=address, **more)


def conversation_routes() -> list[tuple[str, str]]:
    """Every address below /chat that names a conversation, a group or a turn, with its method."""
    found = [route for route in application().routes if isinstance(route, APIRoute)]
    named = [route for route in found if route.path.startswith("/chat/") and "{" in route.path]
    return [(method, route.path) for route in named for method in sorted(route.methods)]


class TestPage:
    def test_anybody_sees_who_leads_and_members_begin(self) -> None:
        page = Visitor().get("/arena").text
        assert "Nobody has voted on this run yet" in page
        assert "Log in to vote" in page
        assert "Begin the battle" in member().get("/arena").text

    def test_before_there_are_two_checkpoints_it_says_what_it_waits_for(self) -> None:
        with db.transaction() as session:
            for one in arena.candidates(session, session.query(Run).one(), "pretrained"):
                one.state = "retired"
        assert "A battle needs two checkpoints" in Visitor().get("/arena").text

    def test_what_cannot_be_asked_keeps_its_text(self) -> None:
        page = member().post("/arena", {"pool": "demo:pretrained", "prompt": " "}, page="/arena")
        assert page.status_code == 422
        assert "The message is empty" in page.text
        unknown = member("li").post("/arena", {"pool": "nowhere", "prompt": "keep me"}, page="/arena")
        assert unknown.status_code == 404
        assert "keep me" in unknown.text

    def test_battles_count_as_messages(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("GROW_CHAT_LIMIT", "1/minute")
        get_settings.cache_clear()
        visitor = member()
        begin(visitor)
        again = visitor.post("/arena", {"pool": "demo", "prompt": "keep me"}, page="/arena")
        assert again.status_code == 429
        assert "keep me" in again.text

    def test_an_undecided_battle_is_offered_again(self) -> None:
        visitor = member()
        address = begin(visitor, "<b>which</b>")
        page = visitor.get("/arena").text
        assert f'href="{address}"' in page
        assert "<b>which" not in page


class TestBlindness:
    def test_neither_page_nor_fragment_tells_before_the_vote(self) -> None:
        visitor = member()
        address = begin(visitor)
        for is_answered in (False, True):
            if is_answered:
                write_answers("mei", address)
            for headers in ({}, {"hx-request": "true"}):
                seen = visitor.get(address, **headers)
                assert seen.status_code == 200
                assert NAMES.search(seen.text) is None
                assert not [name for name, value in seen.headers.items() if "demo@" in value]

    def test_nor_do_the_addresses_of_conversations(self) -> None:
        """Whatever can be asked of a chat, a turn or a group: for a battle it is not there."""
        visitor = member()
        address = begin(visitor)
        write_answers("mei", address)
        battle = load("mei", address)
        with db.read_session() as session:
            chat = session.get_one(Chat, battle.left.chat_id).public_id
        form = {
            "title": "mine", "checkpoint": "demo@100", "prompt": "who are you?", "how": "ask", "rating": "1",
            "reason": "wrong", "column": chat, "text": "and then", "after": "0",
        }  # fmt: skip
        asked = []
        for method, path in conversation_routes():
            for public_id in (chat, battle.group.public_id):
                here = path.format(public_id=public_id, turn_id=battle.left.id, column=chat)
                sent = visitor.get(here) if method == "GET" else visitor.post(here, form, page="/arena", htmx=True)
                assert sent.status_code == 404, (method, here, sent.text)
                assert NAMES.search(sent.text) is None, (method, here)
                asked.append(path)
        assert len(asked) > 40
        assert "demo@" not in visitor.get(f"/report/{battle.left.id}").text
        history = visitor.get("/chat?q=Once").text.partition('id="history"')[2].partition("</nav>")[0]
        assert NAMES.search(history) is None

    @pytest.mark.parametrize("side", ["left", "right"])
    def test_nor_does_the_stream_of_a_failed_answer(self, side: str) -> None:
        visitor = member()
        address = begin(visitor)
        with db.transaction() as session:
            user = accounts.authenticate(session, "mei", PASSWORD)
            for turn in arena.get_battle(session, user, address.rsplit("/", 1)[1]).turns:
                tickets.cancel(session, turn_id=turn.id)
                turn.status, turn.error = FAILED, "demo@100 cannot be loaded."
        told = visitor.get(f"{address}/{side}/events").text
        assert '"status": "failed"' in told
        assert "demo@" not in told
        page = visitor.get(address).text
        assert "An answer could not be written" in page
        assert NAMES.search(page) is None
        assert choose(visitor, address).status_code == 409

    def test_nobody_elses_battle_is_there(self) -> None:
        address = begin(member())
        other = member("li")
        assert other.get(address).status_code == 404
        assert other.get(f"{address}/left/events").status_code == 404
        assert other.post(f"{address}/vote", {"choice": "left"}).status_code == 404

    @pytest.mark.anyio
    async def test_both_sides_are_told_the_same_wait(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Though one is there already and the other must be fetched, and whichever of the two changes."""
        waits = iter([(3.0, 40.0), (3.0, 40.0), (3.0, 30.0)] * 2)

        async def look() -> Look:
            own, other = next(waits)
            return Look(0.0, {1: Place(0, 0, own, own / 2, own), 2: Place(3, 0, other, other / 2, other)})

        monkeypatch.setattr(places, "look", look)
        monkeypatch.setattr(pulse, "take", lambda: Pulse(broker=True, workers={"w": "idle"}))

        async def chunks() -> AsyncIterator[str]:
            yield 'event: queued\ndata: {"text": "You are next", "low": 1.0, "high": 3.0}\n\n'
            yield ": nothing new\n\n"
            yield ": nothing new\n\n"
            yield 'id: 1-1\nevent: delta\ndata: {"text": "hello"}\n\n'

        left, right = [[chunk async for chunk in _blind(chunks(), *pair)] for pair in ((1, 2), (2, 1))]
        assert left == right
        assert "2 chats ahead of you, about 20–40 s" in left[0], "the other answer of one's own battle is not ahead"
        assert left[1].startswith(":")
        assert "about 15–30 s" in left[2]
        assert left[3] == 'id: 1-1\nevent: delta\ndata: {"text": "hello"}\n\n'


class TestWaiting:
    def test_the_page_asks_what_waiting_to_expect(self) -> None:
        assert 'data-wait="/arena/wait?pool=demo%3Apretrained"' in member().get("/arena").text
        assert "data-wait" not in Visitor().get("/arena").text

    def test_it_spans_whom_an_engine_holds_and_who_must_be_fetched(self, monkeypatch: pytest.MonkeyPatch) -> None:
        with db.transaction() as session:
            run = session.query(Run).one()
            held = make_checkpoint(session, run, 200).id
        facts = {"checkpoint_id": held, "max_answers": 1, "patience": 0.0, "load_seconds": 5.0}
        monkeypatch.setattr(events, "worker_facts", lambda: {"w": facts})
        monkeypatch.setattr(pulse, "take", lambda: Pulse(broker=True, workers={"w": "idle"}))
        told = member().get("/arena/wait?pool=demo:pretrained").json()
        assert re.search(r"about \d+–\d+ s", told["text"])
        assert told["high"] > 10.0, "two are fetched, one after the other"

    def test_without_a_worker_it_says_so(self) -> None:
        told = member().get("/arena/wait?pool=demo").json()
        assert told["text"].startswith("Nobody is there to answer")

    def test_only_for_those_who_may_ask_and_for_runs_that_are_there(self) -> None:
        assert Visitor().get("/arena/wait?pool=demo", accept="application/json").status_code == 401
        assert member().get("/arena/wait?pool=nowhere").status_code == 404


class TestVoting:
    def test_a_vote_reveals_who_wrote_what_and_what_it_changed(self) -> None:
        visitor = member()
        address = begin(visitor)
        write_answers("mei", address)
        assert choose(visitor, address).headers["location"] == address
        page = visitor.get(address).text
        assert "demo@0" in page
        assert "demo@100" in page
        assert "You found A better." in page
        assert re.search(r"rating 1,000 → <strong>1,\d\d\d</strong>", page)

    def test_precisions_of_one_step_are_told_apart_once_it_is_cast(self) -> None:
        with db.transaction() as session:
            run = make_run(session, "squeezed")
            make_checkpoint(session, run, 7)
            make_half(session, run, 7)
        visitor = member()
        opened = visitor.post("/arena", {"pool": "squeezed:pretrained", "prompt": "Once"}, page="/arena")
        address = str(opened.headers["location"])
        write_answers("mei", address)
        assert "8 bit" not in visitor.get(address).text
        choose(visitor, address)
        page = visitor.get(address).text
        assert page.count("8 bit") == 1
        assert "kind=pretrained&amp;precision=8" in page
        table = visitor.get("/arena?pool=squeezed").text
        assert "squeezed@7" in table

    def test_with_a_script_the_answer_is_the_fragment(self) -> None:
        visitor = member()
        address = begin(visitor)
        write_answers("mei", address)
        told = choose(visitor, address, "bad", htmx=True)
        assert told.text.lstrip().startswith('<div id="battle"')
        assert "You found both bad." in told.text

    def test_there_is_no_second_vote(self) -> None:
        visitor = member()
        address = begin(visitor)
        write_answers("mei", address)
        choose(visitor, address, "left")
        again = visitor.post(f"{address}/vote", {"choice": "right"})
        assert again.status_code == 409
        with db.read_session() as session:
            assert [vote.choice for vote in session.query(Vote)] == ["left"]

    def test_nor_one_before_both_answers_are_whole(self) -> None:
        visitor = member()
        address = begin(visitor)
        assert " disabled" in visitor.get(address).text
        early = choose(visitor, address)
        assert early.status_code == 409
        assert "must be whole" in early.text

    def test_votes_are_limited(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("GROW_VOTE_LIMIT", "1/hour")
        get_settings.cache_clear()
        visitor = member()
        for number, status in enumerate((303, 429)):
            address = begin(visitor, f"question {number}")
            write_answers("mei", address)
            assert choose(visitor, address).status_code == status

    def test_one_that_does_not_count_says_why(self) -> None:
        visitor = member()
        address = begin(visitor)
        write_answers("mei", address, ("same", "same"))
        choose(visitor, address)
        page = visitor.get(address).text
        assert "does not count for now" in page
        assert "both answers were the same" in page

    def test_skipping_frees_it(self) -> None:
        visitor = member()
        address = begin(visitor)
        left = visitor.post(f"{address}/give-up", {}, page=address)
        assert left.headers["location"] == "/arena?pool=demo:pretrained"
        assert visitor.get(address).status_code == 404


def _voted(name: str = "mei", prompt: str = "Once upon") -> Visitor:
    visitor = member(name)
    address = begin(visitor, prompt)
    write_answers(name, address)
    choose(visitor, address)
    return visitor


class TestResults:
    def test_the_arena_and_the_growth_page_show_ratings(self) -> None:
        visitor = _voted()
        page = visitor.get("/arena").text
        assert "data-chart" in page
        assert "1 vote, 1 voter" in " ".join(page.split())
        assert 'hx-get="/runs/demo/arena"' in visitor.get("/runs/demo").text
        section = visitor.get("/runs/demo/arena").text
        assert 'id="chart-arena-pretrained"' in section
        assert visitor.get("/arena/chart?pool=demo:pretrained").status_code == 200

    def test_without_votes_the_growth_page_invites(self) -> None:
        assert "No blind comparison" in Visitor().get("/runs/demo/arena").text
        assert Visitor().get("/arena/chart?pool=demo:pretrained").status_code == 404

    def test_ratings_as_json(self) -> None:
        found = _voted().get("/api/v1/runs/demo/arena").json()
        assert (found["votes"], found["voters"], found["is_connected"]) == (1, 1, True)
        better, worse = sorted(found["checkpoints"], key=lambda one: -one["rating"])
        assert better["low"] < better["rating"] < better["high"]
        assert (better["wins"], worse["losses"]) == (1, 1)

    def test_raw_votes_have_no_names_and_come_in_parts(self) -> None:
        visitor = _voted()
        _voted("li", "another")
        rows = list(csv.DictReader(io.StringIO(visitor.get("/api/v1/runs/demo/votes.csv").text)))
        lines = [json.loads(line) for line in visitor.get("/api/v1/runs/demo/votes.jsonl").text.splitlines()]
        assert [int(row["id"]) for row in rows] == [line["id"] for line in lines]
        assert [(line["choice"], line["counts"], line["flags"]) for line in lines] == [("left", True, [])] * 2
        assert "mei" not in json.dumps(lines)
        assert "testclient" not in json.dumps(lines)
        part = visitor.get(f"/api/v1/runs/demo/votes.csv?after={rows[0]['id']}&limit=1").text
        assert [row["id"] for row in csv.DictReader(io.StringIO(part))] == [rows[1]["id"]]


class TestAdministrators:
    def flagged(self) -> int:
        _voted()
        with db.transaction() as session:
            vote = session.query(Vote).one()
            vote.flags = ["fast"]
            votes.sign(session, vote)
            return vote.id

    def test_they_see_why_and_decide(self) -> None:
        number = self.flagged()
        keeper = member("keeper", "admin")
        page = keeper.get("/admin/votes").text
        assert "sooner than the answers could be read" in page
        keeper.post(f"/admin/votes/{number}/clear", {}, page="/admin/votes")
        assert "Nothing waits for you" in keeper.get("/admin/votes").text
        assert keeper.get("/api/v1/runs/demo/arena").json()["votes"] == 1
        assert "Odd vote counted" in keeper.get("/admin/audit").text

    def test_or_leave_it_out(self) -> None:
        number = self.flagged()
        keeper = member("keeper", "admin")
        keeper.post(f"/admin/votes/{number}/confirm", {}, page="/admin/votes")
        assert keeper.get("/api/v1/runs/demo/arena").json()["votes"] == 0

    def test_rows_changed_by_hand_are_found(self) -> None:
        _voted()
        keeper = member("keeper", "admin")
        assert "Every vote carries" in keeper.get("/admin/votes?verify=true").text
        with db.transaction() as session:
            change_by_hand(session, session.query(Vote).one(), choice="right")
        assert "1 vote does not carry" in keeper.get("/admin/votes?verify=true").text

    def test_a_replaced_secret_does_not_silently_drop_old_votes(self, monkeypatch: pytest.MonkeyPatch) -> None:
        _voted()
        _voted("li", "another")
        keeper = member("keeper", "admin")
        assert "this site’s signature" not in keeper.get("/admin").text + keeper.get("/admin/votes").text
        monkeypatch.setenv("GROW_SECRET_KEY", "another")
        get_settings.cache_clear()
        standings.forget()
        keeper = member("keeper two", "admin")
        for address in ("/admin", "/admin/votes"):
            page = keeper.get(address).text
            assert "2 votes do not carry this site’s signature" in page, address
            assert "the secret key was replaced" in page, address
        assert keeper.get("/api/v1/runs/demo/arena").json()["left_out"] == 2
        assert "2 votes were cast on this run, and none of them counts for now." in keeper.get("/arena").text

    def test_nobody_else_may(self) -> None:
        number = self.flagged()
        visitor = member("li")
        assert visitor.get("/admin/votes").status_code == 403
        assert visitor.post(f"/admin/votes/{number}/clear", {}).status_code == 403
