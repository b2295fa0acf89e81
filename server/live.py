"""Answers as they are written, for everybody who watches one in this process, over one connection to the broker.

Workers announce the pieces of all answers on one channel; whoever watches an answer gets those of its own. What was
written before, or while the connection was away, is read from the answer's stream: the numbers of its events say
what is missing.
"""

import asyncio
import time
from collections import defaultdict
from collections.abc import AsyncGenerator, Iterator
from contextlib import contextmanager
from typing import Any

import orjson
import redis.asyncio
import redis.exceptions
import structlog

from registry import events
from registry.events import Event

LOOK_SECONDS = 2.0
"""So long without an event, and the watcher is asked whether there is anything to do."""
TICK_SECONDS = 0.25
"""How often is looked who has waited for so long: one clock for all costs less than a time limit for each wait."""
FIRST_PAUSE, LONGEST_PAUSE = 0.2, 5.0
PING_SECONDS = 1.0
"""So long without a word on the channel, and the connection is asked whether it is alive."""

log = structlog.get_logger(__name__)


class Watcher:
    """One open stream: the events it has not sent yet."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.has_gap = True
        """Something may have passed that is only in the stream; so it is in the beginning."""
        self.wake = asyncio.Event()
        self.looks_at = 0.0
        """When it is asked whether there is anything to do, by the clock of the loop."""


class Ear:
    """Listens to the channel in one event loop, as long as anybody watches."""

    def __init__(self) -> None:
        self.watchers: dict[str, set[Watcher]] = defaultdict(set)
        self.client = events.async_client()
        self._is_closed = False
        self._asked_at = 0.0
        self._tasks = [
            asyncio.create_task(self._listen_for_ever(), name="answers"),
            asyncio.create_task(self._tick_for_ever(), name="answers' clock"),
        ]

    async def close(self) -> None:
        """Stop listening."""
        self._is_closed = True  # `wait_for` of Python 3.11, which the client uses, may lose the cancellation
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self.client.aclose()

    async def read(self, subject: str, last_id: str) -> list[Event]:
        """What an answer's stream holds after an event.

        Raises:
            RedisError: the broker is away.
        """
        after = "-" if last_id == "0" else f"({last_id}"
        entries: Any = await self.client.xrange(events.answer_key(subject), min=after)
        return [Event(entry_id, fields["kind"], orjson.loads(fields["data"])) for entry_id, fields in entries]

    async def _listen_for_ever(self) -> None:
        pause = FIRST_PAUSE
        while not self._is_closed:
            connection = events.async_client()
            try:
                async with connection.pubsub() as channel:
                    await channel.subscribe(events.ANSWERS_CHANNEL)
                    self._tell_gap()
                    pause = FIRST_PAUSE
                    while not self._is_closed:
                        await self._hear(channel)
            except (redis.exceptions.RedisError, OSError) as error:
                log.warning("Answers pause: the broker is away.", error=str(error))
            finally:
                await connection.aclose()
            await asyncio.sleep(pause)
            pause = min(2 * pause, LONGEST_PAUSE)

    async def _tick_for_ever(self) -> None:
        loop = asyncio.get_running_loop()
        while not self._is_closed:
            await asyncio.sleep(TICK_SECONDS)
            now = loop.time()
            for watchers in self.watchers.values():
                for watcher in watchers:
                    if watcher.looks_at <= now:
                        watcher.wake.set()

    async def _hear(self, channel: redis.asyncio.client.PubSub) -> None:
        message = await channel.get_message(ignore_subscribe_messages=True, timeout=PING_SECONDS)
        if message is None:
            # A connection that died silently says so. The answer to a ping is no message either.
            if time.monotonic() - self._asked_at > PING_SECONDS:
                self._asked_at = time.monotonic()
                await channel.ping()
            return
        if message["type"] != "message":
            return
        for subject, entry_id, kind, data in orjson.loads(message["data"]):
            for watcher in self.watchers.get(subject, ()):
                watcher.events.append(Event(entry_id, kind, data))
                watcher.wake.set()

    def _tell_gap(self) -> None:
        for watchers in self.watchers.values():
            for watcher in watchers:
                watcher.has_gap = True
                watcher.wake.set()


_ears: dict[asyncio.AbstractEventLoop, Ear] = {}
_closing: set[asyncio.Task[None]] = set()
"""The loop itself holds tasks weakly."""


@contextmanager
def _watching(subject: str) -> Iterator[tuple[Ear, Watcher]]:
    loop = asyncio.get_running_loop()
    ear = _ears.get(loop) or _ears.setdefault(loop, Ear())
    watcher = Watcher()
    ear.watchers[subject].add(watcher)
    try:
        yield ear, watcher
    finally:
        ear.watchers[subject].discard(watcher)
        if not ear.watchers[subject]:
            del ear.watchers[subject]
        if not ear.watchers and _ears.pop(loop, None) is not None:
            task = loop.create_task(ear.close())
            _closing.add(task)
            task.add_done_callback(_closing.discard)


async def follow(subject: str, last_id: str = "0", *, is_new: bool = False) -> AsyncGenerator[Event | None, None]:
    """The events of an answer after `last_id`, each once and in order, for ever; None when none came for a while.

    The first thing is None, too. Goes on while the broker is away: the caller sees from the rows how things stand.
    What was asked for a moment ago and `is_new` has no events to be read: the numbers of the first ones say whether
    any were missed after all.
    """
    last_id, loop = events.checked_id(last_id), asyncio.get_running_loop()
    with _watching(subject) as (ear, watcher):
        watcher.has_gap = not is_new
        yield None
        while True:
            heard, watcher.events = watcher.events, []
            watcher.wake.clear()
            if watcher.has_gap or not _continues(last_id, heard):
                heard = await _whole(ear, watcher, subject, last_id, heard)
            for event in heard:
                if number(event.id) > number(last_id):
                    last_id = event.id
                    yield event
            if watcher.events and not watcher.has_gap:
                continue
            watcher.looks_at = loop.time() + (TICK_SECONDS if is_new else LOOK_SECONDS)
            is_new = False
            await watcher.wake.wait()
            if not watcher.events and loop.time() >= watcher.looks_at:
                yield None


async def _whole(ear: Ear, watcher: Watcher, subject: str, last_id: str, heard: list[Event]) -> list[Event]:
    try:
        watcher.has_gap = False
        return await ear.read(subject, last_id) + heard
    except (redis.exceptions.RedisError, OSError) as error:
        log.warning("An answer's stream cannot be read; it is read when the broker is back.", error=str(error))
        watcher.has_gap = True
        return []


def number(event_id: str) -> tuple[int, int]:
    """An event's id as numbers that can be compared."""
    first, _, second = event_id.partition("-")
    return int(first), int(second or 0)


def _continues(last_id: str, heard: list[Event]) -> bool:
    """Whether nothing is missing: a worker numbers its events 1, 2, 3 … under one fence."""
    before = number(last_id)
    for event in heard:
        at = number(event.id)
        is_next = at == (before[0], before[1] + 1) or (before == (0, 0) and at[1] == 1)
        if at > before and not is_next:
            return False
        before = max(before, at)
    return True
