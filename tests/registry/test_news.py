"""Posts: written, planned, edited, and incidents that last."""

import datetime as dt

import pytest
from sqlalchemy.orm import Session

from registry import news
from registry.errors import Conflict, Invalid, NotFound
from registry.models.base import utcnow
from tests.factories import make_run, make_user


def test_the_newest_post_comes_first_and_can_be_taken_down(session: Session) -> None:
    author, run = make_user(session), make_run(session)
    news.publish_post(session, title="First", body="*hi*", author=author)
    second = news.publish_post(session, title=" Second ", body="", run=run, step=8, kind="incident")
    assert [post.title for post in news.list_posts(session)] == ["Second", "First"]
    assert (second.run_id, second.step) == (run.id, 8)
    news.delete_post(session, second.id)
    session.flush()
    with pytest.raises(NotFound):
        news.get_post(session, second.id)


@pytest.mark.parametrize("fields", [{"title": " "}, {"title": "x" * 161}, {"body": "x" * 50_001}, {"kind": "spam"}])
def test_refuses_what_cannot_be_shown(session: Session, fields: dict[str, str]) -> None:
    with pytest.raises(Invalid):
        news.publish_post(session, **{"title": "t", "body": "", **fields})


def test_incidents_of_some_runs_are_in_the_order_of_their_steps(session: Session) -> None:
    one, other = make_run(session, "one"), make_run(session, "other")
    for title, run, step in (("late", one, 900), ("whole", one, None), ("early", other, 10), ("zero", one, 0)):
        news.publish_post(session, title=title, body="", kind="incident", run=run, step=step)
    news.publish_post(session, title="no incident", body="", run=one, step=5)
    news.publish_post(session, title="of no run", body="", kind="incident")
    found = news.list_incidents(session, [one.id, other.id])
    assert [post.title for post in found] == ["zero", "early", "late", "whole"]
    assert [post.title for post in news.list_incidents(session, [other.id])] == ["early"]


def test_a_planned_post_appears_by_its_time_and_is_announced_once(session: Session) -> None:
    author = make_user(session)
    tomorrow = utcnow() + dt.timedelta(days=1)
    post = news.publish_post(session, title="Soon", body="", author=author, publish_at=tomorrow)
    assert list(news.list_posts(session)) == []
    assert list(news.list_planned(session)) == [post]
    with pytest.raises(NotFound):
        news.shown_post(session, post.id)
    assert list(news.announce_due(session)) == []
    post.published_at = utcnow() - dt.timedelta(seconds=1)
    session.flush()
    assert list(news.announce_due(session)) == [post.id]
    assert list(news.announce_due(session)) == []
    assert list(news.list_posts(session)) == [post]
    with pytest.raises(Invalid, match="a year"):
        news.publish_post(session, title="x", body="", publish_at=utcnow() + dt.timedelta(days=400))


def test_a_planned_post_is_moved_and_published_at_once(session: Session) -> None:
    author = make_user(session)
    post = news.publish_post(session, title="Soon", body="", publish_at=utcnow() + dt.timedelta(days=1))
    later = utcnow() + dt.timedelta(days=2)
    news.edit_post(session, author, post, title="Later", body="", kind="news", publish_at=later)
    assert (post.published_at, post.is_announced) == (later, False)
    news.edit_post(session, author, post, title="Now", body="", kind="news")
    session.flush()
    assert [one.title for one in news.list_posts(session)] == ["Now"]
    assert post.is_announced


def test_an_incident_lasts_until_it_is_resolved(session: Session) -> None:
    author = make_user(session)
    post = news.publish_post(session, title="Down", body="", author=author, kind="incident", lasts=True)
    past = news.publish_post(session, title="It spiked", body="", author=author, kind="incident")
    assert list(news.open_incidents(session)) == [post]
    news.resolve(session, author, post)
    session.flush()
    assert list(news.open_incidents(session)) == []
    with pytest.raises(Conflict):
        news.resolve(session, author, past)
    news.reopen(session, author, post)
    session.flush()
    assert list(news.open_incidents(session)) == [post]
    with pytest.raises(Conflict):
        news.reopen(session, author, post)
