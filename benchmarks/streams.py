"""A thousand open pages: how long until an event has reached the last one, and what that costs the web server.

    python -m benchmarks.streams [--streams 1000] [--events 50] [--output streams.json]

Starts a broker and one web server in a folder of their own, opens the streams from this process, publishes events
one at a time, then all at once. Takes about fifteen seconds.
"""

import argparse
import asyncio
import json
import resource
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import psutil

from benchmarks import _site
from registry import events

AIM_SECONDS, AIM_MB = 1.0, 500
PAUSE_SECONDS = 0.1
TIMEOUT_SECONDS = 60.0


class Watchers:
    """Open streams, and when each event reached each of them."""

    def __init__(self) -> None:
        self.num_open = 0
        self.arrivals: dict[int, list[float]] = {}
        self._changed = asyncio.Event()

    async def watch(self, host: str, port: int) -> None:
        """Open one stream and read it for ever, as a browser does."""
        reader, writer = await asyncio.open_connection(host, port)
        try:
            request = f"GET /events/board HTTP/1.1\r\nHost: {host}:{port}\r\nAccept: text/event-stream\r\n\r\n"
            writer.write(request.encode())
            await reader.readuntil(b"retry: ")
            self.num_open += 1
            self._changed.set()
            while line := await reader.readline():
                if line.startswith(b"data: "):
                    step = json.loads(line.removeprefix(b"data: "))["step"]
                    self.arrivals.setdefault(step, []).append(time.perf_counter())
                    self._changed.set()
        finally:
            writer.close()

    async def have(self, streams: int, step: int | None = None) -> None:
        """Return when so many are open, or have the event of that step."""
        async with asyncio.timeout(TIMEOUT_SECONDS):
            while (self.num_open if step is None else len(self.arrivals.get(step, ()))) < streams:
                self._changed.clear()
                await self._changed.wait()


async def measure(site: _site.Site, streams: int, num_events: int) -> dict[str, Any]:
    """Open the streams, publish, and look at the clock and at the server's memory."""
    address, server = urlsplit(site.address), psutil.Process(site.server.pid)
    assert address.hostname is not None
    assert address.port is not None
    watchers, before, began = Watchers(), server.memory_info().rss, time.perf_counter()
    tasks = [asyncio.create_task(watchers.watch(address.hostname, address.port)) for _ in range(streams)]
    await watchers.have(streams)
    opened = time.perf_counter() - began
    await asyncio.sleep(1)
    cpu = sum(server.cpu_times()[:2])
    single = [await _publish(watchers, streams, [step]) for step in range(num_events)]
    cpu = sum(server.cpu_times()[:2]) - cpu
    burst = await _publish(watchers, streams, range(num_events, 2 * num_events))
    memory = server.memory_info().rss
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    delays = np.concatenate(single)
    return {
        "streams": streams,
        "opened_seconds": round(opened, 2),
        "event_seconds": _spread(delays),
        "last_watcher_seconds": _spread(np.array([one.max() for one in single])),
        "server_cpu_seconds_per_event": round(cpu / num_events, 3),
        "burst": {"events": num_events, "last_watcher_seconds": round(float(burst.max()), 3)},
        "server_mb": {"before": round(before / 2**20), "with_streams": round(memory / 2**20)},
    }


async def _publish(watchers: Watchers, streams: int, steps: Sequence[int]) -> Any:
    """Publish at once; seconds until each watcher had each event."""
    await asyncio.sleep(PAUSE_SECONDS)
    began = {}
    for step in steps:
        began[step] = time.perf_counter()
        assert await asyncio.to_thread(events.publish_board, "metrics", {"run": "demo", "step": step})
    for step in steps:
        await watchers.have(streams, step)
    return np.concatenate([np.array(watchers.arrivals[step]) - began[step] for step in steps])


def _spread(seconds: Any) -> dict[str, float]:
    return {
        "median": round(float(np.median(seconds)), 3),
        "p95": round(float(np.percentile(seconds, 95)), 3),
        "max": round(float(seconds.max()), 3),
    }


def main() -> None:
    """Parse the command line, measure, print and save."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, help="JSON file for the figures")
    parser.add_argument("--streams", type=int, default=1000)
    parser.add_argument("--events", type=int, default=50)
    args = parser.parse_args()
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < 2 * args.streams:
        raise SystemExit(f"This machine allows {hard} open files a process; {2 * args.streams} are needed.")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(2 * args.streams, 65_536)), hard))
    with tempfile.TemporaryDirectory(prefix="grow-streams-") as folder:
        _site.use(Path(folder))
        with _site.serving() as site:
            figures = asyncio.run(measure(site, args.streams, args.events))
    last, memory = figures["last_watcher_seconds"]["max"], figures["server_mb"]["with_streams"]
    text = json.dumps(figures, indent=2)
    print(text)  # noqa: T201
    print(f"last watcher after {last} s (aim: {AIM_SECONDS:.0f} s), server {memory} MB (aim: {AIM_MB})")  # noqa: T201
    if args.output:
        args.output.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
