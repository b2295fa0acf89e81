"""Server-sent events over a Redis stream: the board that pages watch, and chat turns.

Each event carries the stream's own id, so a browser that reconnects sends it back as
Last-Event-ID and misses nothing. A comment goes out when nothing happened for a while, which keeps
proxies from closing the line and shows us visitors who left. Every response ends after
`MAX_SECONDS`; the browser reconnects by itself.
"""

import json
import time
from collections.abc import AsyncIterator, Container

import redis.exceptions
import structlog
from fastapi import Request
from fastapi.responses import StreamingResponse

from registry import events
from server import meters

MAX_SECONDS = 600.0
RETRY_MS = 3_000
HEADERS = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}

log = structlog.get_logger(__name__)


def encode(event: events.Event) -> str:
    """One event in the wire format."""
    return f"id: {event.id}\nevent: {event.kind}\ndata: {json.dumps(event.data, ensure_ascii=False)}\n\n"


def respond(
    request: Request, key: str, *, name: str, start: str = "$", last_kinds: Container[str] = ()
) -> StreamingResponse:
    """Stream what is appended to `key`.

    Args:
        request: gives Last-Event-ID, from which a reconnecting browser goes on.
        key: the Redis stream, for example `events.turn_key(turn_id)`.
        name: what /metrics calls this kind of stream.
        start: "0" replays the stream from its beginning, "$" begins with the next event.
        last_kinds: kinds after which the response ends, for example `("done",)`.
    """
    last_id = request.headers.get("last-event-id") or start
    body = _events(request, key, name=name, last_id=last_id, last_kinds=last_kinds)
    return StreamingResponse(body, media_type="text/event-stream", headers=HEADERS)


async def _events(
    request: Request, key: str, *, name: str, last_id: str, last_kinds: Container[str]
) -> AsyncIterator[str]:
    ends_at = time.monotonic() + MAX_SECONDS
    connection = events.async_client()
    gauge = meters.OPEN_STREAMS.labels(name)
    gauge.inc()
    try:
        yield f"retry: {RETRY_MS}\n\n"
        async for event in events.follow(connection, key, last_id):
            yield ": nothing new\n\n" if event is None else encode(event)
            finished = event is not None and event.kind in last_kinds
            if finished or time.monotonic() > ends_at or await request.is_disconnected():
                return
    except redis.exceptions.RedisError as error:
        # The response just ends: the browser comes back after RETRY_MS, and finds the rows meanwhile.
        log.warning("An event stream ended because the broker is away.", stream=key, error=str(error))
    finally:
        gauge.dec()
        await connection.aclose()
