"""Limits that are changed while the site runs: what is accepted, what goes back, and that every process hears of it."""

from pathlib import Path

import pytest
from sqlalchemy import select
from sqlalchemy.orm import Session

from registry import db, limits
from registry.errors import Invalid, NotFound
from registry.models import AuditEntry, SiteSetting, User
from registry.settings import Settings, get_settings


@pytest.fixture
def admin(session: Session) -> User:
    person = User(name="keeper", name_key="keeper", password_hash="none", role="admin")
    session.add(person)
    session.flush()
    return person


def in_force(session: Session, name: str) -> limits.Limit:
    return next(one for group in limits.list_limits(session).values() for one in group if one.name == name)


def test_every_changeable_limit_is_a_setting_whose_default_may_be_set_again() -> None:
    for name in limits.CHANGEABLE:
        assert limits._checked(name, getattr(Settings(), name)) == getattr(Settings(), name)
    assert not set(limits.FIXED) & set(limits.CHANGEABLE)
    assert set(limits.FIXED) <= set(Settings.model_fields)


def test_a_limit_is_changed_noted_and_taken_back(session: Session, admin: User) -> None:
    before = in_force(session, "chat_limit")
    assert (before.value, before.default, before.change) == ("20/minute", "20/minute", None)
    limits.change(session, admin, "chat_limit", " 3/minute ")
    limits.change(session, admin, "chat_limit", "4/minute")
    session.flush()
    now = in_force(session, "chat_limit")
    assert (now.value, now.default, now.variable) == ("4/minute", "20/minute", "GROW_CHAT_LIMIT")
    assert now.change is not None
    assert now.change.user_id == admin.id
    limits.reset(session, admin, "chat_limit")
    limits.reset(session, admin, "chat_limit")
    session.flush()
    assert in_force(session, "chat_limit").change is None
    trail = session.scalars(select(AuditEntry).order_by(AuditEntry.id)).all()
    assert [(one.action, one.detail["from"], one.detail["to"]) for one in trail] == [
        ("limit_changed", "20/minute", "3/minute"),
        ("limit_changed", "3/minute", "4/minute"),
        ("limit_reset", "4/minute", "20/minute"),
    ]


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("film_frames", "12", 12),
        ("api_tokens_per_day", "2,000,000", 2_000_000),
        ("max_upload_bytes", "1.5 GB", 1_500_000_000),
        ("checkpoints_bytes", "0", 0),
        ("evaluation_budget_seconds", "2.5", 2.5),
        ("milestone_every", "-1", -1),
    ],
)
def test_what_is_typed_becomes_the_settings_own_type(name: str, text: str, value: object) -> None:
    assert limits._parsed(name, text) == value


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("chat_limit", "20", "20/minute"),
        ("chat_limit", "0/minute", "20/minute"),
        ("chat_limit", "20/fortnight", "20/minute"),
        ("film_frames", "1", "whole number from 2"),
        ("film_frames", "many", "whole number from 2"),
        ("film_frames", "9" * 30, "whole number"),
        ("film_frames", "9" * 41, "at most 40"),
        ("average_last", "51", "from 0 to 50"),
        ("slice_seconds", "0", "number from 0"),
        ("slice_seconds", "nan", "number"),
        ("slice_seconds", "inf", "number"),
        ("max_upload_bytes", "-5", "whole number from 1"),
        ("max_upload_bytes", "5 parsecs", "whole number from 1"),
        ("upload_days", "1e9", "36,500"),
    ],
)
def test_what_makes_no_sense_is_refused_with_what_would(name: str, text: str, said: str) -> None:
    with pytest.raises(Invalid, match=said):
        limits._parsed(name, text)


@pytest.mark.parametrize("name", ["secret_key", "redis_url", "run_code", "nothing"])
def test_nothing_else_can_be_changed(session: Session, admin: User, name: str) -> None:
    with pytest.raises(NotFound):
        limits.change(session, admin, name, "1")
    with pytest.raises(NotFound):
        limits.reset(session, admin, name)


def test_a_process_takes_up_changes_within_seconds_and_goes_back_to_its_environment(
    database: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GROW_FILM_FRAMES", "9")
    get_settings.cache_clear()
    limits.refresh()
    assert get_settings().film_frames == 9
    with db.transaction() as session:
        session.add(SiteSetting(name="film_frames", value=5))
        session.add(SiteSetting(name="chat_limit", value="broken"))
        session.add(SiteSetting(name="of_an_older_version", value=1))
    limits.refresh()
    assert get_settings().film_frames == 9  # it has just looked
    monkeypatch.setattr(limits, "FRESH_SECONDS", 0.0)
    limits.refresh()
    assert (get_settings().film_frames, get_settings().chat_limit) == (5, "20/minute")
    with db.transaction() as session:
        session.delete(session.get_one(SiteSetting, "film_frames"))
    limits.refresh()
    assert get_settings().film_frames == 9


def test_a_database_that_is_away_changes_nothing(grow_home: Path) -> None:
    limits.refresh(fresh=True)  # it has no tables
    assert get_settings().chat_limit == "20/minute"
