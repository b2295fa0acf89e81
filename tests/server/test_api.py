"""The JSON API."""

import pytest
from fastapi.testclient import TestClient


def test_runs(seeded: TestClient) -> None:
    assert {run["name"] for run in seeded.get("/api/v1/runs").json()} == {"demo", "uploads"}


def test_one_run_names_its_tasks_and_metrics(seeded: TestClient) -> None:
    run = seeded.get("/api/v1/runs/demo").json()
    assert "zh_bits" in run["tasks"]
    assert "probes" not in run["tasks"]
    assert "train/loss" in run["metrics"]


def test_checkpoints_of_a_run_in_any_state(seeded: TestClient) -> None:
    found = seeded.get("/api/v1/runs/demo/checkpoints").json()
    assert [c["step"] for c in found[:3]] == [0, 16, 32]
    rejected = seeded.get("/api/v1/runs/uploads/checkpoints", params={"state": "rejected"}).json()
    assert "NaN" in rejected[0]["reason"]


class TestSeries:
    @pytest.mark.parametrize(
        ("x", "last"), [("tokens", 1750 * 4096), ("step", 1750), ("flops", 6.0 * 7_340_032 * 1750 * 4096)]
    )
    def test_the_axis_gives_the_unit_of_x(self, seeded: TestClient, x: str, last: float) -> None:
        series = seeded.get("/api/v1/runs/demo/series", params={"task": "zh_bits", "x": x}).json()
        assert series["points"][-1]["x"] == last
        assert series["higher_is_better"] is False

    def test_time_runs_from_the_beginning_of_the_run(self, seeded: TestClient) -> None:
        series = seeded.get("/api/v1/runs/demo/series", params={"task": "zh_bits", "x": "time"}).json()
        times = [point["x"] for point in series["points"]]
        assert times == sorted(times)
        assert 2300 < times[-1] < 2500

    def test_every_point_has_its_interval(self, seeded: TestClient) -> None:
        points = seeded.get("/api/v1/runs/demo/series", params={"task": "zh_next_line"}).json()["points"]
        assert all(point["low"] < point["value"] < point["high"] for point in points)

    @pytest.mark.parametrize(
        ("params", "named"),
        [
            ({"task": "nope"}, "zh_bits"),
            ({"task": "zh_bits", "metric": "nope"}, "bits_per_byte"),
            ({"task": "probes"}, "zh_bits"),
        ],
    )
    def test_an_unknown_name_lists_the_names_that_exist(
        self, seeded: TestClient, params: dict[str, str], named: str
    ) -> None:
        answer = seeded.get("/api/v1/runs/demo/series", params=params)
        assert answer.status_code == 404
        assert named in answer.json()["detail"]


class TestMetrics:
    def test_a_scalar(self, seeded: TestClient) -> None:
        points = seeded.get("/api/v1/runs/demo/metrics", params={"key": "train/loss"}).json()["points"]
        assert points[0]["step"] == 1
        assert points[0]["tokens_seen"] == 4096

    def test_an_unknown_scalar_lists_those_that_exist(self, seeded: TestClient) -> None:
        answer = seeded.get("/api/v1/runs/demo/metrics", params={"key": "loss"})
        assert answer.status_code == 404
        assert "train/loss" in answer.json()["detail"]


class TestEvaluations:
    def test_results_with_protocol(self, seeded: TestClient) -> None:
        found = seeded.get("/api/v1/checkpoints/1/evaluations").json()
        bits = next(evaluation for evaluation in found if evaluation["task"] == "zh_bits")
        assert bits["protocol"]["engine"] == "vllm 0.32.0"
        assert bits["results"][0]["metric"] == "bits_per_byte"

    def test_an_unknown_checkpoint(self, seeded: TestClient) -> None:
        assert seeded.get("/api/v1/checkpoints/999/evaluations").status_code == 404


def test_the_description_has_the_addresses_and_their_models(client: TestClient) -> None:
    described = client.get("/openapi.json").json()
    assert "/api/v1/runs/{run}/series" in described["paths"]
    assert "SeriesOut" in described["components"]["schemas"]
    assert "/runs/{run}" not in described["paths"]
