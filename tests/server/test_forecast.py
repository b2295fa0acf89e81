"""The forecast page: where curves go, said in words and numbers, and what became of earlier forecasts."""

import json
from typing import Any

import pytest
from fastapi.testclient import TestClient

from registry import db, forecasts, runs, suites
from registry.models import Forecast
from server import forecast
from tests.factories import finish_evaluation, make_checkpoint, make_run, make_task
from tests.server.foretold import replay


def make_foretold() -> None:
    with db.transaction() as session:
        replay(session)


def add_forecasts(due: int, inside: int, horizon: str = "next") -> None:
    """So many forecasts of the run that came due, with so many inside."""
    with db.transaction() as session:
        run = runs.get_run(session, "demo")
        for number in range(due):
            row = Forecast(run_id=run.id, task="zh_bits", metric="bits_per_byte", protocol_key="k", horizon=horizon)
            row.made_step, row.made_tokens, row.target_step, row.target_tokens = number, number, 2000, 8_192_000
            row.value, row.low, row.high, row.method = 1.5, 1.4, 1.6, "power law"
            row.outcome, row.outcome_step = 1.5 if number < inside else 1.9, 2000
            session.add(row)


def data_of(page: str, key: str) -> Any:
    """The data of a curve's chart."""
    figure = page.split(f'id="forecast-{key}"')[1]
    return json.loads(figure.split('<script type="application/json">')[1].split("</script>")[0])


class TestPage:
    def test_each_curve_goes_to_the_end_of_the_run(self, seeded: TestClient) -> None:
        page = seeded.get("/runs/demo/forecast").text
        assert "at step 6,000 (24.6M tokens)" in page
        chart = data_of(page, "zh_bits")
        assert chart["band"][-1][0] == pytest.approx(6000 * 4096)
        assert all(low <= value <= high for _, value, low, high in chart["band"])
        assert len(chart["points"]) == 11

    def test_it_says_in_words_how_it_was_made(self, seeded: TestClient) -> None:
        page = seeded.get("/runs/demo/forecast").text
        assert "Fitted to 8 points: a power law that levels off." in page
        assert "90% interval" in page
        assert "If the learning rate or the data change" in page

    def test_losses_come_before_tasks(self, seeded: TestClient) -> None:
        page = seeded.get("/runs/demo/forecast").text
        assert (
            page.index("forecast-heldout-loss_zh") < page.index("forecast-train-loss") < page.index("forecast-zh_bits")
        )

    def test_every_chart_has_a_table(self, seeded: TestClient) -> None:
        page = seeded.get("/runs/demo/forecast").text
        assert page.count("data-forecast ") == page.count('class="chart-table"') == 13

    def test_curves_with_few_points_wait(self, seeded: TestClient) -> None:
        waiting = seeded.get("/runs/demo/forecast").text.split("Too few points yet:")[1].split("</p>")[0]
        assert '<a href="/runs/demo/tasks/sums">Sums of two numbers</a> (2)' in waiting

    def test_one_ability_alone(self, seeded: TestClient) -> None:
        page = seeded.get("/runs/demo/forecast?show=code&scale=linear").text
        assert "forecast-code_bits" in page
        assert "forecast-zh_bits" not in page
        assert 'data-scale="linear"' in page
        assert 'href="?scale=log&amp;show=code"' in page

    def test_of_many_curves_one_kind_is_shown_until_all_are_asked_for(
        self, seeded: TestClient, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(forecast, "MANY", 5)
        page = seeded.get("/runs/demo/forecast").text
        assert page.count("data-forecast ") == 4
        assert "forecast-train-loss" in page
        assert seeded.get("/runs/demo/forecast?show=all").text.count("data-forecast ") == 13

    def test_a_run_without_a_planned_end_is_shown_at_twice_its_tokens(self, seeded: TestClient) -> None:
        with db.transaction() as session:
            runs.get_run(session, "demo").max_steps = None
        assert "after twice the tokens" in seeded.get("/runs/demo/forecast").text

    @pytest.mark.parametrize("kind", ["wsd", "cosine"])
    def test_the_way_down_of_the_learning_rate_is_told(self, seeded: TestClient, kind: str) -> None:
        with db.transaction() as session:
            runs.get_run(session, "demo").config = {"schedule": {"kind": kind}}
        page = seeded.get("/runs/demo/forecast").text
        assert ("stays level and falls near the end" in page) is (kind == "wsd")
        assert ("(cosine)" in page) is (kind == "cosine")

    def test_a_hostile_configuration_breaks_nothing(self, seeded: TestClient) -> None:
        with db.transaction() as session:
            runs.get_run(session, "demo").config = {"schedule": ["wsd"]}
        assert seeded.get("/runs/demo/forecast").status_code == 200

    def test_too_far_ahead_is_refused_in_a_sentence(self, seeded: TestClient) -> None:
        with db.transaction() as session:
            runs.get_run(session, "demo").max_steps = 1_000_000
        page = seeded.get("/runs/demo/forecast").text
        assert page.count("more than 32 times as far") > 5

    def test_it_is_whole_in_chinese(self, seeded: TestClient) -> None:
        make_foretold()
        page = seeded.get("/runs/demo/forecast", headers={"accept-language": "zh"}).text
        assert "逐渐趋平的幂律" in page
        assert "错得最多的预测" in page


class TestEmpty:
    @pytest.mark.parametrize("number", [0, 1, 4])
    def test_a_run_with_few_points_says_what_is_missing(self, client: TestClient, number: int) -> None:
        with db.transaction() as session:
            run, task = make_run(session, "young"), make_task(session)
            for step in range(100, 100 * number + 1, 100):
                finish_evaluation(session, make_checkpoint(session, run, step), task, 0.3)
            session.info.pop("deferred_jobs", None)
        page = client.get("/runs/young/forecast").text
        assert ("Nothing has been measured yet" in page) is (number == 0)
        assert ("A curve needs five points" in page) is (number > 0)
        assert "No forecast has been written down yet" in page

    def test_an_unknown_run_is_no_page(self, client: TestClient) -> None:
        assert client.get("/runs/nope/forecast").status_code == 404

    @pytest.mark.parametrize("query", ["scale=cubic", "show=" + "x" * 40])
    def test_what_nobody_offered_is_refused(self, seeded: TestClient, query: str) -> None:
        assert seeded.get(f"/runs/demo/forecast?{query}").status_code == 422


class TestRecord:
    def test_coverage_is_told_in_a_sentence_and_by_horizon(self, seeded: TestClient) -> None:
        add_forecasts(143, 131)
        page = seeded.get("/runs/demo/forecast").text
        assert "Of 143 forecasts that came due, 131 (92%, 95% interval 86–95%) fell in the 90% band." in page
        row = page.split('<th scope="row">the next checkpoint</th>')[1].split("</tr>")[0]
        assert ">143<" in row

    def test_the_worst_misses_are_listed(self, seeded: TestClient) -> None:
        add_forecasts(3, 2)
        misses = seeded.get("/runs/demo/forecast").text.split("The worst misses")[1]
        assert "1.500 (1.400 – 1.600)" in misses
        assert '<a href="/runs/demo/checkpoints/2000">1.900</a>' in misses

    def test_earlier_forecasts_are_drawn_where_they_aimed(self, seeded: TestClient) -> None:
        make_foretold()
        marks = data_of(seeded.get("/runs/demo/forecast").text, "zh_bits")["marks"]
        assert {mark["x"] for mark in marks} >= {6000.0 * 4096}
        assert all(mark["text"].startswith("foretold at") for mark in marks)

    def test_what_waits_is_counted(self, seeded: TestClient) -> None:
        make_foretold()
        assert "more wait for their time" in seeded.get("/runs/demo/forecast").text


class TestApi:
    def test_curves_and_record_are_there(self, seeded: TestClient) -> None:
        make_foretold()
        found = seeded.get("/api/v1/runs/demo/forecasts?limit=7").json()
        assert (found["target_step"], found["is_end"]) == (6000, True)
        curve = next(one for one in found["curves"] if one["task"] == "zh_bits")
        assert (curve["method"], curve["num_points"], curve["refusal"]) == ("power law", 8, "")
        assert set(curve["curve"][0]) == {"tokens", "value", "low", "high"}
        assert len(found["made"]) == 7
        assert {row["horizon"] for row in found["coverage"]} <= set(forecasts.HORIZONS)

    def test_a_run_without_points_answers_too(self, seeded: TestClient) -> None:
        found = seeded.get("/api/v1/runs/uploads/forecasts").json()
        assert (found["target_step"], found["curves"], found["made"]) == (None, [], [])

    def test_an_unknown_run_is_told_with_the_known_ones(self, seeded: TestClient) -> None:
        answer = seeded.get("/api/v1/runs/nope/forecasts")
        assert answer.status_code == 404
        assert "demo" in answer.json()["detail"]


@pytest.mark.parametrize("address", ["/runs/demo/forecast", "/api/v1/runs/demo/forecasts"])
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
    assert len(queries) == before <= 16


def test_the_same_points_are_fitted_once(seeded: TestClient) -> None:
    seeded.get("/runs/demo/forecast")
    misses = forecast._fitted.cache_info().misses
    seeded.get("/runs/demo/forecast?scale=linear")
    assert forecast._fitted.cache_info().misses == misses
