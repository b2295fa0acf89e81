"""The growth page of a run and its data: shell, columns, CSV, microscope, frame."""

import csv
import io
import json
from typing import Any

import pytest
from fastapi.testclient import TestClient

from registry import columns, db, runs, suites
from registry.models import Result
from tests.factories import finish_evaluation, make_checkpoint

LEAP = (0.25, 0.25, 0.25, 0.25, 0.9, 0.9)
RAMP = (0.2, 0.3, 0.4, 0.5, 0.6, 0.7)


def series_of(client: TestClient, task: str, **asked: str) -> Any:
    """One series of the demo run."""
    answer = client.get("/api/v1/runs/demo/growth", params={"tasks": task, **asked})
    assert answer.status_code == 200, answer.text
    [found] = answer.json()["series"]
    return found


class TestPage:
    def test_cards_stand_by_ability(self, seeded: TestClient) -> None:
        page = seeded.get("/runs/demo").text
        places = [page.index(f'data-group="{name}"') for name in ("chinese", "english", "code", "maths")]
        assert places == sorted(places)
        assert page.index('data-card="zh_pairs"') < page.index("milestones only") < page.index('data-card="zh_idiom"')

    def test_each_card_has_a_table_a_way_to_its_items_and_a_large_chart(self, seeded: TestClient) -> None:
        card = seeded.get("/runs/demo").text.split('data-card="zh_bits"')[1].split("</figure>")[0]
        assert 'class="chart-table"' in card
        assert 'href="/runs/demo/tasks/zh_bits"' in card
        assert 'data-task="zh_bits" aria-label="Enlarge Bits per byte, Chinese statutes"' in card

    def test_a_card_hears_of_its_own_results(self, seeded: TestClient) -> None:
        assert 'data-live="evaluation:demo:zh_bits"' in seeded.get("/runs/demo").text

    def test_other_runs_and_the_chat_model_can_be_laid_over(self, seeded: TestClient) -> None:
        page = seeded.get("/runs/demo").text
        assert 'name="runs" value="elsewhere"' in page
        assert 'name="variants" value="chat-16"' in page

    def test_without_a_script_the_data_and_tables_are_linked(self, seeded: TestClient) -> None:
        page = seeded.get("/runs/demo").text
        assert 'href="/api/v1/runs/demo/growth.csv"' in page.split("<noscript>")[1].split("</noscript>")[0]
        assert 'href="/runs/demo/charts/zh_bits"' in page

    def test_the_number_of_questions_to_the_database_does_not_grow(
        self, seeded: TestClient, queries: list[str]
    ) -> None:
        seeded.get("/runs/demo")  # settings are read, and kept for a while
        queries.clear()
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
        assert len(queries) == before <= 16


class TestData:
    def test_columns_of_a_line_are_of_one_length(self, seeded: TestClient) -> None:
        line = series_of(seeded, "zh_bits")["lines"][-1]
        names = ("x", "step", "tokens", "value", "low", "high", "n", "verdict", "evaluation")
        assert {len(line[name]) for name in names} == {12}

    def test_a_series_says_what_it_measures(self, seeded: TestClient) -> None:
        found = series_of(seeded, "zh_pairs")
        told = (found["title"], found["metric"], found["percent"], found["higher_is_better"], found["chance"])
        assert told == ("Swapped words, Chinese", "acc", True, True, 0.5)

    def test_lines_say_what_their_protocols_differ_in(self, seeded: TestClient) -> None:
        earlier, latest = series_of(seeded, "zh_pairs")["lines"]
        assert earlier["differs"] == "engine version 0.31.0, now 0.32.0; number format float32, now bfloat16"
        assert latest["differs"] == ""

    def test_a_failed_evaluation_is_told_and_is_no_point(self, seeded: TestClient) -> None:
        found = series_of(seeded, "en_pairs", x="step")
        assert [failure["step"] for failure in found["failures"]] == [500]
        assert 500 not in found["lines"][-1]["step"]

    def test_verdicts_are_words(self, seeded: TestClient) -> None:
        assert "gain" in series_of(seeded, "zh_bits")["lines"][-1]["verdict"]

    def test_posts_and_warned_steps_come_along(self, seeded: TestClient) -> None:
        found = seeded.get("/api/v1/runs/demo/growth", params={"tasks": "zh_bits", "x": "step"}).json()
        assert [(post["title"], post["x"]) for post in found["posts"]] == [("It has learned to open a statute", 1500.0)]
        assert found["warned_steps"] == [16, 32, 750, 1250]

    def test_every_task_comes_where_none_is_named(self, seeded: TestClient) -> None:
        assert len(seeded.get("/api/v1/runs/demo/growth").json()["series"]) == 12

    def test_a_probability_has_the_same_chance_as_its_accuracy_and_bits_have_none(self, seeded: TestClient) -> None:
        assert series_of(seeded, "zh_pairs", metric="prob")["chance"] == 0.5
        assert series_of(seeded, "zh_pairs", metric="bits_per_byte")["chance"] is None
        assert series_of(seeded, "zh_pairs", metric="brier_score")["higher_is_better"] is False

    def test_it_speaks_the_readers_language(self, seeded: TestClient) -> None:
        answer = seeded.get(
            "/api/v1/runs/demo/growth", params={"tasks": "zh_bits"}, headers={"accept-language": "zh-CN"}
        )
        assert answer.json()["series"][0]["title"] == "中文法条每字节比特"

    @pytest.mark.parametrize(
        ("asked", "status", "said"),
        [
            ({"tasks": "nope"}, 404, "zh_next_line"),
            ({"x": "moons"}, 422, "tokens"),
            ({"precision": "3"}, 422, "16"),
            ({"tasks": ",".join(f"t{n}" for n in range(101))}, 422, "At most 100 tasks"),
        ],
    )
    def test_what_it_does_not_take_it_says(
        self, seeded: TestClient, asked: dict[str, str], status: int, said: str
    ) -> None:
        answer = seeded.get("/api/v1/runs/demo/growth", params=asked)
        assert answer.status_code == status
        assert said in answer.text

    def test_ten_tasks_are_as_many_questions_as_one(self, seeded: TestClient, queries: list[str]) -> None:
        seeded.get("/api/v1/runs/demo/growth", params={"tasks": "zh_bits"})  # settings are read, and kept for a while
        queries.clear()
        seeded.get("/api/v1/runs/demo/growth", params={"tasks": "zh_bits"})
        one = len(queries)
        queries.clear()
        seeded.get("/api/v1/runs/demo/growth")
        assert len(queries) == one <= 10


class TestCsv:
    def rows(self, client: TestClient, **asked: str) -> list[dict[str, str]]:
        answer = client.get("/api/v1/runs/demo/growth.csv", params=asked)
        assert answer.headers["content-type"] == "text/csv; charset=utf-8"
        assert answer.headers["content-disposition"] == 'attachment; filename="demo-growth.csv"'
        return list(csv.DictReader(io.StringIO(answer.text)))

    def test_a_row_is_a_point(self, seeded: TestClient) -> None:
        rows = self.rows(seeded, tasks="zh_bits", x="step")
        assert [row["step"] for row in rows][:3] == ["0", "16", "32"]
        assert float(rows[0]["low_95"]) < float(rows[0]["value"]) < float(rows[0]["high_95"])
        assert rows[0]["x"] == "0.0"

    def test_a_failure_has_no_value(self, seeded: TestClient) -> None:
        [failed] = [row for row in self.rows(seeded, tasks="en_pairs") if row["verdict"] == "failed"]
        assert (failed["step"], failed["value"]) == ("500", "")


class TestMicroscope:
    def test_it_says_when_only_one_metric_is_kept(self, seeded: TestClient) -> None:
        assert "nothing to compare" in seeded.get("/runs/demo/microscope/zh_bits").text

    def test_metrics_of_different_answers_are_not_compared(self, seeded: TestClient) -> None:
        with db.transaction() as session:
            checkpoint = make_checkpoint(session, runs.get_run(session, "demo"), 3000)
            checkpoint.is_milestone = True
            finish_evaluation(
                session, checkpoint, suites.get_task(session, "zh_idiom"), 0.5, protocol={"engine": "new"}
            )
            session.info.pop("deferred_jobs", None)
        assert seeded.get("/runs/demo/microscope/zh_idiom").status_code == 200

    def test_it_names_a_jump_that_only_the_threshold_shows(self, seeded: TestClient) -> None:
        with db.transaction() as session:
            run = runs.get_run(session, "demo")
            task = suites.get_task(session, "zh_idiom")
            for at, (score, prob) in enumerate(zip(LEAP, RAMP, strict=True)):
                checkpoint = make_checkpoint(session, run, 3000 + at)
                checkpoint.is_milestone = True
                evaluation = finish_evaluation(session, checkpoint, task, score, protocol={"engine": "microscope"})
                session.add(Result(evaluation_id=evaluation.id, metric="prob", value=prob, n=200))
                columns.write(session, checkpoint.id)
            session.info.pop("deferred_jobs", None)
        fragment = seeded.get("/runs/demo/microscope/zh_idiom").text
        assert "The jump is in the metric." in fragment
        assert 'data-lens="acc"' in fragment
        assert 'data-lens="prob"' in fragment


class TestFamily:
    def begin(self, *, is_rewind: bool) -> None:
        """A run that goes on from step 1000 of the demo, with two checkpoints of its own."""
        with db.transaction() as session:
            demo = runs.get_run(session, "demo")
            origin = runs.Origin(demo, 1000, is_rewind)
            child = runs.create_run(session, name="demo-b", tokens_per_step=4096, origin=origin)
            task = suites.get_task(session, "zh_pairs")
            for step, value in ((1100, 0.9), (1200, 0.92)):
                finish_evaluation(session, make_checkpoint(session, child, step), task, value)
            session.info.pop("deferred_jobs", None)

    def past(self, client: TestClient, run: str) -> Any:
        return json.loads(client.get(f"/runs/{run}").text.split('id="growth-past">')[1].split("</script>")[0])

    def test_a_run_without_relatives_has_no_past(self, seeded: TestClient) -> None:
        assert self.past(seeded, "demo") == {"superseded_after": None, "ancestors": []}

    def test_a_branch_begins_with_its_parent(self, seeded: TestClient) -> None:
        self.begin(is_rewind=False)
        assert self.past(seeded, "demo-b")["ancestors"] == [{"run": "demo", "until": 1000}]
        assert self.past(seeded, "demo")["superseded_after"] is None

    def test_a_rewind_supersedes_what_its_parent_did_later(self, seeded: TestClient) -> None:
        self.begin(is_rewind=True)
        assert self.past(seeded, "demo")["superseded_after"] == 1000


class TestEmbed:
    def test_other_sites_may_frame_it_and_nothing_else(self, seeded: TestClient) -> None:
        embedded, page = seeded.get("/embed/runs/demo?tasks=zh_bits"), seeded.get("/runs/demo")
        assert "frame-ancestors *" in embedded.headers["content-security-policy"]
        assert "x-frame-options" not in embedded.headers
        assert page.headers["x-frame-options"] == "DENY"
        assert "frame-ancestors 'none'" in page.headers["content-security-policy"]
        assert seeded.get("/embed/runs/nothing").headers["x-frame-options"] == "DENY"

    def test_it_leads_to_the_whole_page_and_holds_no_form(self, seeded: TestClient) -> None:
        text = seeded.get("/embed/runs/demo?tasks=zh_bits&x=step").text
        assert 'href="/runs/demo?tasks=zh_bits&amp;x=step"' in text
        assert "<form" not in text


@pytest.mark.parametrize("run", ["uploads", "elsewhere"])
def test_runs_without_training_have_a_page_and_data(seeded: TestClient, run: str) -> None:
    assert seeded.get(f"/runs/{run}").status_code == 200
    assert seeded.get(f"/api/v1/runs/{run}/growth").status_code == 200
    assert seeded.get(f"/embed/runs/{run}").status_code == 200
