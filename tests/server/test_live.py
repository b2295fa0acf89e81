"""Answers heard over one connection: each event once, in order, whatever is lost on the way."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from typing import Any

import pytest

from registry import events
from server import live

SUBJECT = "turn:7"


def tell(number: int, kind: str = "delta", *, fence: int = 1, subject: str = SUBJECT) -> None:
    assert events.append(subject, kind, {"text": f"{fence}.{number}"}, fence=fence, number=number)


async def collect(number: int, subject: str = SUBJECT, *, is_new: bool = False) -> list[str]:
    """The ids of the next events."""
    found: list[str] = []
    async with aclosing(live.follow(subject, is_new=is_new)) as stream:
        async for event in stream:
            if event is not None:
                found.append(event.id)
            if len(found) == number:
                break
    return found


def run(test: Callable[[], Awaitable[Any]]) -> Any:
    async def limited() -> Any:
        async with asyncio.timeout(15):
            return await test()

    return asyncio.run(limited())


def test_what_was_written_before_is_read_and_what_comes_is_heard(redis_url: str) -> None:
    async def watch() -> list[str]:
        for number in (1, 2):
            tell(number)
        reading = asyncio.create_task(collect(4))
        await asyncio.sleep(0.3)
        for number in (3, 4):
            tell(number)
        return await reading

    assert run(watch) == ["1-1", "1-2", "1-3", "1-4"]


def test_a_hole_in_what_was_heard_is_filled_from_the_stream(redis_url: str) -> None:
    async def watch() -> list[str]:
        tell(1)
        reading = asyncio.create_task(collect(4))
        await asyncio.sleep(0.3)
        quiet = {"kind": "delta", "data": "{}"}
        events.client().xadd(events.answer_key(SUBJECT), quiet, id="1-2")  # type: ignore[arg-type]  # nobody announces it
        events.client().xadd(events.answer_key(SUBJECT), quiet, id="1-3")  # type: ignore[arg-type]
        tell(4)
        return await reading

    assert run(watch) == ["1-1", "1-2", "1-3", "1-4"]


def test_a_second_attempt_follows_the_first(redis_url: str) -> None:
    async def watch() -> list[str]:
        reading = asyncio.create_task(collect(4))
        await asyncio.sleep(0.3)
        tell(1, "start")
        tell(2)
        tell(1, "start", fence=2)
        assert not events.append(SUBJECT, "delta", {"text": "late"}, fence=1, number=3)
        tell(2, fence=2)
        return await reading

    assert run(watch) == ["1-1", "1-2", "2-1", "2-2"]


def test_what_is_new_is_only_heard_until_something_was_missed(redis_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    reads: list[str] = []
    read = live.Ear.read

    async def count(ear: live.Ear, subject: str, last_id: str) -> list[events.Event]:
        reads.append(subject)
        return await read(ear, subject, last_id)

    monkeypatch.setattr(live.Ear, "read", count)

    async def watch() -> tuple[list[str], list[str]]:
        other = asyncio.create_task(collect(1, "turn:8"))  # the connection is there already
        await asyncio.sleep(0.3)
        reads.clear()
        tell(1, "start", subject="turn:9")  # before anybody watches
        await asyncio.sleep(0.2)
        readings = [asyncio.create_task(collect(2, subject, is_new=True)) for subject in (SUBJECT, "turn:9")]
        await asyncio.sleep(0.1)
        for number in (1, 2):
            tell(number)
        tell(2, subject="turn:9")
        found = await asyncio.gather(*readings)
        tell(1, subject="turn:8")
        await other
        return found

    assert run(watch) == [["1-1", "1-2"], ["1-1", "1-2"]]
    assert reads == ["turn:9"]


def test_two_who_watch_one_answer_and_one_who_watches_another_share_the_connection(redis_url: str) -> None:
    async def watch() -> tuple[list[list[str]], int]:
        readings = [asyncio.create_task(collect(2)), asyncio.create_task(collect(2))]
        other = asyncio.create_task(collect(1, "turn:8"))
        await asyncio.sleep(0.3)
        listeners = events.client().pubsub_numsub(events.ANSWERS_CHANNEL)[0][1]
        tell(1)
        tell(1, subject="turn:8")
        tell(2)
        return [*(await asyncio.gather(*readings)), await other], listeners

    found, listeners = run(watch)
    assert found == [["1-1", "1-2"], ["1-1", "1-2"], ["1-1"]]
    assert listeners == 1


def test_what_came_while_the_connection_was_away_is_not_lost(redis_url: str) -> None:
    async def watch() -> list[str]:
        tell(1)
        reading = asyncio.create_task(collect(3))
        await asyncio.sleep(0.3)
        events.client().client_kill_filter(_type="pubsub")
        tell(2)
        await asyncio.sleep(0.5)
        tell(3)
        return await reading

    assert run(watch) == ["1-1", "1-2", "1-3"]


def test_nothing_is_kept_when_nobody_watches_any_more(redis_url: str) -> None:
    async def watch() -> int:
        tell(1)
        await collect(1)
        await asyncio.sleep(0.2)
        return len(live._ears) + events.client().pubsub_numsub(events.ANSWERS_CHANNEL)[0][1]

    assert run(watch) == 0


def test_without_a_broker_the_caller_is_asked_again_and_again(
    grow_home: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live, "LOOK_SECONDS", 0.05)

    async def watch() -> list[object]:
        found: list[object] = []
        async with aclosing(live.follow(SUBJECT)) as stream:
            async for event in stream:
                found.append(event)
                if len(found) == 3:
                    break
        return found

    assert run(watch) == [None, None, None]
