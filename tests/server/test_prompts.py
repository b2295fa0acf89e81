"""Proposing a prompt on the time-lapse page, and deciding about it on the administrator's."""

import html
from pathlib import Path

import pytest

from registry import db, prompts
from registry.models import Evaluation, ProposedPrompt
from registry.models.base import QUEUED
from registry.models.prompts import ACCEPTED, DECLINED, WAITING, WITHDRAWN
from registry.settings import get_settings
from server import limits
from tests.factories import make_checkpoint, make_run
from tests.server.visitors import Visitor, member

PAGE = "/runs/growing/timelapse"
FORM = f"{PAGE}/proposals"


@pytest.fixture(autouse=True)
def _run(database: Path) -> None:
    limits._memory.reset()
    with db.transaction() as session:
        run = make_run(session, "growing")
        for step in (1, 2):
            make_checkpoint(session, run, step)
        session.info.pop("deferred_jobs", None)


@pytest.fixture
def mei() -> Visitor:
    return member("mei")


@pytest.fixture
def admin() -> Visitor:
    return member("keeper", role="admin")


def only() -> ProposedPrompt:
    """The one prompt that was proposed."""
    with db.read_session() as session:
        return session.query(ProposedPrompt).one()


def said(visitor: Visitor, address: str = PAGE) -> str:
    return html.unescape(visitor.get(address).text)


class TestProposing:
    def test_a_visitor_proposes_and_sees_that_it_waits(self, mei: Visitor) -> None:
        answer = mei.post(FORM, {"text": "Once upon a <b>time</b>"}, page=PAGE)
        assert (answer.status_code, answer.headers["location"]) == (303, f"{PAGE}?proposed=true#proposals")
        page = mei.get(f"{PAGE}?proposed=true").text
        assert "It waits for an answer now" in page
        assert "Once upon a &lt;b&gt;time&lt;/b&gt;" in page
        assert ">waiting</span>" in page
        assert only().state == WAITING

    def test_others_do_not_see_what_waits(self, mei: Visitor) -> None:
        mei.post(FORM, {"text": "Once upon a time"}, page=PAGE)
        assert "Once upon a time" not in said(Visitor())
        assert "Once upon a time" not in said(member("li"))

    def test_who_is_not_logged_in_is_sent_to_the_door(self) -> None:
        visitor = Visitor()
        assert "Log in to propose one" in said(visitor)
        answer = visitor.post(FORM, {"text": "Once"}, page="/login")
        assert answer.status_code == 303
        assert answer.headers["location"].startswith("/login?next=")

    @pytest.mark.parametrize("text", ["", "x" * 201, "a\x07b"])
    def test_a_refusal_keeps_what_was_typed(self, mei: Visitor, text: str) -> None:
        answer = mei.post(FORM, {"text": text}, page=PAGE)
        assert answer.status_code == 422
        assert 'role="alert"' in answer.text
        assert text in html.unescape(answer.text)

    def test_a_form_from_elsewhere_is_refused(self, mei: Visitor) -> None:
        answer = mei.client.post(FORM, data={"text": "Once", "csrf_token": "forged"})
        assert answer.status_code == 403

    def test_there_is_a_limit_a_day_and_refusals_do_not_count(
        self, mei: Visitor, admin: Visitor, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(get_settings(), "proposal_limit", "2/day")
        for text in ("", "one", "one", "two"):
            mei.post(FORM, {"text": text}, page=PAGE)
        answer = mei.post(FORM, {"text": "three"}, page=PAGE)
        assert answer.status_code == 429
        assert "too often" in answer.text
        assert "three" in answer.text

    def test_the_page_of_an_unknown_run(self, mei: Visitor) -> None:
        assert mei.post("/runs/nope/timelapse/proposals", {"text": "Once"}).status_code == 404


class TestDeciding:
    @pytest.fixture
    def prompt(self, mei: Visitor) -> ProposedPrompt:
        mei.post(FORM, {"text": "Once upon a time <i>"}, page=PAGE)
        return only()

    def send(self, admin: Visitor, prompt: ProposedPrompt, verb: str, **fields: str) -> tuple[int, str]:
        answer = admin.post(f"/admin/prompts/{prompt.id}/{verb}", fields, page="/admin/prompts")
        return answer.status_code, answer.headers.get("location", "")

    def test_an_accepted_one_is_in_line_for_every_checkpoint(
        self, admin: Visitor, mei: Visitor, prompt: ProposedPrompt
    ) -> None:
        page = admin.get("/admin/prompts").text
        assert "Once upon a time &lt;i&gt;" in page
        assert "mei" in page
        assert self.send(admin, prompt, "accept") == (303, "/admin/prompts?done=accepted&planned=2")
        assert only().state == ACCEPTED
        with db.read_session() as session:
            assert [one.status for one in session.query(Evaluation)] == [QUEUED, QUEUED]
        assert "2 checkpoints are in line for it" in said(admin, "/admin/prompts?done=accepted&planned=2")
        assert "0 of 2 checkpoints have answered" in said(admin, "/admin/prompts")
        assert "Visitors' prompts in line" in said(admin, "/admin")
        assert f"?prompt={prompt.item}" in said(mei)

    def test_a_declined_one_shows_its_reason_to_who_proposed_it(
        self, admin: Visitor, mei: Visitor, prompt: ProposedPrompt
    ) -> None:
        assert self.send(admin, prompt, "decline", reason=" ")[0] == 422
        assert self.send(admin, prompt, "decline", reason="It <names> a person.")[0] == 303
        assert only().state == DECLINED
        page = mei.get(PAGE).text
        assert "It &lt;names&gt; a person." in page
        assert ">declined</span>" in page
        assert self.send(admin, prompt, "accept")[0] == 303

    def test_an_accepted_one_can_be_withdrawn_and_accepted_again(
        self, admin: Visitor, mei: Visitor, prompt: ProposedPrompt
    ) -> None:
        self.send(admin, prompt, "accept")
        assert self.send(admin, prompt, "withdraw") == (303, "/admin/prompts?done=withdrawn")
        assert only().state == WITHDRAWN
        assert mei.get(f"{PAGE}?prompt={prompt.item}").status_code == 404
        assert ">withdrawn</span>" in said(mei)
        assert self.send(admin, prompt, "accept")[1].endswith("planned=2")

    def test_what_contradicts_is_said_in_a_sentence(self, admin: Visitor, prompt: ProposedPrompt) -> None:
        answer = admin.post(f"/admin/prompts/{prompt.id}/withdraw", {}, page="/admin/prompts")
        assert answer.status_code == 422
        assert "Only an accepted prompt can be withdrawn." in answer.text
        assert self.send(admin, prompt, "accept")[0] == 303
        assert self.send(admin, prompt, "accept")[0] == 422

    def test_it_is_for_administrators_only(self, mei: Visitor, prompt: ProposedPrompt) -> None:
        assert mei.get("/admin/prompts").status_code == 403
        for verb in ("accept", "decline", "withdraw"):
            assert mei.post(f"/admin/prompts/{prompt.id}/{verb}", {"reason": "x"}).status_code == 403
        assert Visitor().get("/admin/prompts").status_code in (303, 401)
        assert only().state == WAITING

    def test_a_form_from_elsewhere_is_refused(self, admin: Visitor, prompt: ProposedPrompt) -> None:
        answer = admin.client.post(f"/admin/prompts/{prompt.id}/accept", data={"csrf_token": "forged"})
        assert answer.status_code == 403
        assert only().state == WAITING

    def test_its_page_takes_the_same_queries_for_many(self, admin: Visitor, queries: list[str]) -> None:
        with db.transaction() as session:
            for at in range(30):
                user = session.get_one(prompts.User, 1)
                session.add(ProposedPrompt(item=str(at), text=str(at), user_id=user.id))
        queries.clear()
        assert admin.get("/admin/prompts").status_code == 200
        assert len(queries) <= 6
