"""News: the list and single posts."""

from fastapi.testclient import TestClient

from registry import db, news, runs


def pin(kind: str, step: int | None) -> int:
    """A post about the seeded run."""
    with db.transaction() as session:
        run = runs.get_run(session, "demo")
        return news.publish_post(session, title="Pinned", body="", kind=kind, run=run, step=step).id


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


def test_an_incident_leads_to_the_training_page(seeded: TestClient) -> None:
    assert 'href="/runs/demo/training#incidents">demo, step 1,500' in seeded.get(f"/news/{pin('incident', 1500)}").text


def test_a_post_at_a_step_without_a_checkpoint_leads_to_the_run(seeded: TestClient) -> None:
    assert 'href="/runs/demo">demo, step 1,501' in seeded.get(f"/news/{pin('news', 1501)}").text
    assert 'href="/runs/demo">demo</a>' in seeded.get(f"/news/{pin('news', None)}").text
