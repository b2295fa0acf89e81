"""Path A: a checkpoint, from the trainer to the chart — DeepSpeed, PostgreSQL, Valkey, Celery, vLLM, FastAPI."""

import contextlib
import json
import threading

import httpx
import pytest

from tests.flows.conftest import Site, wait_for

pytestmark = [pytest.mark.flow, pytest.mark.engine]

HEADLINES = {"starter_bpb_zh": "bits_per_byte", "starter_bpb_en": "bits_per_byte", "starter_bpb_code": "bits_per_byte"}


def api(site: Site, path: str) -> httpx.Response:
    """One answer of the JSON interface."""
    return httpx.get(f"{site.address}/api/v1/{path}", timeout=20)


def statuses(site: Site, checkpoint_id: int) -> list[str]:
    """Statuses of a checkpoint's evaluations."""
    return [e["status"] for e in api(site, f"checkpoints/{checkpoint_id}/evaluations").json()]


def wait_until_tested(site: Site) -> None:
    """Until no evaluation of the run is open any more."""
    listed = api(site, "runs/flow/checkpoints").json()
    wait_for(
        lambda: all(statuses(site, c["id"]) and set(statuses(site, c["id"])) <= {"finished", "failed"} for c in listed),
        400,
        f"evaluations: {site.log('worker')}",
    )


def test_every_checkpoint_is_verified_evaluated_and_drawn(trained: Site) -> None:
    # A browser's event stream is open while the scores arrive.
    seen: list[str] = []

    def watch() -> None:
        # The stream outlives the test and ends with the server.
        with (
            contextlib.suppress(httpx.TransportError),
            httpx.stream("GET", f"{trained.address}/events/board", timeout=httpx.Timeout(10, read=60)) as stream,
        ):
            for line in stream.iter_lines():
                if line.startswith("event:"):
                    seen.append(line.removeprefix("event:").strip())

    threading.Thread(target=watch, daemon=True).start()
    listed = api(trained, "runs/flow/checkpoints").json()
    assert [c["step"] for c in listed] == [0, 2, 4, 8]
    wait_for(
        lambda: all(c["state"] == "ready" for c in api(trained, "runs/flow/checkpoints").json()),
        60,
        f"verification: {trained.log('worker')}",
    )
    wait_until_tested(trained)
    for checkpoint in listed:
        assert set(statuses(trained, checkpoint["id"])) == {"finished"}, trained.log("worker")
    for task, metric in HEADLINES.items():
        series = api(trained, f"runs/flow/series?task={task}&metric={metric}&x=tokens").json()
        points = series["points"]
        assert [p["step"] for p in points] == [0, 2, 4, 8]
        assert all(p["low"] < p["value"] < p["high"] and p["stderr"] > 0 for p in points)
        assert points[-1]["value"] < points[0]["value"], "eight steps already teach it something"
    assert "evaluation" in seen
    page = httpx.get(f"{trained.address}/runs/flow", timeout=20)
    assert page.status_code == 200


def test_every_step_of_a_curve_has_its_verdict(trained: Site) -> None:
    wait_until_tested(trained)

    def verdicts() -> list[str]:
        points = api(trained, "runs/flow/series?task=starter_bpb_en&x=step").json()["points"]
        return [point["verdict"] for point in points]

    wait_for(lambda: all(verdicts()[1:]), 60, "the comparisons")
    assert verdicts()[0] == ""
    assert set(verdicts()[1:]) <= {"gain", "loss", "within noise"}
    assert "gain" in verdicts(), "eight steps already teach it something"


def test_each_checkpoint_has_its_fingerprint_and_no_warning(trained: Site) -> None:
    wait_until_tested(trained)
    listed = api(trained, "runs/flow/checkpoints").json()
    assert all(next(iter(checkpoint["fingerprint"].values())) for checkpoint in listed)
    assert [checkpoint["warnings"] for checkpoint in listed] == [[]] * len(listed)


def test_the_protocol_says_which_engine_scored(trained: Site) -> None:
    wait_until_tested(trained)
    [first, *_] = api(trained, "runs/flow/checkpoints").json()
    protocols = [e["protocol"] for e in api(trained, f"checkpoints/{first['id']}/evaluations").json()]
    assert {p["engine"] for p in protocols} <= {"vllm", "transformers"}
    assert all(p["template"] and p["items"] and p["tokenizer"] and p["revision"] is not None for p in protocols)


def test_training_scalars_are_on_the_site(trained: Site) -> None:
    points = api(trained, "runs/flow/metrics?key=train/loss").json()["points"]
    assert [p["step"] for p in points] == list(range(1, 9))


@pytest.mark.parametrize(
    "path",
    [
        "runs/nope/checkpoints",
        "runs/flow/series?task=nope",
        "runs/flow/series?task=starter_bpb_zh&metric=nope",
        "checkpoints/999999/evaluations",
    ],
)
def test_unknown_names_are_404_with_the_names_that_exist(trained: Site, path: str) -> None:
    answer = api(trained, path)
    assert answer.status_code == 404
    assert any(
        known in json.dumps(answer.json()) for known in ("flow", "chinese_author", "bits_per_byte", "/api/v1/runs")
    )
