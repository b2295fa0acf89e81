"""Two languages: how one is chosen, and that nothing is left untranslated."""

from pathlib import Path

import pytest
from babel.messages.pofile import read_po
from fastapi.testclient import TestClient

from server import i18n


class TestCatalogue:
    def test_it_has_every_marked_string_and_no_other(self, tmp_path: Path) -> None:
        template = tmp_path / "messages.pot"
        i18n.extract(template)
        with template.open("rb") as file:
            marked = {message.id for message in read_po(file) if message.id}
        known = {message.id for message in i18n.read_catalogue() if message.id}
        assert marked - known == set(), "run `python -m server.i18n update`, then translate"
        assert known - marked == set(), "run `python -m server.i18n update`"

    def test_every_string_is_translated_and_none_is_a_guess(self) -> None:
        catalogue = i18n.read_catalogue()
        poor = [
            m.id for m in catalogue if m.id and (m.fuzzy or not all([m.string] if isinstance(m.id, str) else m.string))
        ]
        assert poor == []

    def test_the_translations_take_the_same_values(self) -> None:
        wrong = [(message.id, errors) for message, errors in i18n.read_catalogue().check()]
        assert wrong == []


class TestChoosing:
    @pytest.mark.parametrize(
        ("cookie", "header", "language"),
        [
            (None, None, "en"),
            (None, "zh-CN,zh;q=0.9,en;q=0.8", "zh"),
            (None, "en-GB,en;q=0.9,zh;q=0.2", "en"),
            (None, "fr;q=0.9,zh;q=0.5", "zh"),
            (None, "zh;q=0,en", "en"),
            (None, "fr", "en"),
            (None, ";;q=x,,", "en"),
            ("en", "zh-CN", "en"),
            ("zh", "en", "zh"),
            ("xx", "zh", "zh"),
        ],
    )
    def test_the_cookie_goes_before_the_browser(self, cookie: str | None, header: str | None, language: str) -> None:
        assert i18n.choose(cookie, header) == language

    def test_the_switch_leads_back_to_the_same_page(self, seeded: TestClient) -> None:
        answer = seeded.get("/lang/zh", params={"next": "/runs/demo?x=step"}, follow_redirects=False)
        assert answer.headers["location"] == "/runs/demo?x=step"
        assert 'lang="zh-CN"' in seeded.get("/runs/demo").text

    @pytest.mark.parametrize(
        "address", ["https://evil.example", "//evil.example", "/\\evil.example", "javascript:x", ""]
    )
    def test_the_switch_leads_to_no_other_site(self, client: TestClient, address: str) -> None:
        answer = client.get("/lang/zh", params={"next": address}, follow_redirects=False)
        assert answer.headers["location"] == "/"


def test_a_message_is_filled_in() -> None:
    assert i18n.gettext("step %(step)s", step="12") == "step 12"
    i18n.use("zh")
    try:
        assert i18n.gettext("step %(step)s", step="12") == "第 12 步"
    finally:
        i18n.use("en")


class TestErrorText:
    def test_a_refusal_is_said_in_the_readers_language(self, client: TestClient) -> None:
        answer = client.get("/runs/nope", headers={"accept": "text/html", "accept-language": "zh-CN"})
        assert answer.status_code == 404
        assert "没有名为“nope”的训练" in answer.text
