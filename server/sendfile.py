"""Files from the kernel's page cache straight to the connection: what nginx does, for uvicorn.

uvicorn knows only bodies made of bytes, so that a file is copied into Python and out again. `SendFile`, the outermost
layer inside uvicorn, adds a message of its own that names an open file instead. Its form is that of the ASGI extension
"zero copy send"; not its name, because a layer that compresses for some takes that extension from all of their answers,
files that nobody compresses too.

A download holds no thread while its reader does not keep up, and no memory at any time.
"""

import asyncio
import os
import select
import time
from functools import partial
from typing import Any

import anyio.to_thread
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

EXTENSION = "grow.sendfile"
"""In `scope["extensions"]` where the message is understood; its type is the same word."""
SLICE_BYTES = 8 * 2**20
"""What the kernel is asked to send at once; it stops earlier, where the connection's buffer is full."""
SLICE_SECONDS = 0.25
"""How long a download keeps a thread while others may wait for one."""
PATIENCE_MS = 5
"""How long a thread waits for a reader; one that is slower is waited for without a thread."""
THREADS = 8
STALLED_SECONDS = 120.0
"""A reader that takes nothing for so long is let go."""

_threads = anyio.CapacityLimiter(THREADS)


class SendFile:
    """Understands `{"type": "grow.sendfile", "file": descriptor, "offset": …, "count": …, "more_body": …}`."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Offer the message where this connection can take it: plain HTTP, parsed by httptools."""
        cycle = getattr(send, "__self__", None)
        if scope["type"] == "http" and isinstance(cycle, RequestResponseCycle) and _is_plain(cycle.transport):
            scope.setdefault("extensions", {})[EXTENSION] = {}
            await self.app(scope, receive, partial(_send, cycle))
        else:
            await self.app(scope, receive, send)


def _is_plain(transport: asyncio.Transport) -> bool:
    return transport.get_extra_info("sslcontext") is None and transport.get_extra_info("socket") is not None


async def _send(cycle: RequestResponseCycle, message: Message) -> None:
    if message["type"] != EXTENSION:
        await cycle.send(message)  # type: ignore[arg-type]
        return
    count = int(message["count"])
    if cycle.disconnected or not count:
        return
    if not cycle.response_started or cycle.chunked_encoding or count > cycle.expected_content_length:
        raise RuntimeError("A file is sent after the headers, and at most as much of it as they announced.")
    try:
        await _flush(cycle)
        if not cycle.disconnected:
            await _send_file(cycle.transport, int(message["file"]), int(message["offset"]), count)
    except ConnectionError:
        cycle.transport.abort()
        await asyncio.sleep(0)  # uvicorn hears of it, and takes what else the application sends for nobody
        cycle.disconnected = True
        return
    cycle.expected_content_length -= count
    await cycle.send({"type": "http.response.body", "body": b"", "more_body": message.get("more_body", False)})


async def _flush(cycle: RequestResponseCycle) -> None:
    """Wait until all that uvicorn wrote, the headers above all, is with the kernel: the file comes after it."""
    cycle.transport.set_write_buffer_limits(high=0)
    try:
        while cycle.transport.get_write_buffer_size() and not cycle.disconnected:
            if cycle.flow.write_paused:
                await cycle.flow.drain()
            else:
                await asyncio.sleep(0)
    finally:
        cycle.transport.set_write_buffer_limits()


async def _send_file(transport: asyncio.Transport, file: int, offset: int, count: int) -> None:
    """Send bytes of an open file.

    Raises:
        ConnectionError: the reader went away.
        RuntimeError: the file is shorter than that.
    """
    # The loop watches the connection's own descriptor; one descriptor cannot be watched for two.
    connection = os.dup(transport.get_extra_info("socket").fileno())
    try:
        while count:
            if transport.is_closing():
                raise ConnectionAbortedError
            sent = await anyio.to_thread.run_sync(_send_slice, connection, file, offset, count, limiter=_threads)
            offset, count = offset + sent, count - sent
            if count:
                await _wait_writable(connection)
    finally:
        os.close(connection)


def _send_slice(connection: int, file: int, offset: int, count: int) -> int:
    """Send until the time of a slice is over, all is sent, or the reader does not keep up; how many bytes went."""
    poller = select.poll()
    poller.register(connection, select.POLLOUT)
    deadline, sent = time.monotonic() + SLICE_SECONDS, 0
    while sent < count and time.monotonic() < deadline:
        try:
            number = os.sendfile(connection, file, offset + sent, min(count - sent, SLICE_BYTES))
        except BlockingIOError:
            if not poller.poll(PATIENCE_MS):
                break
            continue
        if not number:
            raise RuntimeError("A file became shorter while it was sent.")
        sent += number
    return sent


async def _wait_writable(connection: int) -> None:
    loop: Any = asyncio.get_running_loop()
    ready = asyncio.Event()
    loop.add_writer(connection, ready.set)
    try:
        async with asyncio.timeout(STALLED_SECONDS):
            await ready.wait()
    except TimeoutError:
        raise ConnectionAbortedError from None
    finally:
        loop.remove_writer(connection)
