"""`python -m server`: serve the site on the address in the settings."""

import logging

import structlog
import uvicorn

from registry.settings import get_settings
from server.app import create_app


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
    uvicorn.run(
        create_app(),
        host=settings.host,
        port=settings.port,
        access_log=False,
        log_level="warning",
        # Open event streams would hold a stop for as long as browsers stay.
        timeout_graceful_shutdown=3,
        proxy_headers=bool(settings.trusted_proxies),
        forwarded_allow_ips=settings.trusted_proxies or None,
    )


if __name__ == "__main__":
    main()
