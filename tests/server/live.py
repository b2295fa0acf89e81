"""The application behind a real port, for what only a real connection shows: streams."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import uvicorn

from server.app import create_app
from tests.conftest import free_port


@contextmanager
def serve() -> Iterator[str]:
    """The address of a running server with the settings of this test."""
    port = free_port()
    config = uvicorn.Config(create_app(), port=port, log_level="warning", timeout_graceful_shutdown=1)
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
