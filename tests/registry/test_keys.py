"""API keys: made once, found by their hash, scoped, expiring, revoked."""

import datetime as dt

import pytest
from sqlalchemy.orm import Session

from registry import keys
from registry.errors import Conflict, Invalid, NotFound, Refused
from registry.models.base import utcnow
from tests.factories import make_user


def test_a_key_is_told_once_and_only_its_hash_is_kept(session: Session) -> None:
    user = make_user(session)
    made = keys.make(session, user, "  my   notebook ")
    assert made.token.startswith("grow_")
    assert len(made.token) > 40
    assert made.key.name == "my notebook"
    kept = " ".join(str(getattr(made.key, column.name)) for column in made.key.__table__.columns)
    assert made.token not in kept
    assert made.token.startswith(made.key.prefix)
    found = keys.find_key(session, made.token)
    assert found is not None
    assert (found.id, found.user.id) == (made.key.id, user.id)


def test_another_token_opens_nothing(session: Session) -> None:
    made = keys.make(session, make_user(session), "one")
    assert keys.find_key(session, made.token[:-1]) is None
    assert keys.find_key(session, "") is None


def test_a_revoked_or_expired_key_or_a_disabled_account_is_not_found(session: Session) -> None:
    user = make_user(session)
    revoked, expired, kept = (keys.make(session, user, name, days=7) for name in ("a", "b", "c"))
    keys.revoke(session, user, revoked.key.id)
    expired.key.expires_at = utcnow() - dt.timedelta(seconds=1)
    session.flush()
    assert keys.find_key(session, revoked.token) is None
    assert keys.find_key(session, expired.token) is None
    assert keys.find_key(session, kept.token) is not None
    assert [key.name for key in keys.list_keys(session, user)] == ["c"]
    assert set(keys.names(session, user).values()) == {"a", "b", "c"}
    user.disabled_at = utcnow()
    session.flush()
    assert keys.find_key(session, kept.token) is None


def test_a_key_may_only_what_it_was_made_for(session: Session) -> None:
    key = keys.make(session, make_user(session), "reader", ["models", "everything"]).key
    assert keys.may(key, "models")
    assert not keys.may(key, "completions")


@pytest.mark.parametrize(("name", "scopes", "days"), [("", keys.SCOPES, None), ("x" * 61, keys.SCOPES, None)])
def test_a_key_needs_a_name(session: Session, name: str, scopes: tuple[str, ...], days: int | None) -> None:
    with pytest.raises(Invalid, match="name"):
        keys.make(session, make_user(session), name, scopes, days=days)


def test_a_key_needs_a_scope_and_a_sensible_end(session: Session) -> None:
    user = make_user(session)
    with pytest.raises(Invalid, match="used for"):
        keys.make(session, user, "none", ["unknown"])
    with pytest.raises(Invalid, match="days"):
        keys.make(session, user, "none", days=0)


def test_there_is_a_number_of_keys_that_is_enough(session: Session) -> None:
    user = make_user(session)
    for number in range(keys.MAX_KEYS):
        keys.make(session, user, str(number))
    with pytest.raises(Conflict, match="Revoke one"):
        keys.make(session, user, "one more")


def test_who_is_banned_makes_no_keys(session: Session) -> None:
    user = make_user(session)
    user.banned_at = utcnow()
    with pytest.raises(Refused, match="may not ask"):
        keys.make(session, user, "mine")


def test_last_used_is_written_every_few_minutes(session: Session) -> None:
    key = keys.make(session, make_user(session), "mine").key
    assert keys.needs_touch(key)
    keys.touch(session, key.id)
    session.refresh(key)
    first = key.last_used_at
    assert first is not None
    keys.touch(session, key.id)
    session.refresh(key)
    assert key.last_used_at == first
    assert not keys.needs_touch(key)
    key.last_used_at = utcnow() - keys.USED_EVERY - dt.timedelta(seconds=1)
    session.flush()
    keys.touch(session, key.id)
    session.refresh(key)
    assert key.last_used_at > first


def test_another_persons_key_cannot_be_revoked(session: Session) -> None:
    made = keys.make(session, make_user(session), "mine")
    with pytest.raises(NotFound):
        keys.revoke(session, make_user(session), made.key.id)
    assert keys.find_key(session, made.token) is not None
