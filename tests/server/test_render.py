"""Pages: every template renders in both languages, words for numbers, and Markdown that cannot harm."""

import datetime as dt

import pytest
from fastapi.testclient import TestClient

from registry.models.base import utcnow
from server import i18n, render

PAGES = (
    "/",
    "/runs",
    "/runs/demo",
    "/runs/demo?x=step",
    "/runs/demo?x=flops",
    "/runs/demo?x=time",
    "/runs/uploads",
    "/runs/demo/checkpoints/1750",
    "/runs/demo/checkpoints/1750?kind=chat&precision=16",
    "/runs/demo/checkpoints/0",
    "/runs/uploads/checkpoints/1",
    "/runs/demo/checkpoints/500",
    "/runs/demo/checkpoints/16",
    "/runs/elsewhere",
    "/runs/elsewhere/checkpoints/2000",
    "/evaluations/1",
    "/evaluations/2?show=wrong",
    "/models",
    "/news",
    "/news/1",
    "/home/age",
    "/home/curves",
    "/home/words",
    "/home/updates",
    "/runs/demo/status",
    "/runs/demo/charts/zh_bits",
    "/runs/demo/training",
    "/runs/demo/training?x=step",
    "/runs/elsewhere/training",
    "/chat",
    "/login",
    "/register",
)


@pytest.mark.parametrize("language", ["en", "zh"])
@pytest.mark.parametrize("address", PAGES)
def test_every_page_renders(seeded: TestClient, address: str, language: str) -> None:
    answer = seeded.get(address, headers={"accept-language": language})
    assert answer.status_code == 200
    assert "<script>" not in answer.text
    assert " style=" not in answer.text


@pytest.mark.parametrize("address", ["/", "/runs", "/models", "/news"])
def test_every_page_has_something_to_say_before_anything_was_trained(client: TestClient, address: str) -> None:
    assert client.get(address).status_code == 200


def test_a_banner_tells_that_the_broker_is_away(seeded: TestClient) -> None:
    assert "The message broker is away" in seeded.get("/").text


def test_the_chosen_theme_is_in_the_first_byte_of_the_page(client: TestClient) -> None:
    client.cookies.set("theme", "dark")
    assert 'data-theme="dark"' in client.get("/").text
    client.cookies.set("theme", '"><script>')
    assert "data-theme" not in client.get("/").text


class TestMarkdown:
    def test_it_formats(self) -> None:
        assert "<strong>six</strong>" in render.markdown("**six** tokens")

    @pytest.mark.parametrize(
        "text",
        [
            "<script>alert(1)</script>",
            "<img src=x onerror=alert(1)>",
            "[click](javascript:alert(1))",
            "<a href='javascript:alert(1)'>x</a>",
        ],
    )
    def test_it_carries_no_code(self, text: str) -> None:
        made = render.markdown(text)
        assert "<script" not in made
        assert "<img" not in made
        assert 'href="javascript' not in made

    def test_an_excerpt_is_plain_words(self) -> None:
        assert render.excerpt("**Six** & [seven](/x)\n\n> eight") == "Six & seven eight"


class TestWords:
    @pytest.mark.parametrize(
        ("tokens", "words"),
        [
            (1_000, "about 2 pages of a book"),
            (5_100_000, "about 39 novels"),
            (2_000_000_000, "about 13 years of reading day and night"),
        ],
    )
    def test_tokens_in_a_unit_one_has_held(self, tokens: int, words: str) -> None:
        assert render.reading(tokens) == words

    def test_chinese_counts_in_ten_thousands(self) -> None:
        i18n.use("zh")
        try:
            assert render.compact(5_100_000) == "510万"
        finally:
            i18n.use("en")

    def test_sizes(self) -> None:
        assert [render.size(n) for n in (12, 1_500, 15_200_000, 26_000_000_000)] == [
            "12 B",
            "1.5 kB",
            "15.2 MB",
            "26.0 GB",
        ]

    def test_moments_ago(self) -> None:
        assert render.ago(utcnow() - dt.timedelta(minutes=3)) == "3 minutes ago"


def test_a_static_address_changes_with_the_content() -> None:
    assert render.static_url("css/site.css").startswith("/static/css/site.css?v=")
    assert render.static_url("css/none.css") == "/static/css/none.css"
