"""`python -m server`: serve the site on the address in the settings."""

import logging
import resource
import sys
import threading

import structlog
import uvicorn

from registry import heap
from registry.settings import get_settings
from server.app import create_app
from server.sendfile import SendFile

MAX_FILES = 65_536
SETTLED_SECONDS = 60.0
SWITCH_SECONDS = 0.001
"""Answers stream in one thread while others read and write rows: it does not wait five milliseconds for its turn."""


def main() -> None:
    """Serve until told to stop."""
    settings = get_settings()
    renderer = structlog.processors.JSONRenderer() if settings.log_json else structlog.dev.ConsoleRenderer(colors=False)
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso"),
            structlog.processors.format_exc_info,
            renderer,
        ]
    )
    logging.basicConfig(level=logging.INFO)
    _allow_many_connections()
    app = create_app()
    heap.freeze()
    _freeze_later()
    sys.setswitchinterval(SWITCH_SECONDS)
    uvicorn.run(
        SendFile(app),
        host=settings.host,
        port=settings.port,
        access_log=False,
        log_level="warning",
        # Open event streams would hold a stop for as long as browsers stay.
        timeout_graceful_shutdown=3,
        proxy_headers=bool(settings.trusted_proxies),
        forwarded_allow_ips=settings.trusted_proxies or None,
    )


def _freeze_later() -> None:
    """Once more when the first visitors have had everything imported and every query put together."""
    timer = threading.Timer(SETTLED_SECONDS, heap.freeze)
    timer.daemon = True
    timer.start()


def _allow_many_connections() -> None:
    """Each open page holds a connection, and the usual limit of 1,024 files is for a program with a few."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MAX_FILES if hard == resource.RLIM_INFINITY else min(MAX_FILES, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


if __name__ == "__main__":
    main()
