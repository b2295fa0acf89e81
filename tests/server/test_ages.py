"""The pages of several ages asked the same."""

import csv
import io
import re

import pytest

from registry import accounts, chats, checkpoints, db, tickets
from registry.models import ChatGroup
from registry.models.base import FINISHED
from server import limits
from tests.factories import make_checkpoint, make_run
from tests.server.visitors import Visitor, member

pytestmark = pytest.mark.usefixtures("database")


@pytest.fixture(autouse=True)
def _checkpoints(database: object) -> None:
    limits._memory.reset()
    with db.transaction() as session:
        run = make_run(session)
        for step in (0, 100, 500):
            make_checkpoint(session, run, step)


def test_columns_are_asked_stopped_and_continued_alone() -> None:
    visitor = member()
    fields = {"checkpoint": ["demo@0", "demo@500"], "prompt": "<b>Who?</b>"}
    opened = visitor.post("/chat/side", fields, page="/chat/side")
    assert opened.status_code == 303, opened.text
    address = opened.headers["location"]
    page = visitor.get(address).text
    assert page.count("data-turn=") == 2
    assert "<b>Who?" not in page
    visitor.post(f"{address}/stop", {}, page=address)
    assert "data-turn=" not in visitor.get(address).text
    assert Visitor().get(address).status_code != 200


def test_one_column_is_refused_and_the_question_kept() -> None:
    page = member().post("/chat/side", {"checkpoint": ["demo@0"], "prompt": "keep me"}, page="/chat/side")
    assert page.status_code == 422
    assert "keep me" in page.text


def test_a_film_shows_how_far_it_is_stops_and_is_downloaded() -> None:
    visitor = member()
    opened = visitor.post(
        "/chat/film", {"run": "demo", "how": "spread", "count": "10", "prompt": "Once"}, page="/chat/film"
    )
    assert opened.status_code == 303, opened.text
    address = opened.headers["location"]
    assert "0 of 3 answered" in visitor.get(address).text
    rows = visitor.get(f"{address}/answers.json").json()
    assert [row["step"] for row in rows] == [0, 100, 500]
    assert len({row["params"]["seed"] for row in rows}) == 1
    visitor.post(f"{address}/stop", {}, page=address)
    assert "3 of 3 answered" in visitor.get(address).text


def open_side(visitor: Visitor, **fields: object) -> str:
    """Through the form; the address of the group."""
    asked = {"checkpoint": ["demo@0", "demo@500"], "prompt": "Who?", **fields}
    opened = visitor.post("/chat/side", asked, page="/chat/side")
    assert opened.status_code == 303, opened.text
    return opened.headers["location"]


def answer_all(address: str, tokens: bool = False, name: str = "mei") -> ChatGroup:
    """What workers leave behind."""
    with db.transaction() as session:
        [user] = accounts.find_users(session, name)[0]
        group = chats.get_group(session, user, address.rsplit("/", 1)[1])
        for chat in group.chats:
            for turn in chat.turns:
                if turn.status in chats.OPEN:
                    tickets.cancel(session, turn_id=turn.id)
                    rows = [["yes", -0.5 - chat.place, []], ["!", -1.5 - chat.place, []]] if tokens else None
                    chats.close_turn(
                        session, turn.id, status=FINISHED, answer=f"{turn.prompt} <i>yes</i>!", tokens=rows
                    )
        return group


class TestSettings:
    def test_they_begin_as_in_a_chat_and_stay_as_they_were_sent(self) -> None:
        visitor = member()
        assert 'name="temperature" min="0" max="2" step="0.05" value="0.8"' in visitor.get("/chat/side").text
        address = open_side(visitor, temperature="0.3", seed="7", max_tokens="64")
        page = visitor.get(address).text
        assert 'value="0.3"' in page
        rows = visitor.get(f"{address}/answers.json").json()
        assert [row["params"]["seed"] for row in rows] == [7, 7]
        assert rows[0]["params"]["max_tokens"] == 64

    def test_what_is_out_of_range_is_said_and_shown_again(self) -> None:
        fields = {"checkpoint": ["demo@0", "demo@500"], "prompt": "keep me", "temperature": "9"}
        page = member().post("/chat/side", fields, page="/chat/side")
        assert page.status_code == 422
        assert "Temperature must be a number from 0.0 to 2.0" in page.text
        assert "keep me" in page.text

    def test_a_chat_model_can_be_told_a_system_prompt(self) -> None:
        visitor = member()
        assert 'name="system"' not in visitor.get("/chat/side").text
        with db.transaction() as session:
            make_checkpoint(session, checkpoints.list_checkpoints(session)[0].run, 600, kind="chat")
        assert 'name="system"' in visitor.get("/chat/side").text
        address = open_side(visitor, checkpoint=["demo@500", "demo@600-chat"], system="Be brief.")
        rows = visitor.get(f"{address}/answers.json").json()
        assert [row["params"].get("system") for row in rows] == [None, "Be brief."]


class TestColumns:
    def test_one_is_stopped_and_answers_again_while_the_other_waits(self) -> None:
        visitor = member()
        address = open_side(visitor, seed="3")
        columns = re.findall(rf'data-fragment="{address}/([\w-]+)"', visitor.get(address).text)
        visitor.post(f"{address}/{columns[0]}/stop", {}, page=address)
        assert visitor.get(address).text.count("data-turn=") == 1
        assert "1 of 2 answered" in visitor.get(address).text
        visitor.post(f"{address}/{columns[0]}/again", {}, page=address)
        assert visitor.get(address).text.count("data-turn=") == 2
        rows = visitor.get(f"{address}/answers.json").json()
        assert [row["params"]["seed"] for row in rows] == [4, 3]

    def test_the_ways_of_a_column_are_gone_between(self) -> None:
        visitor = member()
        address = open_side(visitor)
        first = answer_all(address).chats[0].turns[0].id
        assert visitor.post(f"{address}/again", {}, page=address).status_code == 303
        answer_all(address)
        assert visitor.get(address).text.count(">2/2<") == 2
        fragment = visitor.post(f"{address}/show/{first}", {}, page=address, htmx=True).text
        assert ">1/2<" in fragment
        assert fragment.lstrip().startswith("<section")
        assert visitor.post(f"{address}/show/999", {}, page=address).status_code == 404

    def test_the_next_question_waits_for_the_answers_and_is_kept(self) -> None:
        visitor = member()
        address = open_side(visitor)
        early = visitor.post(address, {"prompt": "And then?"}, page=address)
        assert early.status_code == 409
        assert "still being written" in early.text
        assert "And then?" in early.text
        answer_all(address)
        assert visitor.post(address, {"prompt": "And then?"}, page=address).status_code == 303
        assert "data-running" in visitor.get(address).text

    def test_one_column_is_a_fragment_of_its_own(self) -> None:
        visitor = member()
        address = open_side(visitor)
        group = answer_all(address)
        text = visitor.get(f"{address}/{group.chats[1].public_id}", **{"hx-request": "true"}).text
        assert "demo@500" in text
        assert "demo@0<" not in text
        assert "&lt;i&gt;yes" in text
        assert visitor.get(f"{address}/none-such", **{"hx-request": "true"}).status_code == 404


class TestFilm:
    @pytest.mark.parametrize(
        ("fields", "steps"),
        [
            ({"how": "last", "count": "2"}, [100, 500]),
            ({"how": "hand", "step": ["0", "500"]}, [0, 500]),
            ({"how": "milestones"}, [0, 100]),
            ({"how": "spread", "count": "9"}, [0, 100, 500]),
        ],
    )
    def test_its_frames_are_chosen(self, fields: dict[str, object], steps: list[int]) -> None:
        with db.transaction() as session:
            for one in checkpoints.list_checkpoints(session):
                one.is_milestone = one.step < 500
        visitor = member()
        opened = visitor.post("/chat/film", {"run": "demo", "prompt": "Once", **fields}, page="/chat/film")
        assert opened.status_code == 303, opened.text
        rows = visitor.get(f"{opened.headers['location']}/answers.json").json()
        assert [row["step"] for row in rows] == steps

    def test_too_few_are_refused_and_the_choice_is_kept(self) -> None:
        fields = {"run": "demo", "how": "hand", "step": ["100"], "prompt": "keep me"}
        page = member().post("/chat/film", fields, page="/chat/film")
        assert page.status_code == 422
        assert "keep me" in page.text
        assert re.search(r'name="step" value="100"[^>]* checked', page.text)

    def test_it_is_a_table_too(self) -> None:
        visitor = member()
        fields = {"run": "demo", "prompt": "Once, and\n=1", "logprobs": "1", "seed": "5"}
        address = visitor.post("/chat/film", fields, page="/chat/film").headers["location"]
        answer_all(address, tokens=True)
        answered = visitor.get(f"{address}/answers.csv")
        assert answered.headers["content-type"].startswith("text/csv")
        rows = list(csv.DictReader(io.StringIO(answered.text)))
        assert [(row["step"], row["mean_logprob"], row["seed"]) for row in rows] == [
            ("0", "-1.0", "5"), ("100", "-2.0", "5"), ("500", "-3.0", "5"),
        ]  # fmt: skip
        assert rows[0]["answer"].endswith("<i>yes</i>!")

    def test_where_probabilities_were_kept_a_curve_says_how_sure_each_age_was(self) -> None:
        visitor = member()
        fields = {"run": "demo", "prompt": "Once"}
        plain = visitor.post("/chat/film", fields, page="/chat/film").headers["location"]
        answer_all(plain, tokens=False)
        assert "How sure it was" not in visitor.get(plain).text
        assert visitor.get(f"{plain}/certainty").text == ""
        kept = visitor.post("/chat/film", {**fields, "logprobs": "1"}, page="/chat/film").headers["location"]
        answer_all(kept, tokens=True)
        for page in (visitor.get(kept).text, visitor.get(f"{kept}/certainty").text):
            assert "How sure it was of its own words" in page
            assert re.search(r"step 500</a></th><td class=\"num\">-3.000", page)

    def test_ages_of_two_runs_are_on_no_curve_together(self) -> None:
        with db.transaction() as session:
            make_checkpoint(session, make_run(session, "other"), 700)
        visitor = member()
        alike = open_side(visitor, logprobs="1")
        apart = open_side(visitor, checkpoint=["demo@0", "other@700"], logprobs="1")
        for address, shown in ((alike, True), (apart, False)):
            answer_all(address, tokens=True)
            assert ("-1.000" in visitor.get(f"{address}/certainty").text) == shown

    def test_the_same_ages_are_asked_something_else(self) -> None:
        visitor = member()
        fields = {"run": "demo", "how": "last", "count": "2", "prompt": "Once", "seed": "5"}
        address = visitor.post("/chat/film", fields, page="/chat/film").headers["location"]
        early = visitor.post(address, {"prompt": "Twice"}, page=address)
        assert early.status_code == 409
        assert "Twice" in early.text
        answer_all(address)
        again = visitor.post(address, {"prompt": "Twice", "seed": "6"}, page=address).headers["location"]
        assert again != address
        rows = visitor.get(f"{again}/answers.json").json()
        assert [(row["step"], row["prompt"], row["params"]["seed"]) for row in rows] == [
            (100, "Twice", 6), (500, "Twice", 6),
        ]  # fmt: skip

    def test_a_run_of_several_kinds_makes_several_films(self) -> None:
        with db.transaction() as session:
            run = checkpoints.list_checkpoints(session)[0].run
            for step in (600, 700):
                make_checkpoint(session, run, step, kind="chat")
        visitor = member()
        page = visitor.get("/chat/film?run=demo:chat:16").text
        assert '<option value="demo:chat:16" selected>' in page
        assert 'name="system"' in page
        opened = visitor.post("/chat/film", {"run": "demo:chat:16", "prompt": "Hi"}, page="/chat/film")
        rows = visitor.get(f"{opened.headers['location']}/answers.json").json()
        assert [row["step"] for row in rows] == [600, 700]


class TestBeginnings:
    def test_a_message_is_put_to_other_ages_with_its_settings(self) -> None:
        visitor = member()
        sent = {"checkpoint": "demo@100", "prompt": "O <b>wine", "temperature": "0.4"}
        address = visitor.post("/chat", sent, page="/chat").headers["location"]
        turn = re.search(r'id="turn-(\d+)"', visitor.get(address).text)
        assert turn is not None
        visitor.post(f"/chat/turns/{turn[1]}/stop", {}, page=address)
        assert f'href="/chat/side?turn={turn[1]}"' in visitor.get(address).text
        for page in ("side", "film"):
            text = visitor.get(f"/chat/{page}?turn={turn[1]}").text
            assert "O &lt;b&gt;wine</textarea>" in text
            assert 'value="0.4"' in text
        assert member("lin").get(f"/chat/side?turn={turn[1]}").status_code == 404

    def test_the_wait_for_the_last_one_is_told_before_anybody_is_asked(self) -> None:
        visitor = member()
        for address in (
            "/chat/side/wait?checkpoint=demo@0&checkpoint=demo@500&checkpoint=",
            "/chat/film/wait?run=demo",
        ):
            assert "Nobody is there to answer" in visitor.get(address).json()["text"]
        assert visitor.get("/chat/side/wait?checkpoint=").json()["text"] == ""

    @pytest.mark.parametrize("address", ["/chat/side", "/chat/film"])
    def test_before_there_is_a_checkpoint_the_page_says_so(self, address: str) -> None:
        with db.transaction() as session:
            for one in checkpoints.list_checkpoints(session):
                one.state = "retired"
        assert "There is no checkpoint yet" in member().get(address).text


class TestSharing:
    @pytest.mark.parametrize("kind", ["side", "film"])
    def test_a_link_shows_everything_read_only_until_it_is_ended(self, kind: str) -> None:
        visitor = member()
        if kind == "side":
            address = open_side(visitor)
        else:
            address = visitor.post("/chat/film", {"run": "demo", "prompt": "Who?"}, page="/chat/film").headers[
                "location"
            ]
        assert visitor.post(f"{address}/share", {}, page=address).status_code == 409
        answer_all(address)
        panel = visitor.post(f"{address}/share", {}, page=address, htmx=True).text
        link = re.search(r"http://testserver(/shared/ages/[^\"]+)", panel)
        assert link is not None
        shared = Visitor().get(link[1])
        assert shared.status_code == 200
        assert shared.headers["x-robots-tag"] == "noindex"
        assert shared.text.count("&lt;i&gt;yes&lt;/i&gt;") == (2 if kind == "side" else 3)
        assert address not in shared.text
        assert link[1] in visitor.get(address).text
        assert member("lin").post(f"{address}/unshare", {}).status_code == 404
        visitor.post(f"{address}/unshare", {}, page=address)
        assert Visitor().get(link[1]).status_code == 404

    def test_whoever_reads_it_may_report_an_answer_of_any_column(self) -> None:
        visitor = member()
        address = open_side(visitor)
        turn_id = answer_all(address).chats[1].turns[0].id
        panel = visitor.post(f"{address}/share", {}, page=address, htmx=True).text
        link = re.search(r"http://testserver(/shared/ages/[^\"]+)", panel)
        assert link is not None
        reader = member("lin")
        form = reader.get(link[1]).text.split(f'action="/report/{turn_id}"')[1]
        token = re.search(r'name="token" value="([^"]+)"', form)
        assert token is not None
        fields = {"token": token[1], "reason": "wrong"}
        assert reader.post(f"/report/{turn_id}", fields, page=link[1]).status_code == 303
        assert reader.post(f"/report/{turn_id}", {"reason": "wrong"}, page=link[1]).status_code == 404

    def test_a_battle_has_no_such_link(self) -> None:
        assert Visitor().get("/shared/ages/none").status_code == 404
