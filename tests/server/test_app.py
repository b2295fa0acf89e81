"""The application: errors as pages or JSON, headers, assets, and that it needs no model library."""

import os
import subprocess
import sys

from fastapi.testclient import TestClient

from registry.errors import Conflict, Invalid, Refused
from server.app import create_app


class TestErrors:
    def test_an_unknown_address_is_a_page_for_a_browser(self, client: TestClient) -> None:
        answer = client.get("/no/such/page")
        assert answer.status_code == 404
        assert "There is nothing here" in answer.text
        assert "<!doctype html>" in answer.text

    def test_an_unknown_run_names_the_runs_that_exist(self, seeded: TestClient) -> None:
        answer = seeded.get("/runs/nope")
        assert answer.status_code == 404
        assert "demo" in answer.text

    def test_the_api_answers_in_json_even_to_a_browser(self, seeded: TestClient) -> None:
        answer = seeded.get("/api/v1/runs/nope")
        assert answer.status_code == 404
        assert "demo" in answer.json()["detail"]

    def test_a_parameter_of_the_wrong_form_is_named(self, seeded: TestClient) -> None:
        answer = seeded.get("/api/v1/runs/demo/series", params={"task": "zh_bits", "x": "moons"})
        assert answer.status_code == 422
        assert answer.json()["detail"].startswith("x: ")

    def test_each_refusal_of_a_verb_has_its_status(self, database: object) -> None:
        app = create_app()

        def refuse(kind: str) -> None:
            raise {"conflict": Conflict, "invalid": Invalid, "refused": Refused}[kind]("Because.")

        app.get("/api/refuse/{kind}")(refuse)
        client = TestClient(app)
        statuses = {kind: client.get(f"/api/refuse/{kind}").status_code for kind in ("conflict", "invalid", "refused")}
        assert statuses == {"conflict": 409, "invalid": 422, "refused": 403}

    def test_a_crash_shows_no_trace_and_keeps_the_headers(self, database: object) -> None:
        app = create_app()

        def crash() -> None:
            raise RuntimeError("secret detail")

        app.get("/crash")(crash)
        answer = TestClient(app, raise_server_exceptions=False, headers={"accept": "text/html"}).get("/crash")
        assert answer.status_code == 500
        assert "Something broke on our side" in answer.text
        assert "secret detail" not in answer.text
        assert "default-src 'self'" in answer.headers["content-security-policy"]


class TestHeaders:
    def test_pages_may_load_and_run_only_what_is_ours(self, client: TestClient) -> None:
        policy = client.get("/").headers["content-security-policy"]
        assert "default-src 'self'" in policy
        assert "unsafe-eval" not in policy
        assert "script-src" not in policy  # falls back to 'self': no inline script runs

    def test_an_asset_with_its_fingerprint_may_be_kept_for_ever(self, client: TestClient) -> None:
        page = client.get("/").text
        address = page.split('href="/static/css/site.css?v=')[1].split('"')[0]
        answer = client.get(f"/static/css/site.css?v={address}")
        assert "immutable" in answer.headers["cache-control"]


def test_the_server_starts_without_a_model_library() -> None:
    code = (
        "import sys, server.app; server.app.create_app();"
        "print([m for m in ('torch', 'transformers', 'vllm', 'deepspeed') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_linear_algebra_beside_requests_keeps_to_one_thread() -> None:
    """A rating of 120 checkpoints took twenty times as long on two busy cores."""
    free = {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"}
    for asked, expected in ((None, "1"), ("2", "2")):
        environment = free if asked is None else {**free, "OMP_NUM_THREADS": asked}
        code = "import os, server; print(os.environ['OMP_NUM_THREADS'])"
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
        assert done.stdout.strip() == expected
