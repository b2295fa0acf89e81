"""Runs: the list, the page with its curves, and the fragments that keep it up to date."""

import json
from typing import Any

from fastapi.testclient import TestClient

from registry import db, runs, suites
from tests.factories import finish_evaluation, make_checkpoint

HTMX = {"hx-request": "true"}


def chart_of(page: str, task: str) -> Any:
    """The data of a task's chart."""
    figure = page.split(f'id="chart-{task}"')[1]
    return json.loads(figure.split('<script type="application/json">')[1].split("</script>")[0])


class TestRunPage:
    def test_the_progress_of_each_checkpoint_is_shown(self, seeded: TestClient) -> None:
        page = seeded.get("/runs/demo/checkpoints").text
        assert "5/10" in page
        assert "10/10" in page

    def test_a_gap_stands_where_an_evaluation_failed(self, seeded: TestClient) -> None:
        chart = chart_of(seeded.get("/runs/demo/charts/en_pairs?x=step").text, "en_pairs")
        [failed] = [dot for dot in chart["dots"] if "failed" in dot]
        assert (failed["step"], "y" in failed) == (500, False)
        assert [dot["step"] for dot in chart["dots"] if dot.get("after_gap")] == [750]

    def test_lines_say_what_their_protocols_differ_in(self, seeded: TestClient) -> None:
        page = seeded.get("/runs/demo/charts/zh_pairs").text
        assert "6 points under an earlier protocol: engine version 0.31.0, now 0.32.0" in page
        assert [line["num_points"] for line in chart_of(page, "zh_pairs")["lines"]] == [6, 8]

    def test_every_verdict_is_in_the_table_as_a_word_beside_a_shape(self, seeded: TestClient) -> None:
        table = seeded.get("/runs/demo/charts/zh_bits").text.split("<tbody>")[1]
        assert '<span class="mark" aria-hidden="true">▲</span> gain' in table

    def test_values_in_the_table_lead_to_their_answers(self, seeded: TestClient) -> None:
        assert '<a href="/evaluations/' in seeded.get("/runs/demo/charts/zh_bits").text

    def test_imported_points_say_so(self, seeded: TestClient) -> None:
        fragment = seeded.get("/runs/elsewhere/charts/zh_next_line").text
        assert fragment.count('<span class="faint">imported</span>') == 3

    def test_a_checkpoint_with_a_warning_is_marked_in_list_and_tables(self, seeded: TestClient) -> None:
        page = seeded.get("/runs/demo/checkpoints").text
        assert 'href="/runs/demo/checkpoints/16#warnings"' in page.split('id="checkpoints"')[1]
        assert 'href="/runs/demo/checkpoints/16#warnings"' in seeded.get("/runs/demo/charts/zh_bits").text

    def test_the_backlog_is_told_in_a_line(self, seeded: TestClient) -> None:
        line = seeded.get("/runs/demo/checkpoints", headers={"hx-request": "true"}).text.split("<table>")[0]
        assert "121 of 126 evaluations done" in line
        assert "a checkpoint costs 18 seconds of the engine" in line
        assert "Which line follows, Shakespeare" in line

    def test_a_rejected_upload_says_so(self, seeded: TestClient) -> None:
        assert "rejected" in seeded.get("/runs/uploads/checkpoints").text


class TestFragments:
    def test_a_new_point_is_in_the_next_fragment(self, seeded: TestClient) -> None:
        count = seeded.get("/runs/demo/charts/zh_bits", headers=HTMX).text.count('"href"')
        with db.transaction() as session:
            run = runs.get_run(session, "demo")
            finish_evaluation(session, make_checkpoint(session, run, 2000), suites.get_task(session, "zh_bits"), 1.1)
            session.info.pop("deferred_jobs", None)
        fragment = seeded.get("/runs/demo/charts/zh_bits", headers=HTMX).text
        assert fragment.count('"href"') == count + 1
        assert "is-update" in fragment
        assert "<!doctype" not in fragment

    def test_a_chart_waits_for_its_own_task(self, seeded: TestClient) -> None:
        assert 'data-live="evaluation:demo:zh_bits"' in seeded.get("/runs/demo/charts/zh_bits").text

    def test_who_opens_the_address_of_a_chart_gets_a_page_with_its_table(self, seeded: TestClient) -> None:
        page = seeded.get("/runs/demo/charts/zh_bits", headers={"accept": "text/html"}).text
        assert "<!doctype" in page
        assert 'class="chart-table"' in page
        assert 'href="/runs/demo?tasks=zh_bits"' in page

    def test_an_unknown_task_names_the_tasks(self, seeded: TestClient) -> None:
        answer = seeded.get("/runs/demo/charts/nope")
        assert answer.status_code == 404
        assert "zh_next_line" in answer.text

    def test_a_probe_has_no_curve(self, seeded: TestClient) -> None:
        assert seeded.get("/runs/demo/charts/probes").status_code == 404

    def test_the_list_of_checkpoints_is_a_fragment_for_htmx_and_a_page_for_others(self, seeded: TestClient) -> None:
        assert 'id="checkpoints"' in seeded.get("/runs/demo/checkpoints", headers={"hx-request": "true"}).text
        fragment = seeded.get("/runs/demo/checkpoints", headers={"hx-request": "true"}).text
        assert "<!doctype" not in fragment
        assert "<!doctype" in seeded.get("/runs/demo/checkpoints").text


def test_the_list_has_runs_and_uploads_apart(seeded: TestClient) -> None:
    page = seeded.get("/runs").text
    assert page.index("/runs/demo") < page.index("Uploaded models") < page.index("/runs/uploads")
