"""Verbs of accounts: passwords (argon2id) and login sessions that can be revoked."""

import datetime as dt
import hashlib
import secrets
import unicodedata
from collections.abc import Sequence
from functools import lru_cache

from argon2 import PasswordHasher
from argon2.exceptions import VerifyMismatchError
from sqlalchemy import func, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session, joinedload

from registry import audit
from registry.errors import Conflict, Invalid, NotFound, Refused
from registry.models import LoginSession, User
from registry.models.base import utcnow

MEMBER, PUBLISHER, ADMIN = "member", "publisher", "admin"
ROLES = (MEMBER, PUBLISHER, ADMIN)
"""Publishers may bring checkpoints in, by browser and with keys of the scope `push`."""
SESSION_DAYS = 30
MIN_PASSWORD_CHARS = 10
MAX_PASSWORD_CHARS = 256
SEEN_EVERY = dt.timedelta(minutes=5)
"""How often "last seen" is written: not on every request."""

_hasher = PasswordHasher()  # argon2id with the library's current (RFC 9106) parameters


@lru_cache
def _nobody() -> str:
    """Verified against when the name is unknown, so that both answers take the same time."""
    return _hasher.hash(secrets.token_hex())


def register(session: Session, name: str, password: str, role: str = "member") -> User:
    """Make an account.

    Raises:
        Invalid: the name or the password cannot be used.
        Conflict: the name is taken.
    """
    name = unicodedata.normalize("NFKC", name).strip()
    _check_name(name)
    check_password(password)
    user = User(name=name, name_key=name.casefold(), password_hash=_hasher.hash(password), role=role)
    try:
        with session.begin_nested():
            session.add(user)
    except IntegrityError:
        raise Conflict("The name '%(name)s' is taken. Choose another.", name=name) from None
    return user


def _check_name(name: str) -> None:
    if not 2 <= len(name) <= 40:
        raise Invalid("A name has 2 to 40 characters.")
    if not all(character.isalnum() or character in "._- " for character in name):
        raise Invalid("A name holds letters, digits, spaces, dots, dashes and underscores.")


def check_password(password: str) -> None:
    """Whether a password may be used.

    Raises:
        Invalid: too short or too long.
    """
    if len(password) < MIN_PASSWORD_CHARS:
        raise Invalid("A password has at least %(limit)s characters.", limit=MIN_PASSWORD_CHARS)
    if len(password) > MAX_PASSWORD_CHARS:
        raise Invalid("A password has at most %(limit)s characters.", limit=MAX_PASSWORD_CHARS)


def authenticate(session: Session, name: str, password: str) -> User:
    """The account of this name and password.

    Raises:
        Refused: with the same words whichever of the two was wrong.
    """
    key = unicodedata.normalize("NFKC", name).strip().casefold()
    user = session.scalar(select(User).where(User.name_key == key))
    try:
        _hasher.verify(user.password_hash if user else _nobody(), password[: MAX_PASSWORD_CHARS + 1])
    except VerifyMismatchError:
        user = None
    if user is None or user.disabled_at is not None:
        raise Refused("The name or the password is wrong.")
    if _hasher.check_needs_rehash(user.password_hash):
        user.password_hash = _hasher.hash(password)
    return user


def set_password(session: Session, user: User, password: str) -> None:
    """Change the password and end every login with the old one.

    Raises:
        Invalid: the password cannot be used.
    """
    check_password(password)
    user.password_hash = _hasher.hash(password)
    session.execute(_open_sessions(user).values(revoked_at=utcnow()))


def create_admin(session: Session, name: str, password: str) -> User:
    """Make an administrator, or make the account of that name one and set its password."""
    user = session.scalar(select(User).where(User.name_key == name.strip().casefold()))
    if user is None:
        return register(session, name, password, role="admin")
    set_password(session, user, password)
    user.role = "admin"
    return user


def set_role(session: Session, admin: User, user: User, role: str) -> None:
    """Make somebody a member, a publisher or an administrator.

    Raises:
        Invalid: there is no such role.
        Conflict: nobody would administer the site any more.
    """
    if role not in ROLES:
        raise Invalid("There is no role '%(name)s'. Roles: %(known)s.", name=role[:40], known=", ".join(ROLES))
    # Locked: of two administrators who each take the other's role at once, the second one is refused.
    admins = select(User.id).where(User.role == ADMIN, User.disabled_at.is_(None)).order_by(User.id)
    others = set(session.scalars(admins.with_for_update())) - {user.id}
    session.refresh(user)
    if user.role == role:
        return
    if user.role == ADMIN and not others:
        raise Conflict("%(name)s is the last administrator: make somebody else one first.", name=user.name)
    audit.note(session, admin, "role_changed", f"user:{user.id}", {"from": user.role, "to": role})
    user.role = role


def count_users(session: Session) -> int:
    """How many people have registered."""
    return session.scalar(select(func.count(User.id))) or 0


def list_users(session: Session, limit: int = 50) -> Sequence[User]:
    """Who registered, the newest first."""
    return session.scalars(select(User).order_by(User.id.desc()).limit(limit)).all()


def find_users(
    session: Session, search: str = "", *, role: str = "", page: int = 1, size: int = 50
) -> tuple[Sequence[User], int]:
    """One page of who registered, the newest first, whose name holds `search`; and how many there are in all."""
    query = select(User).where(User.role == role) if role else select(User)
    if key := unicodedata.normalize("NFKC", search).strip().casefold():
        query = query.where(User.name_key.contains(key, autoescape=True))
    total = session.scalar(select(func.count()).select_from(query.subquery())) or 0
    shown = query.order_by(User.id.desc()).limit(size).offset((max(1, page) - 1) * size)
    return session.scalars(shown).all(), total


def get_user(session: Session, user_id: int) -> User:
    """The account of that number.

    Raises:
        NotFound: there is none.
    """
    user = session.get(User, user_id)
    if user is None:
        raise NotFound("There is no account with the number %(user_id)s.", user_id=user_id)
    return user


def has_admin(session: Session) -> bool:
    """Whether anyone can administer the site yet."""
    return session.scalar(select(User.id).where(User.role == "admin").limit(1)) is not None


def check_may_ask(user: User) -> None:
    """Whether this person may ask models anything.

    Raises:
        Refused: an administrator has taken that away; says why.
    """
    if user.banned_at is not None:
        raise Refused(
            "You may not ask models anything here any more. The reason given: %(reason)s", reason=user.ban_reason or "–"
        )


def open_session(session: Session, user: User, user_agent: str = "") -> str:
    """Log in; returns the token for the cookie, of which only the hash is kept."""
    token = secrets.token_urlsafe(32)
    expires = utcnow() + dt.timedelta(days=SESSION_DAYS)
    session.add(LoginSession(token_hash=_hash(token), user_id=user.id, user_agent=user_agent[:255], expires_at=expires))
    return token


def find_session(session: Session, token: str) -> LoginSession | None:
    """The valid login of a cookie, with its user; None for a foreign, expired or revoked one."""
    query = select(LoginSession).where(
        LoginSession.token_hash == _hash(token),
        LoginSession.revoked_at.is_(None),
        LoginSession.expires_at > utcnow(),
    )
    login = session.scalar(query.options(joinedload(LoginSession.user)))
    return login if login is not None and login.user.disabled_at is None else None


def touch_session(session: Session, login_id: int) -> None:
    """Note that a login was used; cheap to call often."""
    stale = LoginSession.last_seen_at < utcnow() - SEEN_EVERY
    session.execute(update(LoginSession).where(LoginSession.id == login_id, stale).values(last_seen_at=utcnow()))


def list_sessions(session: Session, user: User) -> Sequence[LoginSession]:
    """A person's open logins, the newest first."""
    query = select(LoginSession).where(
        LoginSession.user_id == user.id, LoginSession.revoked_at.is_(None), LoginSession.expires_at > utcnow()
    )
    return session.scalars(query.order_by(LoginSession.last_seen_at.desc())).all()


def revoke(session: Session, user: User, login_id: int) -> None:
    """End one login.

    Raises:
        NotFound: this person has no such login.
    """
    login = session.get(LoginSession, login_id)
    if login is None or login.user_id != user.id:
        raise NotFound("There is no such login.")
    login.revoked_at = login.revoked_at or utcnow()


def revoke_others(session: Session, user: User, kept_login_id: int) -> None:
    """End every login but this one."""
    session.execute(_open_sessions(user).where(LoginSession.id != kept_login_id).values(revoked_at=utcnow()))


def _open_sessions(user: User):  # type: ignore[no-untyped-def]  # SQLAlchemy's Update is not generic
    return update(LoginSession).where(LoginSession.user_id == user.id, LoginSession.revoked_at.is_(None))


def _hash(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()
