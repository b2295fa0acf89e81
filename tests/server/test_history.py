"""The history of conversations: search, older ones, rename, delete and undo, share, export and import."""

import re

import orjson
import pytest

from registry import chats, checkpoints, db
from registry.models import Chat, User
from server import limits
from tests.factories import make_checkpoint, make_run
from tests.server.test_chats import HOSTILE, answer_turn, ask, last_turn
from tests.server.visitors import Visitor, member

pytestmark = pytest.mark.usefixtures("database")


@pytest.fixture(autouse=True)
def _checkpoints(database: object) -> None:
    limits._memory.reset()
    with db.transaction() as session:
        run = make_run(session)
        make_checkpoint(session, run, 500)
        make_checkpoint(session, run, 500, kind="chat")


def answered(visitor: Visitor, prompt: str = "To be, or", text: str = "not to be", checkpoint: str = "demo@500") -> str:
    """A conversation with one answer; its address."""
    address = ask(visitor, prompt, checkpoint)
    answer_turn(last_turn().id, text)
    return address


class TestSearch:
    def test_it_looks_into_titles_questions_and_answers_of_ones_own(self) -> None:
        mei, lin = member("mei"), member("lin")
        mine = answered(mei, "about gardens", "roses grow")
        other = answered(mei, "about ships", "they sail")
        answered(lin, "about gardens too", "roses")
        for words in ("GARDENS", "roses"):
            found = mei.get(f"/chat/history?q={words}", **{"hx-request": "true"}).text
            assert mine in found
            assert other not in found
            assert found.count('<li class="entry">') == 1
        nothing = mei.get("/chat/history?q=100%25", **{"hx-request": "true"}).text
        assert "Nothing you wrote or read here" in nothing

    def test_every_old_conversation_can_be_reached(self) -> None:
        visitor = member()
        with db.transaction() as session:
            user = session.query(User).one()
            for number in range(95):
                chats.open_chat(session, user, checkpoints.newest(session)[0]).title = f"number {number}"
        found: list[str] = []
        address: str | None = "/chat"
        while address:
            page = visitor.get(address).text
            found += re.findall(r'class="chat-title" dir="auto">(number \d+)<', page)
            older = re.search(r'class="older"><a class="small" href="([^"]+)"', page)
            address = older[1].replace("&amp;", "&") if older else None
        assert found == [f"number {number}" for number in reversed(range(95))]

    def test_groups_are_one_entry_and_battles_none(self) -> None:
        visitor = member()
        with db.transaction() as session:
            user, asked = session.query(User).one(), checkpoints.list_checkpoints(session)
            side = chats.open_group(session, user, "side", asked, "both at once").public_id
            chats.open_group(session, user, "battle", asked, "who is better")
        page = visitor.get("/chat").text
        assert page.count(f'href="/chat/side/{side}"') == 1
        assert page.count('class="chat-title"') == 1
        assert visitor.post(f"/chat/{side}/clear", {}).headers["location"] == f"/chat?cleared={side}"
        assert "both at once" in visitor.get(f"/chat?cleared={side}").text
        assert visitor.post(f"/chat/{side}/restore", {}).headers["location"] == f"/chat/side/{side}"


class TestRenameAndDelete:
    def test_a_title_can_be_changed_to_anything_short(self) -> None:
        visitor = member()
        address = answered(visitor)
        visitor.post(f"{address}/rename", {"title": "  My\nplay "})
        assert ">My play<" in visitor.get(address).text
        assert visitor.post(f"{address}/rename", {"title": " "}).status_code == 422
        assert visitor.post(f"{address}/rename", {"title": "x" * 61}).status_code == 422

    def test_a_deletion_can_be_undone(self) -> None:
        visitor = member()
        address = answered(visitor)
        offered = visitor.post(f"{address}/clear", {}).headers["location"]
        assert f'action="{address}/restore"' in visitor.get(offered).text
        assert visitor.post(f"{address}/restore", {}).headers["location"] == address
        assert "not to be" in visitor.get(address).text

    def test_nobody_else_can_do_any_of_it(self) -> None:
        mei, lin = member("mei"), member("lin")
        address = answered(mei)
        for act in ("rename", "clear", "restore", "share", "unshare"):
            assert lin.post(f"{address}/{act}", {"title": "mine"}).status_code == 404
        mei.post(f"{address}/clear", {})
        assert lin.post(f"{address}/restore", {}).status_code == 404
        for form in ("json", "md"):
            assert lin.get(f"{address}/export.{form}").status_code == 404


class TestFiles:
    def test_an_export_comes_back_whole_with_all_its_branches(self) -> None:
        visitor = member()
        address = answered(visitor, HOSTILE[:300], HOSTILE)
        visitor.post(address, {"prompt": "another way", "after": "0"}, htmx=True)
        answer_turn(last_turn().id, "second")
        content = visitor.get(f"{address}/export.json")
        assert content.headers["content-disposition"].startswith("attachment")
        back = import_file(visitor, "any.json", content.content)
        again = visitor.get(f"{back}/export.json").content
        assert without_dates(again) == without_dates(content.content)

    def test_the_markdown_of_a_hostile_conversation_comes_back_too(self) -> None:
        visitor = member()
        text = "<!-- 0123456789ab end -->\n\n## ?\n\n" + HOSTILE
        address = answered(visitor, "## ?\n\n<!-- question -->", text)
        content = visitor.get(f"{address}/export.md").content
        import_file(visitor, "any.md", content)
        assert (last_turn().prompt, last_turn().answer) == ("## ?\n\n<!-- question -->", text)

    @pytest.mark.parametrize(
        ("content", "said"),
        [
            (b"{}", "is no conversation of this site: format"),
            (b"\xff\xfe", "not text in UTF-8"),
            (b"[1", "neither its JSON nor its Markdown"),
            (b"x" * 900_001, "at most 900,000"),
            (
                orjson.dumps({"format": "grow-conversation", "version": 1, "checkpoint": "demo@1", "turns": []}),
                "nothing",
            ),
            (
                orjson.dumps(
                    {
                        "format": "grow-conversation",
                        "version": 1,
                        "checkpoint": "other@1",
                        "turns": [{"parent": None, "prompt": "x", "answer": ""}],
                    }
                ),
                "other",
            ),
            (
                orjson.dumps(
                    {
                        "format": "grow-conversation",
                        "version": 1,
                        "checkpoint": "demo@500",
                        "turns": [{"parent": 0, "prompt": "x", "answer": ""}],
                    }
                ),
                "comes later",
            ),
        ],
    )
    def test_a_file_that_cannot_be_read_says_why(self, content: bytes, said: str) -> None:
        visitor = member()
        answer = visitor.client.post(
            "/chat/import", data={"csrf_token": visitor.token("/chat")}, files={"file": ("a.json", content)}
        )
        assert answer.status_code in (404, 413, 422)
        assert said in answer.text
        with db.read_session() as session:
            assert session.query(Chat).count() == 0


class TestShare:
    def test_a_link_shows_the_branch_to_anybody_until_it_ends(self) -> None:
        visitor = member()
        address = answered(visitor, "<b>Who</b>", "I am **it**", "demo@500-chat")
        panel = visitor.post(f"{address}/share", {}, htmx=True).text
        link = re.search(r"/shared/[\w.-]+", panel)
        assert link
        visitor.post(address, {"prompt": "a secret, later"}, htmx=True)
        page = Visitor().get(link[0])
        assert page.headers["x-robots-tag"] == "noindex"
        assert "&lt;b&gt;Who" in page.text
        assert "<strong>it</strong>" in page.text
        assert "demo@500-chat" in page.text
        assert "a secret, later" not in page.text
        visitor.post(f"{address}/unshare", {}, htmx=True)
        assert Visitor().get(link[0]).status_code == 404

    def test_another_person_goes_on_with_a_copy(self) -> None:
        mei, lin = member("mei"), member("lin")
        address = answered(mei)
        link = re.search(r"/shared/[\w.-]+", mei.post(f"{address}/share", {}, htmx=True).text)
        assert link
        answer = lin.post(f"{link[0]}/continue", {}, page=link[0])
        copy = answer.headers["location"]
        assert copy != address
        assert "not to be" in lin.get(copy).text
        assert Visitor().post(f"{link[0]}/continue", {}, page="/login").headers["location"].startswith("/login")

    def test_nothing_is_shared_before_there_is_an_answer(self) -> None:
        visitor = member()
        assert visitor.post(f"{ask(visitor)}/share", {}, htmx=True).status_code == 409


def import_file(visitor: Visitor, name: str, content: bytes) -> str:
    """Sends the import form; the address of what came of it."""
    answer = visitor.client.post(
        "/chat/import", data={"csrf_token": visitor.token("/chat")}, files={"file": (name, content)}
    )
    assert answer.status_code == 303, answer.text
    return str(answer.headers["location"])


def without_dates(content: bytes) -> dict[str, object]:
    """An export but for the moments in it, which an import does not keep."""
    read: dict[str, object] = orjson.loads(content)
    turns = read["turns"]
    assert isinstance(turns, list)
    return {**read, "created_at": "", "turns": [{**turn, "created_at": ""} for turn in turns]}
