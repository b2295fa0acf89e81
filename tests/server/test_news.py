"""News: the list and single posts."""

from fastapi.testclient import TestClient


def test_the_newest_post_comes_first(seeded: TestClient) -> None:
    page = seeded.get("/news").text
    assert page.index("The observatory is open") < page.index("It has learned to open a statute")


def test_a_post_is_formatted_and_pinned_to_its_checkpoint(seeded: TestClient) -> None:
    page = seeded.get("/news/1").text
    assert "<strong>6 million tokens</strong>" in page
    assert "/runs/demo/checkpoints/1500" in page


def test_an_unknown_post_is_not_found(seeded: TestClient) -> None:
    assert seeded.get("/news/99").status_code == 404


def test_no_news_is_said(client: TestClient) -> None:
    assert "No news yet." in client.get("/news").text
