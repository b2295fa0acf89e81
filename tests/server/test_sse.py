"""Event streams over a real broker and a real connection."""

from pathlib import Path

import httpx
import pytest
from prometheus_client import REGISTRY

from registry import events
from server import sse
from tests.server.live import serve


def read_until(address: str, wanted: str, last_id: str = "") -> str:
    """The stream's text up to the block that holds `wanted`."""
    headers = {"last-event-id": last_id} if last_id else {}
    received = ""
    with httpx.stream("GET", f"{address}/events/board", headers=headers, timeout=15) as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        assert "content-encoding" not in answer.headers  # compression would hold events back
        for line in answer.iter_lines():
            received += line + "\n"
            if not line and wanted in received:
                return received
    return received


def test_a_reader_who_comes_back_gets_what_was_missed(redis_url: str, database: Path) -> None:
    events.publish_board("metrics", {"run": "demo", "step": 1})
    first = events.client().xrange(events.BOARD_KEY)[0][0]
    events.publish_board("checkpoint", {"run": "demo", "step": 8, "checkpoint_id": 1, "state": "ready"})
    with serve() as address:
        received = read_until(address, "event: checkpoint", first)
    assert "event: metrics" not in received
    assert '"step": 8' in received
    assert "\nid: " in received
    assert received.startswith("retry: ")


def test_a_stream_ends_after_its_lifetime_and_is_no_longer_counted(
    redis_url: str, database: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sse, "MAX_SECONDS", 0.0)
    events.publish_board("metrics", {"run": "demo", "step": 1})
    with serve() as address:
        received = read_until(address, "never", "0-0")
    assert "event: metrics" in received
    assert REGISTRY.get_sample_value("grow_sse_connections", {"stream": "board"}) == 0


def test_a_stream_without_a_broker_just_ends(database: Path) -> None:
    with serve() as address:
        assert read_until(address, "never") == "retry: 3000\n\n"
