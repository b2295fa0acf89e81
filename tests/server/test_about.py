"""What visitors are told about answers and about what is kept."""

import pytest

from tests.server.visitors import Visitor, member

pytestmark = pytest.mark.usefixtures("database")


def test_everybody_reads_how_answers_come_about_and_what_is_kept() -> None:
    page = Visitor().get("/about/models").text
    assert all(words in page for words in ("may be wrong, offensive or harmful", "How to report an answer", "20/hour"))
    assert "for 1 hour it can be brought back" in page


@pytest.mark.parametrize("address", ["/chat", "/chat/side", "/chat/film"])
def test_the_notice_stands_where_models_are_asked(address: str) -> None:
    page = member("mei").get(address)
    assert page.status_code == 200
    assert 'href="/about/models"' in page.text
    assert "may be wrong, offensive or harmful" in page.text
