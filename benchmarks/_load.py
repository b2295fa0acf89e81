"""The load of `benchmarks.playground`: many streams of an OpenAI-compatible server at once, and what each saw when.

Raw sockets, because an HTTP client's own work for each token would hide what is measured.
"""

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import orjson


@dataclass
class Stream:
    """What one request saw; seconds by the process's clock."""

    sent_at: float
    arrivals: list[float] = field(default_factory=list)
    text: str = ""
    tokens: int = 0
    error: str = ""

    @property
    def first(self) -> float:
        """Seconds to the first piece."""
        return self.arrivals[0] - self.sent_at

    @property
    def gaps(self) -> list[float]:
        """Seconds between one piece and the next."""
        return list(np.diff(self.arrivals))


@dataclass(frozen=True)
class Load:
    """All requests of one measurement."""

    seconds: float
    streams: Sequence[Stream]

    @property
    def tokens_per_second(self) -> float:
        """Of all streams together."""
        return sum(stream.tokens for stream in self.streams) / self.seconds

    def first(self, quantile: float) -> float:
        """Milliseconds to the first piece."""
        # A model with random weights may end before its first word.
        return float(np.quantile([stream.first for stream in self.streams if stream.arrivals], quantile) * 1000)

    def stall(self, quantile: float) -> float:
        """Milliseconds from one piece to the next."""
        return float(np.quantile([gap for stream in self.streams for gap in stream.gaps], quantile) * 1000)


async def run(
    host: str, port: int, bodies: Sequence[dict[str, Any]], at_once: int, headers: str = "", pause: float = 0.0
) -> Load:
    """Send all requests, so many at a time, each as soon as one has ended and, with a pause, a while after it."""
    waiting = list(reversed(bodies))
    streams: list[Stream] = []

    async def work() -> None:
        while waiting:
            streams.append(await _stream(host, port, waiting.pop(), headers))
            await asyncio.sleep(pause)

    started = time.perf_counter()
    await asyncio.gather(*(work() for _ in range(at_once)))
    failed = [stream.error for stream in streams if stream.error]
    if failed:
        raise SystemExit(f"{len(failed)} of {len(streams)} requests failed; the first: {failed[0]}")
    return Load(time.perf_counter() - started, streams)


async def _stream(host: str, port: int, body: dict[str, Any], headers: str) -> Stream:
    content = orjson.dumps({**body, "stream": True, "stream_options": {"include_usage": True}})
    head = (
        f"POST /v1/completions HTTP/1.1\r\nHost: {host}:{port}\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(content)}\r\nConnection: close\r\n{headers}\r\n"
    )
    stream = Stream(time.perf_counter())
    reader, writer = await asyncio.open_connection(host, port, limit=2**20)
    try:
        writer.write(head.encode() + content)
        status = await reader.readline()
        if b" 200 " not in status:
            stream.error = (status + await reader.read()).decode()[-600:]
            return stream
        while line := await reader.readline():
            if line.startswith(b"data: {"):
                _take(stream, orjson.loads(line[6:]))
            elif line.startswith(b"data: [DONE]"):
                return stream
        stream.error = "The stream broke off."
    finally:
        writer.close()
    return stream


def _take(stream: Stream, event: dict[str, Any]) -> None:
    if "error" in event:
        stream.error = str(event["error"])
    for choice in event.get("choices", ()):
        if choice["text"]:
            stream.arrivals.append(time.perf_counter())
            stream.text += choice["text"]
    if usage := event.get("usage"):
        stream.tokens = usage["completion_tokens"]
