"""The application: routers, middleware, and errors turned into pages or JSON in one place."""

import http
import http.client
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import structlog
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from starlette.exceptions import HTTPException
from starlette.staticfiles import StaticFiles
from starlette.types import Scope
from starlette_compress import CompressMiddleware, remove_compress_type

from registry.errors import Conflict, Invalid, NoRoom, NotFound, Refused, RegistryError
from registry.remote import Away
from registry.settings import get_settings
from server import auth, incidents, middleware, render
from server.i18n import N_, error_text, gettext
from server.openai import errors as openai_errors
from server.routes import (
    about,
    accounts,
    admin,
    admin_checkpoints,
    admin_disk,
    admin_jobs,
    admin_limits,
    admin_news,
    admin_suites,
    admin_workers,
    ages,
    api,
    arena,
    care,
    chat_turns,
    chats,
    checkpoints,
    compare,
    downloads,
    evaluations,
    film,
    forecast,
    growth,
    health,
    history,
    home,
    hub_files,
    hub_lfs,
    hub_push,
    hub_xet,
    keys,
    ledger,
    lineage,
    metrics,
    mirrors,
    models,
    moderation,
    news,
    notebook,
    openai,
    people,
    prompts,
    quantization,
    reports,
    runs,
    shared,
    side,
    tasks,
    timelapse,
    training,
    upload_pages,
    uploads,
    votes,
    waits,
    webhooks,
)

ROUTERS = (
    health.router,
    api.router,
    home.router,
    growth.api,
    growth.router,
    runs.router,
    training.api,
    training.router,
    checkpoints.router,
    evaluations.router,
    compare.api,
    compare.router,
    forecast.api,
    forecast.router,
    quantization.api,
    quantization.router,
    tasks.api,
    tasks.router,
    ledger.api,
    ledger.router,
    timelapse.api,
    timelapse.router,
    models.router,
    news.router,
    accounts.router,
    keys.router,
    waits.router,
    side.router,
    film.router,
    ages.router,
    arena.api,
    arena.sections,
    arena.router,
    care.router,
    lineage.api,
    lineage.router,
    history.router,
    notebook.router,
    chat_turns.router,
    chats.router,
    shared.router,
    reports.router,
    about.router,
    admin.router,
    admin_checkpoints.router,
    admin_disk.router,
    admin_jobs.router,
    admin_limits.router,
    admin_news.router,
    admin_suites.router,
    admin_workers.router,
    webhooks.router,
    uploads.files,
    uploads.router,
    upload_pages.router,
    moderation.router,
    people.router,
    votes.router,
    prompts.router,
    openai.router,
    hub_push.router,
    hub_lfs.router,
    hub_xet.router,
    metrics.router,
    hub_files.router,
    downloads.router,
    mirrors.router,
)
STATUSES: Mapping[type[RegistryError], int] = {
    NotFound: 404,
    Conflict: 409,
    Invalid: 422,
    Refused: 403,
    NoRoom: 507,
    Away: 503,
}
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
    507: N_("There is no room for it"),
}

log = structlog.get_logger(__name__)

# A compressor for each of a thousand open streams would cost more memory than their few words are worth.
remove_compress_type("text/event-stream")


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
    if openai_errors.is_api(request.url.path):
        return openai_errors.error_answer(status, message, headers=sent)
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
    if isinstance(error, openai_errors.ApiError):
        return JSONResponse(error.content(), status_code=error.status_code, headers=error.headers)
    if 300 <= error.status_code < 400:  # a route sends the visitor elsewhere, for example to log in
        return Response(status_code=error.status_code, headers=error.headers)
    phrase = http.client.responses.get(error.status_code)  # the tus protocol has a status of its own
    detail = str(error.detail) if error.detail != phrase else _explanation(error.status_code)
    return error_response(request, error.status_code, detail, error.headers)


def on_invalid_request(request: Request, error: Exception) -> Response:
    """A parameter or form field of the wrong form, each named with what is wrong."""
    assert isinstance(error, RequestValidationError)
    if openai_errors.is_api(request.url.path):
        message, param = openai_errors.param_of(error.errors())
        return openai_errors.error_answer(400, message, param=param)
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
    render.add_provider(incidents.page_context)
    # The last one added is the outermost.
    # At their fastest: a view of ten curves takes 2 ms in zstd, 8 in gzip, 32 in gzip as it usually is set.
    app.add_middleware(CompressMiddleware, minimum_size=1_000, zstd_level=1, brotli_quality=1, gzip_level=1)
    app.add_middleware(middleware.SecurityHeaders)
    app.add_middleware(middleware.Language)
    app.add_middleware(middleware.Limits)
    app.add_middleware(middleware.Metering)
    return app
