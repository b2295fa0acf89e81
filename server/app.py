"""The application: routers, middleware, and errors turned into pages or JSON in one place."""

import http
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import structlog
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from starlette.exceptions import HTTPException
from starlette.middleware.gzip import GZipMiddleware
from starlette.staticfiles import StaticFiles
from starlette.types import Scope

from registry.errors import Conflict, Invalid, NotFound, Refused, RegistryError
from registry.settings import get_settings
from server import auth, middleware, render
from server.i18n import N_, error_text, gettext
from server.routes import accounts, admin, api, chats, checkpoints, health, home, models, news, runs

ROUTERS = (
    health.router,
    api.router,
    home.router,
    runs.router,
    checkpoints.router,
    models.router,
    news.router,
    accounts.router,
    chats.router,
    admin.router,
)
STATUSES: Mapping[type[RegistryError], int] = {NotFound: 404, Conflict: 409, Invalid: 422, Refused: 403}
HEADLINES = {
    400: N_("That request made no sense"),
    401: N_("Log in first"),
    403: N_("You may not do that"),
    404: N_("There is nothing here"),
    405: N_("That is not how to ask"),
    409: N_("That contradicts what is here"),
    413: N_("That is too much at once"),
    422: N_("That cannot be accepted"),
    429: N_("Too many requests"),
    500: N_("Something broke on our side"),
    503: N_("Away for the moment"),
}

log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class ErrorPage:
    """Context of errors/page.html."""

    status: int
    headline: str
    message: str


class Assets(StaticFiles):
    """static/, cached for ever where the address carries the content's fingerprint."""

    async def get_response(self, path: str, scope: Scope) -> Response:
        """The file, with how long a browser may keep it."""
        response = await super().get_response(path, scope)
        if response.status_code == http.HTTPStatus.OK and b"v=" in scope["query_string"]:
            response.headers["Cache-Control"] = "public, max-age=31536000, immutable"
        return response


def error_response(request: Request, status: int, message: str, headers: Mapping[str, str] | None = None) -> Response:
    """An error as JSON below /api and for probes, as a page for everybody else."""
    sent = dict(headers or {})
    wants_html = "text/html" in request.headers.get("accept", "") or "hx-request" in request.headers
    if request.url.path.startswith("/api") or not wants_html:
        return JSONResponse({"status": status, "detail": message}, status_code=status, headers=sent)
    headline = gettext(HEADLINES.get(status, HEADLINES[500 if status >= 500 else 400]))
    context = ErrorPage(status=status, headline=headline, message=message)
    return render.page(request, "errors/page.html", context, status_code=status, headers=sent)


# Handlers are plain functions: starlette runs those in a thread, and rendering reads the database.
def on_registry_error(request: Request, error: Exception) -> Response:
    """A verb's refusal; its message is a sentence for the visitor."""
    status = next((code for kind, code in STATUSES.items() if isinstance(error, kind)), 500)
    return error_response(request, status, error_text(error) if isinstance(error, RegistryError) else str(error))


def on_http_error(request: Request, error: Exception) -> Response:
    """Starlette's own errors: no such address, a method not allowed, a route's explicit refusal."""
    assert isinstance(error, HTTPException)
    if 300 <= error.status_code < 400:  # a route sends the visitor elsewhere, for example to log in
        return Response(status_code=error.status_code, headers=error.headers)
    phrase = http.HTTPStatus(error.status_code).phrase
    detail = str(error.detail) if error.detail != phrase else _explanation(error.status_code)
    return error_response(request, error.status_code, detail, error.headers)


def on_invalid_request(request: Request, error: Exception) -> Response:
    """A parameter or form field of the wrong form, each named with what is wrong."""
    assert isinstance(error, RequestValidationError)
    problems = [f"{'.'.join(str(part) for part in e['loc'][1:])}: {e['msg']}" for e in error.errors()]
    return error_response(request, 422, "; ".join(problems))


def on_crash(request: Request, error: Exception) -> Response:
    """Our own bug: logged with its trace, shown without."""
    log.error("A request failed.", path=request.url.path, exc_info=error)
    # Starlette answers a crash outside of our middleware, so the headers are added here.
    return error_response(request, 500, _explanation(500), middleware.HEADERS)


def _explanation(status: int) -> str:
    if status == http.HTTPStatus.NOT_FOUND:
        return gettext("No page has this address.")
    if status >= http.HTTPStatus.INTERNAL_SERVER_ERROR:
        return gettext("It has been noted in the log. Trying again in a moment often helps.")
    return gettext("The address or the form sent something this page does not take.")


def create_app() -> FastAPI:
    """The whole site, ready to serve."""
    settings = get_settings()
    app = FastAPI(title=settings.site_name, version="1", docs_url=None, redoc_url=None)
    for router in ROUTERS:
        app.include_router(router)
    app.mount("/static", Assets(directory=render.STATIC_DIR), name="static")
    handlers: dict[Any, Any] = {
        RegistryError: on_registry_error,
        HTTPException: on_http_error,
        RequestValidationError: on_invalid_request,
        Exception: on_crash,
    }
    for kind, handler in handlers.items():
        app.add_exception_handler(kind, handler)
    render.add_provider(auth.page_context)
    # The last one added is the outermost.
    app.add_middleware(GZipMiddleware, minimum_size=1_000)
    app.add_middleware(middleware.SecurityHeaders)
    app.add_middleware(middleware.Language)
    app.add_middleware(middleware.Metering)
    return app
