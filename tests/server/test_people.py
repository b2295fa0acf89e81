"""What administrators do about people: find, ban, let ask again; and the trail of it."""

import pytest
from sqlalchemy import select

from registry import audit, db
from registry.models import User
from tests.server.asked import answer
from tests.server.visitors import Visitor, member

pytestmark = pytest.mark.usefixtures("database")


def number(name: str) -> int:
    with db.read_session() as session:
        return session.scalars(select(User.id).where(User.name == name)).one()


def test_people_are_found_by_a_part_of_their_name() -> None:
    keeper = member("keeper", role="admin")
    member("Mei Lin")
    member("other")
    page = keeper.get("/admin/people?search=mei").text
    assert "Mei Lin" in page
    assert ">other" not in page
    assert "Nobody of that name" in keeper.get("/admin/people?search=%25").text


def test_a_banned_person_reads_why_and_keeps_what_is_theirs() -> None:
    keeper, mei = member("keeper", role="admin"), member("mei")
    turn = answer("mei")
    assert keeper.post(f"/admin/people/{number('mei')}/ban", {"reason": "sends spam"}).status_code == 303
    page = mei.get(f"/chat/{turn.chat.public_id}")
    assert page.status_code == 200
    assert "sends spam" in page.text
    assert mei.get("/account/export").status_code == 200
    assert Visitor().log_in("mei").status_code == 303
    assert "sends spam" in keeper.get("/admin/people").text
    keeper.post(f"/admin/people/{number('mei')}/unban", {})
    assert "sends spam" not in mei.get("/chat").text


def test_nobody_bans_themselves_or_without_a_reason() -> None:
    keeper = member("keeper", role="admin")
    member("mei")
    assert keeper.post(f"/admin/people/{number('keeper')}/ban", {"reason": "tired"}).status_code == 422
    assert "needs a reason" in keeper.post(f"/admin/people/{number('mei')}/ban", {"reason": ""}).text
    assert keeper.post("/admin/people/999/ban", {"reason": "gone"}).status_code == 404


def test_the_trail_names_people_and_can_be_filtered() -> None:
    keeper = member("keeper", role="admin")
    member("mei")
    keeper.post(f"/admin/people/{number('mei')}/ban", {"reason": "<i>spam</i>"})
    page = keeper.get("/admin/audit").text
    assert all(words in page for words in ("Person banned", "mei", "keeper", "&lt;i&gt;spam"))
    assert "Nothing yet" in keeper.get("/admin/audit?actor=nobody").text


def test_a_long_trail_has_pages_that_keep_the_filter() -> None:
    keeper = member("keeper", role="admin")
    with db.transaction() as session:
        for at in range(audit.PAGE_SIZE + 1):
            audit.note(session, None, "answer_cut", f"turn:{at}")
    page = keeper.get("/admin/audit?action=answer_cut").text
    assert "/admin/audit?action=answer_cut&amp;actor=&amp;page=2" in page
    assert "turn:0<" in keeper.get("/admin/audit?action=answer_cut&page=2").text
