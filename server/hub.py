"""One reader of a Redis stream for everybody who watches it in this process.

A hub begins with its first watcher and ends with its last. It keeps the stream's newest events, encoded once and
shared by all: a watcher is only a place in that row, so a thousand of them cost little more than one, and one who
does not keep up holds nobody back. While the broker is away watchers stay, and get what they missed when it returns.
"""

import asyncio
import json
from collections import deque
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from itertools import islice

import redis.asyncio
import redis.exceptions
import structlog

from registry import events

KEPT = events.BOARD_LENGTH
KEEP_ALIVE_SECONDS = events.KEEP_ALIVE_MS / 1000
FIRST_PAUSE, LONGEST_PAUSE = 0.5, 15.0
CLOSE_SECONDS = 0.5
NOTHING_NEW = b": nothing new\n\n"

log = structlog.get_logger(__name__)
_hubs: dict[tuple[asyncio.AbstractEventLoop, str], "Hub"] = {}
_readers: set[asyncio.Task[None]] = set()
"""The loop itself holds tasks weakly, and one that ends still closes its connection."""


def encode(event: events.Event) -> str:
    """One event in the wire format."""
    return f"id: {event.id}\nevent: {event.kind}\ndata: {json.dumps(event.data, ensure_ascii=False)}\n\n"


class Hub:
    """The newest events of one stream, and who waits for the next."""

    def __init__(self, key: str) -> None:
        self.key = key
        self.num_watchers = 0
        self._kept: deque[tuple[tuple[int, int], bytes]] = deque(maxlen=KEPT)
        self._end = 0
        """How many events there have been; the kept ones are the last of them."""
        self._last_id = ""
        self._is_ready = False
        self._news = asyncio.Event()
        self._reader = asyncio.create_task(self._read(), name=f"hub {key}")
        _readers.add(self._reader)
        self._reader.add_done_callback(self._note_end)

    def close(self) -> None:
        """Stop reading."""
        if not self._reader.done():
            self._reader.cancel()
            # `wait_for` of Python 3.11, which the client uses, loses a cancellation that comes as it returns.
            self._reader.get_loop().call_later(CLOSE_SECONDS, self.close)

    def _note_end(self, reader: asyncio.Task[None]) -> None:
        _readers.discard(reader)
        if not reader.cancelled() and (error := reader.exception()):
            log.error("The reader of a stream failed.", stream=self.key, exc_info=error)
        self._wake()

    async def watch(self, last_id: str) -> AsyncIterator[bytes]:
        """What comes after `last_id` ("$": from now on), several events at once where they came so.

        A keep-alive when nothing came for a while. Ends for a watcher who fell so far behind that events were
        dropped meanwhile, or when the reader failed: a browser comes back, and goes on from the last id it saw.
        """
        while not self._is_ready and not self._reader.done():
            if not await self._wait(self._news):
                yield NOTHING_NEW
        place = self._end if last_id == "$" else self._place_after(_number(events.checked_id(last_id)))
        while not self._reader.done() and place >= self._end - len(self._kept):
            news = self._news
            if place < self._end:
                skipped = len(self._kept) - (self._end - place)
                place = self._end
                yield b"".join(encoded for _, encoded in islice(self._kept, skipped, None))
            elif not await self._wait(news):
                yield NOTHING_NEW

    @staticmethod
    async def _wait(news: asyncio.Event) -> bool:
        try:
            async with asyncio.timeout(KEEP_ALIVE_SECONDS):
                return await news.wait()
        except TimeoutError:
            return False

    def _place_after(self, last: tuple[int, int]) -> int:
        newer = sum(number > last for number, _ in self._kept)
        return self._end - newer

    async def _read(self) -> None:
        """Follow the stream for ever, over as many connections as that takes."""
        pause = FIRST_PAUSE
        while True:
            connection = events.async_client()
            try:
                async for event in events.follow(connection, self.key, await self._begin(connection)):
                    pause = FIRST_PAUSE
                    if event is not None:
                        self._append(event)
            except redis.exceptions.RedisError as error:
                log.warning("Live events pause: the broker is away.", stream=self.key, error=str(error))
            finally:
                await connection.aclose()
            await asyncio.sleep(pause)
            pause = min(2 * pause, LONGEST_PAUSE)

    async def _begin(self, connection: redis.asyncio.Redis) -> str:
        """The id to follow from; the first time, after taking in what there is."""
        if not self._is_ready:
            for event in await events.newest(connection, self.key, KEPT):
                self._append(event)
            self._is_ready = True
            self._wake()
        return self._last_id or "0"

    def _append(self, event: events.Event) -> None:
        self._kept.append((_number(event.id), encode(event).encode()))
        self._end += 1
        self._last_id = event.id
        self._wake()

    def _wake(self) -> None:
        news, self._news = self._news, asyncio.Event()
        news.set()


@contextmanager
def watching(key: str) -> Iterator[Hub]:
    """The hub of a stream in this event loop, kept as long as somebody is inside."""
    place = (asyncio.get_running_loop(), key)
    hub = _hubs.get(place) or _hubs.setdefault(place, Hub(key))
    hub.num_watchers += 1
    try:
        yield hub
    finally:
        hub.num_watchers -= 1
        if not hub.num_watchers:
            del _hubs[place]
            hub.close()


def _number(stream_id: str) -> tuple[int, int]:
    time_ms, _, sequence = stream_id.partition("-")
    return int(time_ms), int(sequence or 0)
