"""What happens around every request: language, security headers, counting. Plain ASGI, no buffering of streams."""

import time
from http import HTTPStatus

from starlette.concurrency import run_in_threadpool
from starlette.datastructures import MutableHeaders
from starlette.requests import HTTPConnection
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from registry import limits
from server import i18n, meters

POLICY = "; ".join(
    (
        "default-src 'self'",
        "style-src 'self'",
        # ECharts positions its canvas and tooltip with style attributes.
        "style-src-attr 'unsafe-inline'",
        "img-src 'self' data:",
        "object-src 'none'",
        "base-uri 'none'",
        "form-action 'self'",
        "frame-ancestors 'none'",
    )
)
HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Permissions-Policy": "camera=(), microphone=(), geolocation=()",
}
FRAMED = "/embed/"
"""Pages that other sites may show in a frame; they hold one chart, no form and nobody's name, as errors may."""


class Language:
    """Chooses the language of the request for every `_()` below."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Set the language from cookie or header, then go on."""
        if scope["type"] == "http":
            connection = HTTPConnection(scope)
            i18n.use(i18n.choose(connection.cookies.get("lang"), connection.headers.get("accept-language")))
        await self.app(scope, receive, send)


class SecurityHeaders:
    """Adds the headers that tell browsers what a page of this site may do."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Add the headers to the start of each response."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
                if scope["path"].startswith(FRAMED) and message["status"] == HTTPStatus.OK:
                    headers["Content-Security-Policy"] = POLICY.replace("frame-ancestors 'none'", "frame-ancestors *")
                    del headers["X-Frame-Options"]
                headers.setdefault("Cache-Control", "no-store" if "set-cookie" in headers else "no-cache")
                # What never changes is the same for everybody; caches between need not tell people apart.
                if not scope["path"].startswith("/static/") and "immutable" not in headers["Cache-Control"]:
                    headers.add_vary_header("Cookie")
                    headers.add_vary_header("Accept-Language")
            await send(message)

        await self.app(scope, receive, send_with_headers)


class Limits:
    """Has the limits that an administrator changed hold in this process, seconds after they were."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Look at most every few seconds, then go on."""
        if scope["type"] == "http" and limits.is_stale() and not scope["path"].startswith("/static/"):
            await run_in_threadpool(limits.refresh)
        await self.app(scope, receive, send)


class Metering:
    """Counts requests by route pattern, so that names in addresses make no new series."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Count the request when its response is complete."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        started, status = time.monotonic(), 500

        async def send_and_note(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self.app(scope, receive, send_and_note)
        finally:
            route = getattr(scope.get("route"), "path", "static" if scope["path"].startswith("/static") else "none")
            meters.REQUESTS.labels(scope["method"], route, status).inc()
            meters.LATENCY.labels(route).observe(time.monotonic() - started)
