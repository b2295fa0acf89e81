"""Server-sent events over a Redis stream: the board that pages watch.

Each event carries the stream's own id, so a browser that reconnects sends it back as
Last-Event-ID and misses nothing. A comment goes out when nothing happened for a while, which keeps
proxies from closing the line and shows us visitors who left. Every response ends after
`MAX_SECONDS`; the browser reconnects by itself.
"""

import asyncio
import time
from collections.abc import AsyncIterator

import structlog
from fastapi import Request
from fastapi.responses import StreamingResponse
from starlette.types import Message, Send

from server import hub, meters

MAX_SECONDS = 600.0
RETRY_MS = 3_000
SLOW_SECONDS = 30.0
"""Who has not made room for the next event by then is let go."""
HEADERS = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}

log = structlog.get_logger(__name__)


class Stream(StreamingResponse):
    """A response that gives up on a browser that no longer reads."""

    async def stream_response(self, send: Send) -> None:
        """Send every part, each within `SLOW_SECONDS`."""

        loop = asyncio.get_running_loop()
        try:
            # One limit that is set again and again: a new one for each part costs as much as sending it.
            async with asyncio.timeout(None) as limit:

                async def send_in_time(message: Message) -> None:
                    limit.reschedule(loop.time() + SLOW_SECONDS)
                    await send(message)
                    limit.reschedule(None)

                await super().stream_response(send_in_time)
        except TimeoutError:
            log.info("A browser that no longer read its events was let go.")


def respond(request: Request, key: str, *, name: str, start: str = "$") -> StreamingResponse:
    """Stream what is appended to `key`, to all who ask from one reader.

    Args:
        request: gives Last-Event-ID, from which a reconnecting browser goes on.
        key: the Redis stream, for example `events.BOARD_KEY`.
        name: what /metrics calls this kind of stream.
        start: "0" replays what is kept of the stream, "$" begins with the next event.
    """
    last_id = request.headers.get("last-event-id") or start
    return Stream(_events(key, name, last_id), media_type="text/event-stream", headers=HEADERS)


async def _events(key: str, name: str, last_id: str) -> AsyncIterator[bytes]:
    # A visitor who leaves is seen by the response, which then cancels this.
    ends_at = time.monotonic() + MAX_SECONDS
    with meters.OPEN_STREAMS.labels(name).track_inprogress(), hub.watching(key) as found:
        yield f"retry: {RETRY_MS}\n\n".encode()
        async for part in found.watch(last_id):
            yield part
            if time.monotonic() > ends_at:
                return
