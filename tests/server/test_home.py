"""The front page: the story of the live run, how to begin where there is none, and its living parts."""

import pytest
from fastapi.testclient import TestClient

from registry import db, runs
from tests.factories import finish_evaluation, make_checkpoint, make_run, make_task


class TestHome:
    def test_it_tells_the_age_of_the_live_run(self, seeded: TestClient) -> None:
        page = seeded.get("/").text
        assert "7.4M</strong> tokens read" in page
        assert "about 57 novels" in page

    def test_it_shows_one_curve_large_and_all_in_small(self, seeded: TestClient) -> None:
        page = seeded.get("/").text
        assert page.count("data-chart ") == 1
        assert page.count('class="curve"') == 9

    def test_the_first_screen_has_the_newest_abilities_with_their_curves(self, seeded: TestClient) -> None:
        glance = seeded.get("/home/glance").text
        told = glance.split('class="abilities"')[1].split("</ul>")[0]
        assert told.count("<li>") == 3
        assert 'href="/runs/demo#chart-' in told
        assert "above guessing since" in told

    @pytest.mark.parametrize(("language", "said"), [("en", "To be, or not to be"), ("zh", "第一条")])
    def test_the_first_screen_has_a_sentence_of_three_ages_in_the_readers_language(
        self, seeded: TestClient, language: str, said: str
    ) -> None:
        page = seeded.get("/", headers={"accept-language": language}).text
        glance = page.split('id="glance"')[1].split("</section>")[0]
        assert said in glance.split("<dl")[0]
        assert glance.count("<dt>") == 3
        assert 'href="/runs/demo/timelapse"' in glance

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
        assert {client.get(f"/home/{part}").status_code for part in ("age", "glance", "curves", "words")} == {204}


class TestYoungSites:
    """The page is right at every stage of a site's life."""

    def test_a_run_without_a_checkpoint_has_its_age_and_says_what_will_come(self, client: TestClient) -> None:
        with db.transaction() as session:
            runs.log_metrics(session, make_run(session), 8, 8 * 4096, {"train/loss": 9.0})
        page = client.get("/").text
        assert "32.8K</strong> tokens read" in page
        assert "What it learns is told here" in page
        assert "make demo" not in page

    def test_a_run_that_has_just_begun_does_not_hide_what_is_there(self, seeded: TestClient) -> None:
        with db.transaction() as session:
            runs.log_metrics(session, make_run(session, "newborn"), 8, 8 * 4096, {"train/loss": 9.0})
        assert "7.4M</strong> tokens read" in seeded.get("/").text

    def test_one_checkpoint_is_no_progress_yet(self, client: TestClient) -> None:
        with db.transaction() as session:
            checkpoint = make_checkpoint(session, make_run(session), 0)
            finish_evaluation(session, checkpoint, make_task(session), 0.25)
            session.info.pop("deferred_jobs", None)
        page = client.get("/").text
        assert "Nothing is surely above guessing yet" in page
        assert "/chat?checkpoint=demo@0" in page

    def test_a_model_that_was_uploaded_is_shown_where_nothing_is_trained(self, client: TestClient) -> None:
        with db.transaction() as session:
            runs.create_run(session, name="empty", kind="upload")
            guest = runs.create_run(session, name="guest", kind="upload")
            task = make_task(session)
            for step, value in ((100, 0.24), (200, 0.4), (300, 0.5)):
                finish_evaluation(session, make_checkpoint(session, guest, step), task, value)
            session.info.pop("deferred_jobs", None)
        page = client.get("/").text
        assert 'href="/runs/guest"' in page
        assert "make demo" not in page
        assert "above guessing since 819.2K tokens: 50.0% right (guessing: 25.0%)" in page

    def test_a_site_with_empty_uploads_says_how_to_begin(self, client: TestClient) -> None:
        with db.transaction() as session:
            runs.create_run(session, name="empty", kind="upload")
        assert "make demo" in client.get("/").text


def test_the_front_page_asks_the_database_a_bounded_number_of_questions(seeded: TestClient, queries: list[str]) -> None:
    seeded.get("/")
    assert len(queries) <= 26
