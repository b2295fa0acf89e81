"""Accounts: passwords, and logins that can be ended."""

import datetime as dt

import pytest
from sqlalchemy import select
from sqlalchemy.orm import Session

from registry import accounts
from registry.errors import Conflict, Invalid, NotFound, Refused
from registry.models import LoginSession
from registry.models.base import utcnow
from tests.factories import make_user


class TestRegister:
    @pytest.mark.parametrize("name", ["ada", "原子回声", "Ada Lovelace", "a.b-c_d"])
    def test_accepts_names_of_any_script(self, session: Session, name: str) -> None:
        assert accounts.register(session, f"  {name} ", "correct horse").name == name

    @pytest.mark.parametrize("name", ["a", "x" * 41, "a<b>", "a\nb", ""])
    def test_refuses_names_that_would_confuse(self, session: Session, name: str) -> None:
        with pytest.raises(Invalid):
            accounts.register(session, name, "correct horse")

    def test_names_differing_in_case_or_width_are_one(self, session: Session) -> None:
        make_user(session, "Ada")
        for other in ("ada", "ＡＤＡ"):
            with pytest.raises(Conflict, match="is taken"):
                make_user(session, other)

    @pytest.mark.parametrize("password", ["short", "x" * 257])
    def test_refuses_passwords_too_short_or_too_long(self, session: Session, password: str) -> None:
        with pytest.raises(Invalid):
            accounts.register(session, "ada", password)

    def test_keeps_only_an_argon2id_hash(self, session: Session) -> None:
        assert make_user(session).password_hash.startswith("$argon2id$")


class TestAuthenticate:
    def test_right_name_and_password(self, session: Session) -> None:
        user = make_user(session, "Ada", password="correct horse")
        assert accounts.authenticate(session, " ada", "correct horse").id == user.id

    def test_says_the_same_whichever_part_is_wrong(self, session: Session) -> None:
        make_user(session, "ada", password="correct horse")
        said = set()
        for name, password in (("ada", "wrong"), ("nobody", "correct horse"), ("ada", "x" * 10_000)):
            with pytest.raises(Refused) as refusal:
                accounts.authenticate(session, name, password)
            said.add(str(refusal.value))
        assert len(said) == 1

    def test_a_disabled_account_cannot_log_in(self, session: Session) -> None:
        user = make_user(session, "ada", password="correct horse")
        user.disabled_at = utcnow()
        with pytest.raises(Refused):
            accounts.authenticate(session, "ada", "correct horse")


class TestLoginSessions:
    def test_the_token_finds_its_login_and_is_not_stored(self, session: Session) -> None:
        user = make_user(session)
        token = accounts.open_session(session, user, "Firefox")
        session.flush()
        login = accounts.find_session(session, token)
        assert login is not None
        assert login.user.id == user.id
        assert token not in str(session.execute(select(LoginSession.token_hash, LoginSession.user_agent)).all())
        assert accounts.find_session(session, token + "x") is None

    def test_ends_when_revoked_expired_or_disabled(self, session: Session) -> None:
        user = make_user(session)
        revoked, expired, disabled = (accounts.open_session(session, user) for _ in range(3))
        session.flush()
        first, second, third = accounts.list_sessions(session, user)
        tokens = {
            login.id: token
            for token in (revoked, expired, disabled)
            if (login := accounts.find_session(session, token))
        }
        accounts.revoke(session, user, first.id)
        second.expires_at = utcnow() - dt.timedelta(seconds=1)
        session.flush()
        assert accounts.find_session(session, tokens[first.id]) is None
        assert accounts.find_session(session, tokens[second.id]) is None
        assert accounts.find_session(session, tokens[third.id]) is not None
        user.disabled_at = utcnow()
        session.flush()
        assert accounts.find_session(session, tokens[third.id]) is None

    def test_nobody_revokes_anothers_login(self, session: Session) -> None:
        mine, other = make_user(session), make_user(session)
        accounts.open_session(session, mine)
        session.flush()
        with pytest.raises(NotFound):
            accounts.revoke(session, other, accounts.list_sessions(session, mine)[0].id)

    def test_a_new_password_ends_every_login(self, session: Session) -> None:
        user = make_user(session)
        token = accounts.open_session(session, user)
        session.flush()
        accounts.set_password(session, user, "another password")
        assert accounts.find_session(session, token) is None

    def test_revoking_the_others_keeps_this_one(self, session: Session) -> None:
        user = make_user(session)
        kept, ended = accounts.open_session(session, user), accounts.open_session(session, user)
        session.flush()
        login = accounts.find_session(session, kept)
        assert login is not None
        accounts.revoke_others(session, user, login.id)
        assert accounts.find_session(session, kept) is not None
        assert accounts.find_session(session, ended) is None


def test_create_admin_makes_or_promotes(session: Session) -> None:
    assert not accounts.has_admin(session)
    make_user(session, "ada")
    assert accounts.create_admin(session, "Ada", "another password").is_admin
    assert accounts.authenticate(session, "ada", "another password").is_admin
    assert accounts.create_admin(session, "bob", "another password").is_admin
    assert accounts.count_users(session) == 2


def test_roles_change_but_somebody_stays_administrator(session: Session) -> None:
    first, second = (make_user(session, name, role="admin") for name in ("first", "second"))
    member = make_user(session, "mei")
    accounts.set_role(session, first, member, "publisher")
    assert (member.role, member.may_publish, member.is_admin) == ("publisher", True, False)
    assert [one.name for one in accounts.find_users(session, role="publisher")[0]] == ["mei"]
    accounts.set_role(session, first, second, "member")
    with pytest.raises(Conflict, match="last administrator"):
        accounts.set_role(session, first, first, "member")
    with pytest.raises(Invalid, match="no role"):
        accounts.set_role(session, first, member, "queen")
