"""The front page: the story of the live run, how to begin where there is none, and its living parts."""

from fastapi.testclient import TestClient


class TestHome:
    def test_it_tells_the_age_of_the_live_run(self, seeded: TestClient) -> None:
        page = seeded.get("/").text
        assert "7.4M</strong> tokens read" in page
        assert "about 57 novels" in page

    def test_it_shows_one_curve_large_and_all_in_small(self, seeded: TestClient) -> None:
        page = seeded.get("/").text
        assert page.count("data-chart ") == 1
        assert page.count('class="curve"') == 9

    def test_it_shows_one_beginning_at_three_ages(self, seeded: TestClient) -> None:
        page = seeded.get("/home/words").text
        first_story = page.split("</details>")[0]
        assert first_story.count("<li>") == 3
        assert "保护公民" in first_story

    def test_it_lists_the_newest_models_of_both_kinds_and_the_news(self, seeded: TestClient) -> None:
        page = seeded.get("/home/updates").text
        assert "demo@1750-chat" in page
        assert "It has learned to open a statute" in page

    def test_an_empty_site_says_how_to_begin(self, client: TestClient) -> None:
        assert "make demo" in client.get("/").text

    def test_the_living_parts_have_nothing_to_send_before_a_run(self, client: TestClient) -> None:
        assert {client.get(f"/home/{part}").status_code for part in ("age", "curves", "words")} == {204}


def test_the_front_page_asks_the_database_a_bounded_number_of_questions(seeded: TestClient, queries: list[str]) -> None:
    seeded.get("/")
    assert len(queries) <= 16
