"""Runs: the list, the page with its curves, and the fragments that keep it up to date."""

import pytest
from fastapi.testclient import TestClient

from registry import db, runs, suites
from tests.factories import finish_evaluation, make_checkpoint


class TestRunPage:
    def test_curves_are_grouped_by_ability_with_the_interval_and_guessing(self, seeded: TestClient) -> None:
        page = seeded.get("/runs/demo").text
        assert [page.index(f'data-ability="{name}"') for name in ("chinese", "english", "code")] == sorted(
            page.index(f'data-ability="{name}"') for name in ("chinese", "english", "code")
        )
        assert '"chance_text": "guessing: 25.0%"' in page
        assert '"low": ' in page

    @pytest.mark.parametrize(("x", "words"), [("tokens", "7.2M tokens"), ("step", "step 1,750"), ("flops", "FLOPs")])
    def test_the_axis_is_in_the_address(self, seeded: TestClient, x: str, words: str) -> None:
        page = seeded.get(f"/runs/demo?x={x}").text
        assert words in page
        assert f'href="?x={x}#growth"' in page
        chosen = page.split(f'href="?x={x}#growth"')[1].split(">")[0]
        assert 'aria-current="true"' in chosen

    def test_every_chart_has_a_table(self, seeded: TestClient) -> None:
        page = seeded.get("/runs/demo").text
        assert page.count("data-chart ") == page.count('class="chart-table"') == 9 + 7

    def test_the_progress_of_each_checkpoint_is_shown(self, seeded: TestClient) -> None:
        page = seeded.get("/runs/demo").text
        assert "5/10" in page
        assert "10/10" in page

    def test_a_rejected_upload_says_so(self, seeded: TestClient) -> None:
        assert "rejected" in seeded.get("/runs/uploads").text

    def test_the_number_of_questions_to_the_database_does_not_grow_with_checkpoints(
        self, seeded: TestClient, queries: list[str]
    ) -> None:
        seeded.get("/runs/demo")
        before = len(queries)
        with db.transaction() as session:
            run = runs.get_run(session, "demo")
            task = suites.get_task(session, "zh_bits")
            for step in range(2000, 2010):
                finish_evaluation(session, make_checkpoint(session, run, step), task, 1.1)
            session.info.pop("deferred_jobs", None)
        queries.clear()
        seeded.get("/runs/demo")
        assert len(queries) == before <= 25


class TestFragments:
    def test_a_new_point_is_in_the_next_fragment(self, seeded: TestClient) -> None:
        count = seeded.get("/runs/demo/charts/zh_bits").text.count('"href"')
        with db.transaction() as session:
            run = runs.get_run(session, "demo")
            finish_evaluation(session, make_checkpoint(session, run, 2000), suites.get_task(session, "zh_bits"), 1.1)
            session.info.pop("deferred_jobs", None)
        fragment = seeded.get("/runs/demo/charts/zh_bits").text
        assert fragment.count('"href"') == count + 1
        assert "is-update" in fragment
        assert "<!doctype" not in fragment

    def test_a_chart_waits_for_its_own_task(self, seeded: TestClient) -> None:
        assert 'data-live="evaluation:demo:zh_bits"' in seeded.get("/runs/demo/charts/zh_bits").text

    def test_an_unknown_task_names_the_tasks(self, seeded: TestClient) -> None:
        answer = seeded.get("/runs/demo/charts/nope")
        assert answer.status_code == 404
        assert "zh_next_line" in answer.text

    def test_a_probe_has_no_curve(self, seeded: TestClient) -> None:
        assert seeded.get("/runs/demo/charts/probes").status_code == 404

    def test_an_unknown_scalar_names_the_scalars(self, seeded: TestClient) -> None:
        answer = seeded.get("/runs/demo/scalars/train/nope")
        assert answer.status_code == 404
        assert "train/loss" in answer.text

    def test_the_list_of_checkpoints_is_a_fragment_for_htmx_and_a_page_for_others(self, seeded: TestClient) -> None:
        assert 'id="checkpoints"' in seeded.get("/runs/demo/checkpoints", headers={"hx-request": "true"}).text
        plain = seeded.get("/runs/demo/checkpoints", follow_redirects=False)
        assert plain.headers["location"] == "/runs/demo#checkpoints"


def test_the_list_has_runs_and_uploads_apart(seeded: TestClient) -> None:
    page = seeded.get("/runs").text
    assert page.index("/runs/demo") < page.index("Uploaded models") < page.index("/runs/uploads")
