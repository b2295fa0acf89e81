"""Forms that only this site's own pages can send.

Three fences: browsers say where a request comes from (Sec-Fetch-Site, Origin); every page carries
a token signed with the site's key; and the token is bound to a cookie of the same browser, the
login's where there is one. A token taken from another browser is worth nothing.
"""

import hashlib
import secrets
from collections.abc import Callable, Coroutine
from typing import Any
from urllib.parse import urlsplit

from fastapi import HTTPException, Request, Response
from fastapi.routing import APIRoute
from itsdangerous import BadSignature, URLSafeSerializer

from registry.settings import get_settings
from server.i18n import gettext

SESSION_COOKIE = "session"
VISITOR_COOKIE = "visitor"
"""Binds the forms of people who are not logged in; set by the pages that have such forms."""
FIELD = "csrf_token"
HEADER = "x-csrf-token"
SAFE_METHODS = ("GET", "HEAD", "OPTIONS")
MAX_FORM_BYTES = 1_000_000
"""Of forms without files; uploads have a limit of their own."""


class FormRoute(APIRoute):
    """A route whose unsafe methods are answered only after the checks of this module."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """The handler behind the checks; they come first because FastAPI reads the form before any dependency."""
        handle = super().get_route_handler()

        async def guarded(request: Request) -> Response:
            if request.method not in SAFE_METHODS:
                check_origin(request)
                _check_length(request)
                sent = request.headers.get(HEADER) or (await request.form()).get(FIELD)
                check_token(request, sent if isinstance(sent, str) else "")
            return await handle(request)

        return guarded


def token(request: Request) -> str:
    """A token for the forms of this browser; empty for one without any cookie of ours."""
    binding = _binding(request)
    # The random part makes each page's token different: nothing to be guessed from compressed sizes.
    return _serializer().dumps([secrets.token_hex(8), binding]) if binding else ""


def ensure_visitor(request: Request) -> str:
    """The value of this browser's visitor cookie, made up where it has none yet."""
    if not hasattr(request.state, "visitor"):
        request.state.visitor = request.cookies.get(VISITOR_COOKIE) or secrets.token_urlsafe(18)
    return str(request.state.visitor)


def check_origin(request: Request) -> None:
    """Refuse what another site's page sent; programs send neither header and pass.

    Raises:
        HTTPException: 403.
    """
    site = request.headers.get("sec-fetch-site", "same-origin")
    origin = request.headers.get("origin")
    foreign = origin is not None and urlsplit(origin).netloc != request.headers.get("host", "")
    if foreign or site not in ("same-origin", "none"):
        raise HTTPException(403, gettext("This form was sent from another site."))


def check_token(request: Request, sent: str) -> None:
    """Refuse a token that was not made for this browser.

    Raises:
        HTTPException: 403.
    """
    binding = _binding(request)
    try:
        content = _serializer().loads(sent)
    except BadSignature:
        content = None
    if not (binding and isinstance(content, list) and len(content) == 2 and content[1] == binding):
        raise HTTPException(403, gettext("This form has expired. Load the page again and repeat what you did."))


def _check_length(request: Request) -> None:
    length = request.headers.get("content-length", "")
    if not length.isdigit():
        raise HTTPException(411, gettext("The request does not say how long it is."))
    if int(length) > MAX_FORM_BYTES:
        raise HTTPException(413, gettext("That is more text than any form here takes."))


def _binding(request: Request) -> str:
    if login := request.cookies.get(SESSION_COOKIE):
        return "login " + hashlib.sha256(login.encode()).hexdigest()[:32]
    visitor = getattr(request.state, "visitor", None) or request.cookies.get(VISITOR_COOKIE)
    return f"visitor {visitor}" if visitor else ""


def _serializer() -> URLSafeSerializer:
    return URLSafeSerializer(get_settings().secret, salt="form")
