"""Addresses that stand for a permission: the client sends a file's bytes to them without its key."""

from typing import NamedTuple

from fastapi import Request
from itsdangerous import BadSignature, SignatureExpired, URLSafeTimedSerializer

from registry.settings import get_settings
from server.hubapi.errors import HubError
from server.i18n import gettext

VALID_SECONDS = 12 * 3_600
"""From being given until the upload begins; a large file may take longer."""


class Grant(NamedTuple):
    """What somebody may send."""

    user_id: int
    sha256: str
    size: int
    """Of the whole content, in bytes."""
    part: int = 0
    """Which of its parts; 0: all of it."""


def sign(grant: Grant) -> str:
    """A token for it."""
    return _serializer().dumps(list(grant))


def read(token: str) -> Grant:
    """What a token permits.

    Raises:
        HubError: 403, expired or never made here.
    """
    try:
        found = Grant(*_serializer().loads(token, max_age=VALID_SECONDS))
    except SignatureExpired as error:
        raise HubError(403, gettext("This upload address has expired. Begin the upload again.")) from error
    except BadSignature as error:
        raise HubError(403, gettext("This upload address was not made here.")) from error
    return found


def base_url(request: Request) -> str:
    """Where the client reaches this site."""
    url = request.base_url
    if get_settings().secure_cookies:  # a proxy speaks HTTPS for this process
        url = url.replace(scheme="https")
    return str(url).rstrip("/")


def _serializer() -> URLSafeTimedSerializer:
    return URLSafeTimedSerializer(get_settings().secret, salt="hub-upload")
