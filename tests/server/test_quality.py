"""The page of task quality: a word for each task with its reason, sorted and filtered without scripts."""

import re

import pytest
from fastapi.testclient import TestClient

from registry import db, runs, suites
from server import quality
from tests.factories import finish_evaluation, make_checkpoint, make_run, make_task


def titles(page: str) -> list[str]:
    return re.findall(r'<th scope="row"><a href="/runs/demo/tasks/([^"]+)"', page)


class TestPage:
    def test_each_task_has_a_word_and_its_reason(self, seeded: TestClient) -> None:
        page = seeded.get("/runs/demo/tasks").text
        row = page.split('href="/runs/demo/tasks/basic_skills"')[1].split("</tr>")[0]
        assert '<span aria-hidden="true">○</span> too early: still at chance' in row
        assert "standard errors above guessing" in row
        assert page.count("2 of the 5 checkpoints that a trend needs.") == 3

    def test_links_lead_to_the_ledger_and_to_the_curve(self, seeded: TestClient) -> None:
        page = seeded.get("/runs/demo/tasks").text
        assert 'href="/runs/demo/tasks/zh_pairs"' in page
        assert 'href="/runs/demo?tasks=zh_pairs"' in page

    def test_the_clearest_metric_is_named(self, seeded: TestClient) -> None:
        assert "Clearest metric: " in seeded.get("/runs/demo/tasks").text

    def test_what_the_panel_costs_is_told(self, seeded: TestClient) -> None:
        page = seeded.get("/runs/demo/tasks").text
        assert "8 of 9 tasks that every checkpoint gets are worth it now." in page
        assert "A checkpoint costs 16 seconds of the engine, those tasks 14 seconds of it." in page

    def test_it_is_whole_in_chinese(self, seeded: TestClient) -> None:
        page = seeded.get("/runs/demo/tasks", headers={"accept-language": "zh"}).text
        assert "为时尚早：仍与猜测无异" in page


class TestOrder:
    def test_columns_are_sorted_by_their_links(self, seeded: TestClient) -> None:
        page = seeded.get("/runs/demo/tasks?sort=growth").text
        assert titles(page)[0] == "zh_bits"
        assert 'aria-sort="descending"' in page
        assert 'href="?sort=growth&amp;reverse=true#quality"' in page

    def test_the_other_way_round_what_is_unknown_stays_last(self, seeded: TestClient) -> None:
        found = titles(seeded.get("/runs/demo/tasks?sort=growth&reverse=true").text)
        assert found[0] == "basic_skills"
        assert set(found[-3:]) == {"zh_idiom", "sums", "zh_exam"}

    def test_verdicts_worth_it_first(self, seeded: TestClient) -> None:
        assert titles(seeded.get("/runs/demo/tasks?sort=verdict").text)[8] == "basic_skills"

    @pytest.mark.parametrize("sort", ["monotonicity", "chance", "change", "items", "cost"])
    def test_every_column_keeps_every_task(self, seeded: TestClient, sort: str) -> None:
        assert len(titles(seeded.get(f"/runs/demo/tasks?sort={sort}").text)) == 12

    def test_filters_by_ability_and_suite_go_together(self, seeded: TestClient) -> None:
        page = seeded.get("/runs/demo/tasks?ability=chinese&suite=chinese&sort=growth").text
        assert titles(page) == ["zh_idiom"]
        assert 'href="?sort=growth&amp;suite=chinese#quality"' in page

    def test_nothing_of_that_kind_leads_back(self, seeded: TestClient) -> None:
        assert "No task of this run is of that kind." in seeded.get("/runs/demo/tasks?ability=%22%3E%3Cscript%3E").text

    def test_an_unknown_column_is_refused(self, seeded: TestClient) -> None:
        assert seeded.get("/runs/demo/tasks?sort=luck").status_code == 422


class TestEmpty:
    def test_a_run_without_scores_says_so(self, seeded: TestClient) -> None:
        assert "No task has a score yet." in seeded.get("/runs/uploads/tasks").text

    def test_an_imported_run_has_no_cost(self, seeded: TestClient) -> None:
        [found] = seeded.get("/api/v1/runs/elsewhere/tasks").json()["tasks"]
        assert (found["engine_seconds"], found["verdict"]) == (None, "too few")


class TestWords:
    @pytest.mark.parametrize(
        ("scores", "word"),
        [
            ([0.3, 0.4, 0.5, 0.6, 0.7, 0.8], "worth it"),
            ([0.8, 0.7, 0.62, 0.5, 0.42, 0.4], "backwards"),
            ([0.5, 0.9, 0.4, 0.8, 0.5, 0.6], "too noisy"),
            ([0.5, 0.7, 0.9, 0.95, 0.98, 0.99], "saturated"),
            ([0.25, 0.26, 0.24, 0.25, 0.26, 0.25], "too early"),
            ([0.3, 0.4], "too few"),
        ],
    )
    def test_a_curve_gets_the_word_that_it_earns(self, client: TestClient, scores: list[float], word: str) -> None:
        with db.transaction() as session:
            run, task = make_run(session, "young"), make_task(session)
            for at, score in enumerate(scores):
                finish_evaluation(session, make_checkpoint(session, run, 100 * at), task, score)
            session.info.pop("deferred_jobs", None)
        [found] = client.get("/api/v1/runs/young/tasks").json()["tasks"]
        assert found["verdict"] == word
        assert found["reason"]
        assert found["reason"] in client.get("/runs/young/tasks").text

    def test_every_word_has_a_name_and_a_shape_of_its_own(self) -> None:
        assert set(quality.NAMES) == set(quality.MARKS)
        assert len(set(quality.MARKS.values())) == len(quality.MARKS)


@pytest.mark.parametrize("address", ["/runs/demo/tasks", "/api/v1/runs/demo/tasks"])
def test_the_number_of_questions_to_the_database_does_not_grow(
    seeded: TestClient, queries: list[str], address: str
) -> None:
    seeded.get(address)
    before = len(queries)
    with db.transaction() as session:
        run, task = runs.get_run(session, "demo"), suites.get_task(session, "zh_bits")
        for step in range(2000, 2010):
            finish_evaluation(session, make_checkpoint(session, run, step), task, 1.1)
        session.info.pop("deferred_jobs", None)
    queries.clear()
    seeded.get(address)
    assert len(queries) == before <= 6
