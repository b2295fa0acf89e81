"""Sharing by one link what several checkpoints were asked together."""

import pytest
from sqlalchemy.orm import Session

from registry import ages, chats, conversations, grouplinks
from registry.errors import Conflict, NotFound
from registry.models import ChatGroup, User
from registry.models.base import FINISHED
from tests.factories import make_checkpoint, make_run, make_user


@pytest.fixture
def user(session: Session) -> User:
    """Who asks."""
    return make_user(session)


@pytest.fixture
def group(session: Session, user: User) -> ChatGroup:
    """Three columns that still wait."""
    run = make_run(session)
    asked = [make_checkpoint(session, run, step) for step in (0, 100, 200)]
    return loaded(session, user, ages.open_side(session, user, asked, "one", {}))


def loaded(session: Session, user: User, group: ChatGroup) -> ChatGroup:
    """The group as its owner finds it."""
    session.flush()
    session.expire_all()
    return chats.get_group(session, user, group.public_id)


def answered(session: Session, user: User, group: ChatGroup) -> ChatGroup:
    """All that waits is answered."""
    group = loaded(session, user, group)
    for chat in group.chats:
        for turn in chat.turns:
            if turn.status in chats.OPEN:
                chats.close_turn(session, turn.id, status=FINISHED, answer=f"{turn.prompt}, said {chat.place}")
    return loaded(session, user, group)


def test_nothing_is_shared_before_everything_is_written(session: Session, user: User, group: ChatGroup) -> None:
    with pytest.raises(Conflict, match="no answer to share"):
        grouplinks.share(group)
    chats.close_turn(session, group.chats[0].turns[0].id, status=FINISHED, answer="first")
    with pytest.raises(Conflict, match="still being written"):
        grouplinks.share(loaded(session, user, group))


def test_the_link_shows_all_columns_as_they_stood_until_it_is_ended(
    session: Session, user: User, group: ChatGroup
) -> None:
    group = answered(session, user, group)
    token = grouplinks.share(group)
    assert grouplinks.link(loaded(session, user, group)) == token
    ages.ask_all(session, group, "two", {})
    group = answered(session, user, group)
    found = grouplinks.shared(session, token)
    assert (found.title, found.kind) == ("one", "side")
    assert [[turn.answer for turn in column.turns] for column in found.columns] == [
        ["one, said 0"], ["one, said 1"], ["one, said 2"],
    ]  # fmt: skip

    newer = grouplinks.share(group)
    session.flush()
    with pytest.raises(NotFound):
        grouplinks.shared(session, token)
    assert [len(column.turns) for column in grouplinks.shared(session, newer).columns] == [2, 2, 2]

    grouplinks.unshare(group)
    session.flush()
    assert grouplinks.link(group) is None
    with pytest.raises(NotFound):
        grouplinks.shared(session, newer)


def test_a_column_that_was_shared_alone_shows_no_other(session: Session, user: User, group: ChatGroup) -> None:
    group = answered(session, user, group)
    token = conversations.share(session, group.chats[0])
    conversations.share(session, group.chats[1])
    session.flush()
    assert grouplinks.link(group) is None
    with pytest.raises(NotFound):
        grouplinks.shared(session, token)


def test_a_deleted_group_is_shared_no_more(session: Session, user: User, group: ChatGroup) -> None:
    group = answered(session, user, group)
    token = grouplinks.share(group)
    conversations.clear(session, group)
    session.flush()
    with pytest.raises(NotFound):
        grouplinks.shared(session, token)
