"""Reporting answers: from one's own conversations and from shared ones."""

import pytest

from registry import db, reports
from registry.settings import get_settings
from tests.server.asked import answer, share
from tests.server.visitors import Visitor, member

pytestmark = pytest.mark.usefixtures("database")


def said() -> list[tuple[str, str]]:
    with db.read_session() as session:
        return [(one.reason, one.note) for case in reports.docket(session).cases for one in case.reports]


def test_an_answer_is_reported_with_a_reason_and_a_note() -> None:
    mei = member("mei")
    turn = answer("mei")
    assert f'action="/report/{turn.id}"' in mei.get(f"/chat/{turn.chat.public_id}").text
    sent = mei.post(f"/report/{turn.id}", {"reason": "harmful", "note": "<b>bad</b>"})
    assert sent.status_code == 303
    assert "An administrator will look at it" in mei.get(sent.headers["location"]).text
    assert said() == [("harmful", "<b>bad</b>")]


def test_a_script_gets_thanks_or_the_form_with_what_is_missing() -> None:
    mei = member("mei")
    turn = answer("mei")
    wrong = mei.post(f"/report/{turn.id}", {"reason": "", "note": "hm"}, htmx=True)
    assert wrong.status_code == 200
    assert "Choose one of the reasons" in wrong.text
    assert ">hm</textarea>" in wrong.text.replace("\n", "")
    right = mei.post(f"/report/{turn.id}", {"reason": "wrong"}, htmx=True)
    assert "Thank you" in right.text
    assert "<html" not in right.text


def test_somebody_elses_answer_is_reported_only_through_its_link() -> None:
    member("mei")
    other = member("other")
    turn = answer("mei")
    assert other.post(f"/report/{turn.id}", {"reason": "wrong"}).status_code == 404
    token = share(turn)
    page = other.get(f"/shared/{token}").text
    assert f'name="token" value="{token}"' in page
    assert other.post(f"/report/{turn.id}", {"reason": "wrong", "token": token}).status_code == 303
    assert said() == [("wrong", "")]


def test_a_passer_by_is_asked_to_log_in() -> None:
    member("mei")
    token = share(answer("mei"))
    assert "Log in to report this answer" in Visitor().get(f"/shared/{token}").text


def test_one_person_cannot_flood_the_queue(monkeypatch: pytest.MonkeyPatch) -> None:

    monkeypatch.setenv("GROW_REPORT_LIMIT", "1/hour")
    get_settings.cache_clear()
    mei = member("flooder")
    turn = answer("flooder")
    mei.post(f"/report/{turn.id}", {"reason": "wrong"})
    assert mei.post(f"/report/{turn.id}", {"reason": "wrong"}).status_code == 429
