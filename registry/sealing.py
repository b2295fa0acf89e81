"""Sealing what has to be read again but never shown: the secrets and addresses of webhooks.

Fernet (AES-128-CBC with HMAC-SHA256) under a key derived from the site's own secret, so that a copy of the database
alone opens nothing.
"""

import base64

from cryptography.fernet import Fernet, InvalidToken
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from registry.errors import Invalid
from registry.settings import get_settings


def seal(text: str) -> str:
    """The text as nobody reads it without the site's secret."""
    return _fernet().encrypt(text.encode()).decode()


def unseal(sealed: str) -> str:
    """The text again.

    Raises:
        Invalid: it was sealed with another secret of the site.
    """
    try:
        return _fernet().decrypt(sealed.encode()).decode()
    except InvalidToken:
        raise Invalid("This was sealed with another secret key of the site (GROW_SECRET_KEY): enter it anew.") from None


def _fernet() -> Fernet:
    derived = HKDF(SHA256(), 32, salt=None, info=b"grow sealing").derive(get_settings().secret.encode())
    return Fernet(base64.urlsafe_b64encode(derived))
