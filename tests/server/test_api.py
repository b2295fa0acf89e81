"""The JSON API."""

import math
from typing import Any

import pytest
from fastapi.testclient import TestClient

from registry import samples
from registry.settings import get_settings


def test_runs(seeded: TestClient) -> None:
    assert {run["name"] for run in seeded.get("/api/v1/runs").json()} == {"demo", "uploads", "elsewhere"}


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
    assert len(seeded.get("/api/v1/runs/elsewhere/checkpoints", params={"state": "external"}).json()) == 3


def test_a_checkpoint_has_its_warnings_its_fingerprint_and_whether_it_is_a_milestone(seeded: TestClient) -> None:
    by_step = {c["step"]: c for c in seeded.get("/api/v1/runs/demo/checkpoints").json() if c["kind"] == "pretrained"}
    assert by_step[16]["warnings"] == [{"kind": "same_weights", "step": 32}]
    assert by_step[750]["warnings"] == [{"kind": "twin", "step": 1250, "distance": 0.0003}]
    assert by_step[1000]["fingerprint"] == {"vllm/bfloat16": [-31.25, -18.5]}
    assert [step for step, c in by_step.items() if c["is_milestone"]] == [500, 1500]


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

    def test_every_point_has_its_evaluation_its_protocol_and_its_verdict(self, seeded: TestClient) -> None:
        series = seeded.get("/api/v1/runs/demo/series", params={"task": "zh_bits"}).json()
        first, second = series["points"][:2]
        assert (first["verdict"], second["verdict"], second["is_imported"]) == ("", "gain", False)
        assert seeded.get(f"/api/v1/evaluations/{second['evaluation_id']}").json()["step"] == 16
        assert list(series["protocols"]) == [second["protocol_key"]]

    def test_a_changed_protocol_is_another_line(self, seeded: TestClient) -> None:
        series = seeded.get("/api/v1/runs/demo/series", params={"task": "zh_pairs"}).json()
        versions = [protocol["engine_version"] for protocol in series["protocols"].values()]
        assert versions == ["0.31.0", "0.32.0"]
        earlier = next(iter(series["protocols"]))
        steps = [point["step"] for point in series["points"] if point["protocol_key"] == earlier]
        assert steps == [0, 16, 32, 64, 128, 250]

    def test_a_failed_evaluation_is_no_point(self, seeded: TestClient) -> None:
        points = seeded.get("/api/v1/runs/demo/series", params={"task": "en_pairs"}).json()["points"]
        assert 500 not in [point["step"] for point in points]

    def test_imported_points_say_so(self, seeded: TestClient) -> None:
        series = seeded.get("/api/v1/runs/elsewhere/series", params={"task": "zh_next_line"}).json()
        assert all(point["is_imported"] for point in series["points"])

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


def newest(client: TestClient, task: str, step: int) -> dict[str, Any]:
    """The newest evaluation of a task at a step."""
    steps = client.get("/api/v1/runs/demo/checkpoints").json()
    [checkpoint] = [c["id"] for c in steps if c["step"] == step and c["kind"] == "pretrained"]
    found = client.get(f"/api/v1/checkpoints/{checkpoint}/evaluations").json()
    return next(evaluation for evaluation in found if evaluation["task"] == task)


class TestEvaluations:
    def test_one_has_everything_that_a_list_has(self, seeded: TestClient) -> None:
        listed = newest(seeded, "zh_bits", 500)
        one = seeded.get(f"/api/v1/evaluations/{listed['id']}").json()
        assert one == listed
        assert one["protocol"]["engine_version"] == "0.32.0"
        assert len(one["protocol_key"]) == 16
        assert (one["run"], one["step"], one["num_done"], one["num_items"]) == ("demo", 500, 120, 120)
        assert [(part["start"], part["stop"]) for part in one["slices"]] == [(0, 64), (64, 120)]

    def test_the_change_against_the_checkpoint_before(self, seeded: TestClient) -> None:
        change = newest(seeded, "zh_bits", 500)["change"]
        assert (change["verdict"], change["is_paired"], change["n"]) == ("gain", True, 120)
        assert change["against_id"] == newest(seeded, "zh_bits", 250)["id"]
        assert change["low"] < change["value"] < change["high"] < 0
        assert newest(seeded, "zh_bits", 0)["change"] is None

    def test_a_failure_has_its_sentence_and_the_last_lines_of_the_log(self, seeded: TestClient) -> None:
        failed = newest(seeded, "en_pairs", 500)
        assert failed["status"] == "failed"
        assert failed["error"].startswith("The engine went down")
        assert "out of memory" in failed["log"]
        assert failed["results"] == []

    def test_items_longer_than_the_context(self, seeded: TestClient) -> None:
        assert newest(seeded, "code_next_line", 500)["num_truncated"] == 3

    @pytest.mark.parametrize(
        "address", ["checkpoints/999/evaluations", "evaluations/99999", "evaluations/99999/samples"]
    )
    def test_unknown_ones(self, seeded: TestClient, address: str) -> None:
        answer = seeded.get(f"/api/v1/{address}")
        assert answer.status_code == 404
        assert answer.json()["status"] == 404


class TestSamples:
    def test_rows_have_the_item_and_the_answer(self, seeded: TestClient) -> None:
        one = newest(seeded, "zh_next_line", 500)
        found = seeded.get(f"/api/v1/evaluations/{one['id']}/samples", params={"offset": 60, "limit": 10}).json()
        assert (found["num_items"], found["offset"], len(found["samples"])) == (120, 60, 10)
        row = found["samples"][0]
        assert (row["position"], len(row["sum_logprob"]), len(row["choices"])) == (60, 4, 4)
        assert row["prompt"].startswith("61. ")
        best = row["sum_logprob"].index(max(row["sum_logprob"]))
        assert row["is_right"] is (best == row["target"])

    def test_beyond_the_last_there_is_none(self, seeded: TestClient) -> None:
        one = newest(seeded, "zh_next_line", 500)
        assert seeded.get(f"/api/v1/evaluations/{one['id']}/samples", params={"offset": 500}).json()["samples"] == []

    @pytest.mark.parametrize("params", [{"limit": 0}, {"limit": 501}, {"offset": -1}, {"offset": "x"}])
    def test_limits_are_kept(self, seeded: TestClient, params: dict[str, Any]) -> None:
        one = newest(seeded, "zh_next_line", 500)
        assert seeded.get(f"/api/v1/evaluations/{one['id']}/samples", params=params).status_code == 422

    def test_what_is_not_finished_has_none_yet(self, seeded: TestClient) -> None:
        one = newest(seeded, "en_next_line", 1750)
        answer = seeded.get(f"/api/v1/evaluations/{one['id']}/samples")
        assert answer.status_code == 409
        assert "once it is finished" in answer.json()["detail"]

    def test_imported_results_may_have_none(self, seeded: TestClient) -> None:
        points = seeded.get("/api/v1/runs/elsewhere/series", params={"task": "zh_next_line"}).json()["points"]
        answer = seeded.get(f"/api/v1/evaluations/{points[0]['evaluation_id']}/samples")
        assert answer.status_code == 404
        assert "were not imported" in answer.json()["detail"]

    def test_broken_files_are_told_in_a_sentence(self, seeded: TestClient) -> None:
        one = newest(seeded, "zh_next_line", 500)
        (get_settings().samples_dir / one["slices"][0]["file"]).write_bytes(b"an older format")
        answer = seeded.get(f"/api/v1/evaluations/{one['id']}/samples")
        assert answer.status_code == 422
        assert "is no sample file" in answer.json()["detail"]

    def test_a_likelihood_of_zero_is_valid_json(self, seeded: TestClient) -> None:
        one = newest(seeded, "zh_next_line", 500)
        root = get_settings().samples_dir
        first = root / one["slices"][0]["file"]
        rows = samples.read_slice(first)
        broken = [rows[0]._replace(sum_logprob=[-math.inf, -1.0, -2.0, -3.0]), *rows[1:]]
        first.write_bytes(samples.write_slice(root / "spare", 0, broken).read_bytes())
        found = seeded.get(f"/api/v1/evaluations/{one['id']}/samples").json()
        assert found["samples"][0]["sum_logprob"] == [None, -1.0, -2.0, -3.0]


def test_the_description_has_the_addresses_and_their_models(client: TestClient) -> None:
    described = client.get("/openapi.json").json()
    assert "/api/v1/runs/{run}/series" in described["paths"]
    assert "SeriesOut" in described["components"]["schemas"]
    assert "/runs/{run}" not in described["paths"]
