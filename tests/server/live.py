"""The application behind a real port, for what only a real connection shows: streams."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import uvicorn
from starlette.types import ASGIApp

from server.app import create_app
from server.sendfile import SendFile
from tests.conftest import free_port


@contextmanager
def serve(wrap: Callable[[ASGIApp], ASGIApp] = SendFile) -> Iterator[str]:
    """The address of a running server with the settings of this test; `wrap` is the layer right inside uvicorn."""
    port = free_port()
    config = uvicorn.Config(wrap(create_app()), port=port, log_level="warning", timeout_graceful_shutdown=1)
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.02)
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        server.should_exit = True
        thread.join(timeout=10)
