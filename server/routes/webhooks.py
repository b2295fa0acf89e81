"""The administrators' pages of webhooks: adding and changing them, testing them, and what was sent to each."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated

from fastapi import APIRouter, Form, Request, Response
from fastapi.responses import HTMLResponse, RedirectResponse
from sqlalchemy.orm import Session

from registry import db, webhooks
from registry.errors import NotFound, RegistryError
from registry.models import Webhook, WebhookDelivery
from registry.settings import get_settings
from server import auth, csrf, render
from server.deps import ReadSession, WriteSession
from server.i18n import error_text

EVENTS = webhooks.EVENTS
router = APIRouter(prefix="/admin/webhooks", route_class=csrf.FormRoute, include_in_schema=False)


@dataclass(frozen=True)
class WebhooksPage:
    """Context of admin/webhooks.html."""

    webhooks: Sequence[Webhook]
    counts: Mapping[int, Mapping[str, int]]
    """Deliveries of each by status."""
    formats: Sequence[str]
    events: Sequence[str]
    languages: Sequence[str]
    has_address: bool
    """Whether messages can link back to this site."""
    chosen: Sequence[str] = EVENTS
    typed: Mapping[str, str] = field(default_factory=dict)
    done: str = ""
    error: str = ""


@dataclass(frozen=True)
class WebhookPage:
    """Context of admin/webhook.html."""

    webhook: Webhook
    deliveries: Sequence[WebhookDelivery]
    events: Sequence[str]
    languages: Sequence[str]
    chosen: Sequence[str]
    new_secret: str = ""
    """Told this once."""
    done: str = ""
    error: str = ""


@dataclass(frozen=True)
class LogFragment:
    """Context of admin/_deliveries.html."""

    webhook: Webhook
    deliveries: Sequence[WebhookDelivery]


@router.get("")
def show_webhooks(request: Request, session: ReadSession, _admin: auth.Admin, done: str = "") -> HTMLResponse:
    """All of them, and a form for another."""
    return _list(request, session, done=done)


@router.post("")
def make(
    request: Request,
    admin: auth.Admin,
    name: Annotated[str, Form()] = "",
    url: Annotated[str, Form()] = "",
    format: Annotated[str, Form()] = webhooks.JSON,
    secret: Annotated[str, Form()] = "",
    language: Annotated[str, Form()] = "en",
    event: Annotated[list[str] | None, Form()] = None,
) -> Response:
    """Add one and show its secret, once."""
    chosen = event or []
    try:
        with db.transaction() as session:
            made = webhooks.make(
                session, admin, name=name, url=url, format=format, events=chosen, language=language, secret=secret
            )
    except RegistryError as error:
        # The address and the secret are not sent back: they may be secrets, and a page is kept by browsers.
        typed = {"name": name[:100], "format": format, "language": language}
        with db.read_session() as session:
            return _list(request, session, typed=typed, chosen=chosen, error=error_text(error), status=422)
    with db.read_session() as session:
        return _one(request, session, made.webhook.id, new_secret=made.secret, done="made")


@router.get("/{webhook_id}")
def show_webhook(
    request: Request, session: ReadSession, _admin: auth.Admin, webhook_id: int, done: str = ""
) -> HTMLResponse:
    """One with its log."""
    return _one(request, session, webhook_id, done=done)


@router.get("/{webhook_id}/log")
def show_log(request: Request, session: ReadSession, _admin: auth.Admin, webhook_id: int) -> HTMLResponse:
    """The part of that page which changes."""
    webhook = webhooks.get_webhook(session, webhook_id)
    context = LogFragment(webhook, webhooks.list_deliveries(session, webhook))
    return render.page(request, "admin/_deliveries.html", context)


@router.post("/{webhook_id}")
def change(
    request: Request,
    admin: auth.Admin,
    webhook_id: int,
    name: Annotated[str, Form()] = "",
    url: Annotated[str, Form()] = "",
    secret: Annotated[str, Form()] = "",
    language: Annotated[str, Form()] = "en",
    event: Annotated[list[str] | None, Form()] = None,
) -> Response:
    """Change what it is told, and where."""
    try:
        with db.transaction() as session:
            webhook = webhooks.get_webhook(session, webhook_id)
            webhooks.change(
                session, admin, webhook, name=name, events=event or [], language=language, url=url, secret=secret
            )
    except NotFound:
        raise
    except RegistryError as error:
        with db.read_session() as session:
            return _one(request, session, webhook_id, error=error_text(error), status=422)
    return RedirectResponse(f"/admin/webhooks/{webhook_id}?done=changed", 303)


@router.post("/{webhook_id}/secret")
def renew_secret(request: Request, admin: auth.Admin, webhook_id: int) -> Response:
    """Sign with a new secret from now on, and show it, once."""
    with db.transaction() as session:
        secret = webhooks.renew_secret(session, admin, webhooks.get_webhook(session, webhook_id))
    with db.read_session() as session:
        return _one(request, session, webhook_id, new_secret=secret)


@router.post("/{webhook_id}/ping")
def ping(session: WriteSession, _admin: auth.Admin, webhook_id: int) -> Response:
    """Send a test."""
    webhooks.ping(session, webhooks.get_webhook(session, webhook_id))
    return RedirectResponse(f"/admin/webhooks/{webhook_id}?done=pinged#log", 303)


@router.post("/{webhook_id}/pause")
def pause(session: WriteSession, admin: auth.Admin, webhook_id: int) -> Response:
    """Tell it nothing for now."""
    webhooks.pause(session, admin, webhooks.get_webhook(session, webhook_id))
    return RedirectResponse(f"/admin/webhooks/{webhook_id}?done=paused", 303)


@router.post("/{webhook_id}/resume")
def resume(session: WriteSession, admin: auth.Admin, webhook_id: int) -> Response:
    """Go on."""
    webhooks.resume(session, admin, webhooks.get_webhook(session, webhook_id))
    return RedirectResponse(f"/admin/webhooks/{webhook_id}?done=resumed", 303)


@router.post("/{webhook_id}/delete")
def delete(session: WriteSession, admin: auth.Admin, webhook_id: int) -> Response:
    """Delete it with its log."""
    webhooks.remove(session, admin, webhooks.get_webhook(session, webhook_id))
    return RedirectResponse("/admin/webhooks?done=deleted", 303)


@router.post("/{webhook_id}/deliveries/{delivery_id}/resend")
def resend(session: WriteSession, admin: auth.Admin, webhook_id: int, delivery_id: int) -> Response:
    """Send one again."""
    webhooks.resend(session, admin, webhooks.get_webhook(session, webhook_id), delivery_id)
    return RedirectResponse(f"/admin/webhooks/{webhook_id}?done=resent#log", 303)


def _list(
    request: Request,
    session: Session,
    *,
    typed: Mapping[str, str] | None = None,
    chosen: Sequence[str] = webhooks.EVENTS,
    done: str = "",
    error: str = "",
    status: int = 200,
) -> HTMLResponse:
    context = WebhooksPage(
        webhooks=webhooks.list_webhooks(session),
        counts=webhooks.count_deliveries(session),
        formats=webhooks.FORMATS,
        events=webhooks.EVENTS,
        languages=webhooks.LANGUAGES,
        has_address=bool(get_settings().public_url),
        chosen=chosen,
        typed=typed or {},
        done=done,
        error=error,
    )
    return render.page(request, "admin/webhooks.html", context, status_code=status)


def _one(
    request: Request,
    session: Session,
    webhook_id: int,
    *,
    new_secret: str = "",
    done: str = "",
    error: str = "",
    status: int = 200,
) -> HTMLResponse:
    webhook = webhooks.get_webhook(session, webhook_id)
    context = WebhookPage(
        webhook=webhook,
        deliveries=webhooks.list_deliveries(session, webhook),
        events=webhooks.EVENTS,
        languages=webhooks.LANGUAGES,
        chosen=webhook.events.split(","),
        new_secret=new_secret,
        done=done,
        error=error,
    )
    response = render.page(request, "admin/webhook.html", context, status_code=status)
    if new_secret:
        response.headers["Cache-Control"] = "no-store"
    return response
