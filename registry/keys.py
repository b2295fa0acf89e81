"""Verbs of API keys: secrets that stand for their owner, of which only the hash is kept."""

import datetime as dt
import hashlib
import secrets
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from sqlalchemy import ColumnElement, select, update
from sqlalchemy.orm import Session, joinedload

from registry.errors import Conflict, Invalid, NotFound, Refused
from registry.models import ApiKey, User
from registry.models.base import utcnow

MODELS, COMPLETIONS, PUSH = "models", "completions", "push"
SCOPES = (MODELS, COMPLETIONS, PUSH)
"""`push` brings checkpoints in, by the Hub protocol or `grow push --site`; only administrators and publishers may."""
USUAL = (MODELS, COMPLETIONS)
PREFIX = "grow_"
SECRET_BYTES = 32
SHOWN_CHARS = len(PREFIX) + 6
"""So many letters of a key are kept in the open, to know it by."""
MAX_KEYS = 20
MAX_NAME_CHARS = 60
MAX_DAYS = 3_650
USED_EVERY = dt.timedelta(minutes=5)
"""How often "last used" is written: not at every request."""


class NewKey(NamedTuple):
    """A key that was made; its `token` is told now and never again."""

    key: ApiKey
    token: str


def make(session: Session, user: User, name: str, scopes: Iterable[str] = USUAL, *, days: int | None = None) -> NewKey:
    """Make a key for a person; without `days` it does not expire.

    Raises:
        Invalid: no name or an overlong one, no scope or an unknown one, or a number of days that makes no sense.
        Conflict: there are too many keys.
        Refused: the person is banned.
    """
    name, wanted = " ".join(name.split()), [scope for scope in SCOPES if scope in set(scopes)]
    if not 1 <= len(name) <= MAX_NAME_CHARS:
        raise Invalid("A key has a name of 1 to %(limit)s characters, by which you know it.", limit=MAX_NAME_CHARS)
    if not wanted:
        raise Invalid("Choose what the key may be used for.")
    if days is not None and not 1 <= days <= MAX_DAYS:
        raise Invalid("A key is valid for 1 to %(limit)s days, or without end.", limit=MAX_DAYS)
    check_allowed(user)
    if len(list_keys(session, user)) >= MAX_KEYS:
        raise Conflict("You have %(limit)s keys, as many as there can be. Revoke one first.", limit=MAX_KEYS)
    token = PREFIX + secrets.token_urlsafe(SECRET_BYTES)
    key = ApiKey(user_id=user.id, name=name, prefix=token[:SHOWN_CHARS], key_hash=_hash(token), scopes=",".join(wanted))
    key.expires_at = None if days is None else utcnow() + dt.timedelta(days=days)
    session.add(key)
    session.flush()  # the page names it by its id
    return NewKey(key, token)


def find_key(session: Session, token: str) -> ApiKey | None:
    """The valid key of a token, with its user; None for a foreign, expired or revoked one, or a disabled account."""
    query = select(ApiKey).where(ApiKey.key_hash == _hash(token), _is_valid())
    key = session.scalar(query.options(joinedload(ApiKey.user)))
    return key if key is not None and key.user.disabled_at is None else None


def check_allowed(user: User) -> None:
    """Whether a person may ask models anything.

    Raises:
        Refused: they are banned.
    """
    if user.banned_at is not None:
        raise Refused("This account may not ask models anything any more. Reading stays possible.")


def may(key: ApiKey, scope: str) -> bool:
    """Whether a key may be used for something."""
    return scope in key.scopes.split(",")


def touch(session: Session, key_id: int) -> None:
    """Note that a key was used; cheap to call often."""
    stale = ApiKey.last_used_at.is_(None) | (ApiKey.last_used_at < utcnow() - USED_EVERY)
    session.execute(update(ApiKey).where(ApiKey.id == key_id, stale).values(last_used_at=utcnow()))


def needs_touch(key: ApiKey) -> bool:
    """Whether `touch` would write anything."""
    return key.last_used_at is None or key.last_used_at < utcnow() - USED_EVERY


def list_keys(session: Session, user: User) -> Sequence[ApiKey]:
    """A person's valid keys, the newest first."""
    query = select(ApiKey).where(ApiKey.user_id == user.id, _is_valid())
    return session.scalars(query.order_by(ApiKey.id.desc())).all()


def names(session: Session, user: User) -> dict[int, str]:
    """What a person calls or called each of their keys, revoked ones too, by id."""
    rows = session.execute(select(ApiKey.id, ApiKey.name).where(ApiKey.user_id == user.id))
    return {row.id: row.name for row in rows}


def revoke(session: Session, user: User, key_id: int) -> None:
    """End a key.

    Raises:
        NotFound: this person has no such key.
    """
    key = session.get(ApiKey, key_id)
    if key is None or key.user_id != user.id:
        raise NotFound("There is no such key.")
    key.revoked_at = key.revoked_at or utcnow()


def _is_valid() -> ColumnElement[bool]:
    return ApiKey.revoked_at.is_(None) & (ApiKey.expires_at.is_(None) | (ApiKey.expires_at > utcnow()))


def _hash(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()
