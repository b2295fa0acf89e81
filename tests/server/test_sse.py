"""Event streams over a real broker and a real connection."""

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from prometheus_client import REGISTRY

from registry import events
from server import hub, sse
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


def test_a_stream_begins_without_a_broker(database: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub, "KEEP_ALIVE_SECONDS", 0.05)
    with serve() as address:
        assert read_until(address, "nothing new") == "retry: 3000\n\n: nothing new\n\n"


def test_one_event_reaches_a_hundred_streams_over_one_connection(redis_url: str, database: Path) -> None:
    async def follow(client: httpx.AsyncClient, opened: asyncio.Semaphore) -> str:
        async with client.stream("GET", "/events/board", timeout=15) as answer:
            async for line in answer.aiter_lines():
                opened.release()
                if line.startswith("data: "):
                    return line
        return ""

    async def watch(address: str) -> list[str]:
        opened = asyncio.Semaphore(0)
        limits = httpx.Limits(max_connections=None)
        async with httpx.AsyncClient(base_url=address, limits=limits) as client:
            streams = [asyncio.create_task(follow(client, opened)) for _ in range(100)]
            for _ in streams:
                await opened.acquire()
            readers: list[Any] = []
            while not readers:  # the hub is on its way to the broker
                await asyncio.sleep(0.05)
                readers = [one for one in events.client().client_list() if one["cmd"] in ("xread", "xrevrange")]
            assert len(readers) == 1
            assert REGISTRY.get_sample_value("grow_sse_connections", {"stream": "board"}) == 100
            await asyncio.sleep(0.2)  # the hub has looked at what there was
            events.publish_board("metrics", {"run": "demo", "step": 7})
            return await asyncio.gather(*streams)

    with serve() as address:
        assert asyncio.run(watch(address)) == ['data: {"run": "demo", "step": 7}'] * 100


def test_a_visitor_who_leaves_is_no_longer_counted(
    redis_url: str, database: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def is_empty() -> bool:
        return REGISTRY.get_sample_value("grow_sse_connections", {"stream": "board"}) == 0 and not hub._hubs

    events.publish_board("metrics", {"run": "demo", "step": 1})
    with serve() as address:
        assert "metrics" in read_until(address, "event: metrics", "0")
        deadline = time.monotonic() + 30
        while not is_empty() and time.monotonic() < deadline:
            time.sleep(0.05)
        assert is_empty()


def test_a_browser_that_no_longer_reads_is_let_go(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sse, "SLOW_SECONDS", 0.05)

    async def parts() -> AsyncIterator[bytes]:
        yield b"retry: 3000\n\n"

    tried = []

    async def send(message: object) -> None:
        tried.append(message)
        await asyncio.sleep(60)

    async def respond() -> None:
        async with asyncio.timeout(5):
            await sse.Stream(parts()).stream_response(send)

    asyncio.run(respond())
    assert len(tried) == 1  # and the response ended, though the first part never went out
