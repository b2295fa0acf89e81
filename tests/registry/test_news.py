"""Posts."""

import pytest
from sqlalchemy.orm import Session

from registry import news
from registry.errors import Invalid, NotFound
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
