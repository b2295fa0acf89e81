"""Leaving the site: the export, the password, and what is gone afterwards."""

import pytest
from sqlalchemy import select

from registry import db
from registry.models import Chat, User
from tests.server.asked import ANSWER, answer, share
from tests.server.visitors import PASSWORD, Visitor, member

pytestmark = pytest.mark.usefixtures("database")


def test_an_account_is_deleted_with_its_conversations_once_the_password_is_given() -> None:
    member("keeper", role="admin")
    mei = member("mei")
    token = share(answer("mei"))
    refused = mei.post("/account/delete", {"password": "not this one"})
    assert refused.status_code == 403
    assert "password is wrong" in refused.text
    assert Visitor().get(f"/shared/{token}").status_code == 200

    gone = mei.post("/account/delete", {"password": PASSWORD})
    assert gone.headers["location"] == "/account/deleted"
    assert "Your account is deleted" in mei.get("/account/deleted").text
    assert Visitor().get(f"/shared/{token}").status_code == 404
    assert Visitor().log_in("mei").status_code == 401
    assert mei.get("/account").status_code == 303
    with db.read_session() as session:
        assert session.scalars(select(Chat)).all() == []
        assert session.scalars(select(User.name)).all() == ["keeper"]


def test_the_last_administrator_is_told_what_to_do_first() -> None:
    sent = member("keeper", role="admin").post("/account/delete", {"password": PASSWORD})
    assert sent.status_code == 403
    assert "only administrator" in sent.text


def test_the_export_is_a_file_of_ones_own() -> None:
    mei = member("mei")
    member("other")
    answer("mei")
    answer("other", "somebody else's answer")
    file = mei.get("/account/export")
    assert "attachment" in file.headers["content-disposition"]
    assert file.json()["conversations"][0]["turns"][0]["answer"] == ANSWER
    assert "somebody else" not in file.text
    assert Visitor().get("/account/export").status_code == 303


def test_the_account_says_what_will_happen() -> None:
    page = member("mei").get("/account").text
    assert "Delete mei and everything that is only yours" in page
    assert "/account/export" in page
