"""What administrators do about texts: decide about reports, and keep the list of what is blocked."""

import pytest

from registry import blocklist, db
from tests.server.asked import ANSWER, answer, share
from tests.server.visitors import Visitor, member

pytestmark = pytest.mark.usefixtures("database")


def test_an_upheld_report_removes_the_answer_bans_and_blocks() -> None:
    mei, keeper = member("mei"), member("keeper", role="admin")
    turn = answer("mei")
    token = share(turn)
    mei.post(f"/report/{turn.id}", {"reason": "hateful", "note": "look"})
    queue = keeper.get("/admin/reports").text
    assert all(words in queue for words in (ANSWER, "A question", "hateful", "look", "asked by mei"))
    assert ">1<" in keeper.get("/admin").text

    fields = {"hide": "1", "ban": "1", "ban_reason": "asks for such things", "pattern": "should not stand"}
    assert keeper.post(f"/admin/reports/{turn.id}/uphold", fields).status_code == 303

    assert "Nothing waits for you" in keeper.get("/admin/reports?done=upheld").text
    for page in (mei.get(f"/chat/{turn.chat.public_id}").text, Visitor().get(f"/shared/{token}").text):
        assert ANSWER not in page
        assert "An administrator has removed this answer" in page
    assert "asks for such things" in mei.get("/").text
    refused = mei.post("/chat", {"checkpoint": "demo@0", "prompt": "Hello"}, page="/account")
    assert "asks for such things" in refused.text
    assert "should not stand" in keeper.get("/admin/blocklist").text
    trail = keeper.get("/admin/audit").text
    assert all(word in trail for word in ("Report upheld", "Answer removed", "Person banned", "Pattern blocked"))


def test_what_cannot_be_done_is_said_and_nothing_is_decided() -> None:
    mei, keeper = member("mei"), member("keeper", role="admin")
    turn = answer("mei")
    mei.post(f"/report/{turn.id}", {"reason": "wrong"})
    sent = keeper.post(
        f"/admin/reports/{turn.id}/uphold", {"hide": "1", "ban": "1", "ban_reason": " ", "pattern": "p q"}
    )
    assert sent.status_code == 422
    assert "A ban needs a reason" in sent.text
    assert 'value="p q"' in sent.text
    assert ANSWER in mei.get(f"/chat/{turn.chat.public_id}").text


def test_a_dismissed_report_leaves_the_answer() -> None:
    mei, keeper = member("mei"), member("keeper", role="admin")
    turn = answer("mei")
    mei.post(f"/report/{turn.id}", {"reason": "wrong"})
    assert keeper.post(f"/admin/reports/{turn.id}/dismiss", {}).status_code == 303
    assert "Nothing waits for you" in keeper.get("/admin/reports").text
    assert ANSWER in mei.get(f"/chat/{turn.chat.public_id}").text
    assert keeper.post(f"/admin/reports/{turn.id}/dismiss", {}).status_code == 404


def test_hostile_texts_stay_texts() -> None:
    mei, keeper = member("mei"), member("keeper", role="admin")
    turn = answer("mei", "<img src=x onerror=alert(1)>\u202e\x1b[31m", "<script>alert(2)</script>")
    mei.post(f"/report/{turn.id}", {"reason": "other", "note": "<svg onload=alert(3)>"})
    page = keeper.get("/admin/reports").text
    assert not any(mark in page for mark in ("<img src=x", "<script>alert", "<svg onload", "\u202e", "\x1b"))


def test_patterns_are_added_tried_and_removed() -> None:
    keeper = member("keeper", role="admin")
    assert keeper.post("/admin/blocklist", {"pattern": r"card \d+", "is_regex": "1"}).status_code == 303
    assert "Blocked by" in keeper.post("/admin/blocklist/try", {"text": "my CARD 12"}).text
    assert "Nothing in it is blocked" in keeper.post("/admin/blocklist/try", {"text": "my cart"}).text
    with db.read_session() as session:
        [row] = blocklist.list_patterns(session)
    assert keeper.post(f"/admin/blocklist/{row.id}/remove", {}).status_code == 303
    assert "Nothing is blocked" in keeper.get("/admin/blocklist").text


def test_a_pattern_that_cannot_be_is_refused_with_what_was_typed() -> None:
    sent = member("keeper", role="admin").post("/admin/blocklist", {"pattern": "(a|aa)+$", "is_regex": "1"})
    assert sent.status_code == 422
    assert "can take very long" in sent.text
    assert 'value="(a|aa)+$"' in sent.text


def test_a_blocked_question_is_refused_and_noted() -> None:
    mei, keeper = member("mei"), member("keeper", role="admin")
    answer("mei")  # so that there is a checkpoint
    keeper.post("/admin/blocklist", {"pattern": "forbidden", "direction": "in"})
    sent = mei.post("/chat", {"checkpoint": "demo@0", "prompt": "say FORBIDDEN"})
    assert "rules do not allow" in sent.text
    trail = keeper.get("/admin/audit?action=prompt_refused").text
    assert "Question refused" in trail
    assert "mei" in trail


@pytest.mark.parametrize("address", ["/admin/reports", "/admin/blocklist", "/admin/people", "/admin/audit"])
def test_these_pages_are_for_administrators(address: str) -> None:
    assert member("mei").get(address).status_code == 403
