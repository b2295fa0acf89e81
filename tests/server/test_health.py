"""Probes: alive, ready, and the numbers for Prometheus."""

from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from registry import events
from registry.settings import get_settings
from server import pulse


def test_the_process_is_alive_whatever_is_away(client: TestClient) -> None:
    assert client.get("/healthz").json() == {"status": "ok"}


class TestReady:
    def test_all_parts_answer(self, redis_url: str, client: TestClient) -> None:
        events.worker_beat("gpu@here", "waiting")
        answer = client.get("/readyz")
        assert answer.status_code == 200
        assert answer.json()["parts"] == {"database": "ok", "broker": "ok"}
        assert answer.json()["workers"] == {"gpu@here": "waiting"}

    def test_the_broker_is_away(self, client: TestClient) -> None:
        answer = client.get("/readyz")
        assert answer.status_code == 503
        assert answer.json()["parts"] == {"database": "ok", "broker": "down"}

    def test_the_database_is_away(
        self, redis_url: str, client: TestClient, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        monkeypatch.setenv("GROW_DATABASE_URL", f"sqlite:///{tmp_path / 'no' / 'such' / 'folder.db'}")
        get_settings.cache_clear()
        assert client.get("/readyz").json()["parts"] == {"database": "down", "broker": "ok"}


class TestBanner:
    def test_a_site_without_a_worker_says_so(self, redis_url: str, client: TestClient) -> None:
        assert "No worker is running now" in client.get("/").text

    def test_a_site_with_everything_there_says_nothing(self, redis_url: str, client: TestClient) -> None:
        events.worker_beat("gpu@here", "waiting")
        pulse.forget()
        assert 'class="banner' not in client.get("/").text


def test_metrics_count_requests_lines_and_checkpoints(seeded: TestClient) -> None:
    seeded.get("/runs/demo")
    text = seeded.get("/metrics").text
    assert 'grow_http_requests_total{method="GET",route="/runs/{run}",status="200"}' in text
    assert 'grow_tickets{lane="evaluation",status="queued"} ' in text
    assert 'grow_checkpoints{state="ready"} 13.0' in text
    assert "grow_sse_connections" in text
