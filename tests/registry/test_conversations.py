"""The history as the registry lists it: one's own, the newest first, groups as one, shared by link."""

import datetime as dt

import pytest
from sqlalchemy.orm import Session

from registry import chats, conversations
from registry.errors import Conflict, Invalid, NotFound
from registry.models import Chat, ChatGroup, User
from registry.models.base import FINISHED, utcnow
from tests.factories import make_checkpoint, make_run, make_user


@pytest.fixture
def user(session: Session) -> User:
    """Whose conversations they are."""
    return make_user(session)


@pytest.fixture
def chat(session: Session, user: User) -> Chat:
    """A thread with one answer."""
    return talk(session, user, "To be", "or 100% not")


def talk(session: Session, user: User, prompt: str, answer: str) -> Chat:
    """A thread with one answer, with all its turns loaded."""
    run = session.info.setdefault("run", None) or make_run(session)
    session.info["run"] = run
    step = session.info["step"] = session.info.get("step", 0) + 1
    made = chats.open_chat(session, user, make_checkpoint(session, run, step))
    made.title = prompt
    chats.add_written(session, made, {"prompt": prompt, "answer": answer, "status": FINISHED}, after=None)
    session.flush()
    session.expire(made)
    return chats.get_chat(session, user, made.public_id)


def titles(session: Session, user: User, search: str = "", **paging: int) -> list[str]:
    """What the history lists."""
    return [entry.title for entry in conversations.history(session, user, search, **paging).entries]


def test_search_takes_words_as_they_stand(session: Session, user: User, chat: Chat) -> None:
    talk(session, user, "other", "1000 not")
    assert titles(session, user, "100%") == ["To be"]
    assert titles(session, user, "NOT") == ["other", "To be"]
    assert titles(session, make_user(session), "not") == []


def test_pages_neither_miss_nor_repeat(session: Session, user: User) -> None:
    for number in range(7):
        talk(session, user, f"{number}", "x")
    pages = [titles(session, user, page=page, size=3) for page in range(3)]
    assert pages == [["6", "5", "4"], ["3", "2", "1"], ["0"]]
    assert not conversations.history(session, user, page=2, size=3).has_more


def test_a_group_is_one_entry_found_by_what_its_columns_say(session: Session, user: User, chat: Chat) -> None:
    group = chats.open_group(session, user, "side", [chat.checkpoint], "columns")
    column = session.query(Chat).filter_by(group_id=group.id).one()
    chats.add_written(session, column, {"prompt": "p", "answer": "rare word", "status": FINISHED}, after=None)
    [entry] = conversations.history(session, user, "rare").entries
    assert (entry.title, entry.address) == ("columns", f"/chat/side/{group.public_id}")
    conversations.clear(session, conversations.find(session, user, group.public_id))
    session.flush()
    assert (titles(session, user), column.cleared_at is None) == (["To be"], False)
    conversations.restore(session, user, group.public_id)
    assert titles(session, user) == ["columns", "To be"]
    assert column.cleared_at is None
    assert isinstance(conversations.find(session, user, group.public_id), ChatGroup)


def test_a_deletion_is_final_after_an_hour(session: Session, user: User, chat: Chat) -> None:
    conversations.clear(session, chat)
    chat.cleared_at = utcnow() - conversations.UNDO - dt.timedelta(seconds=1)
    session.flush()
    with pytest.raises(NotFound):
        conversations.restore(session, user, chat.public_id)


def test_a_title_is_one_short_line(session: Session, chat: Chat) -> None:
    conversations.rename(session, chat, "  a\nb ")
    assert chat.title == "a b"
    for title in ("  ", "x" * 61):
        with pytest.raises(Invalid):
            conversations.rename(session, chat, title)


class TestShare:
    def test_a_link_keeps_its_branch_and_another_branch_ends_it(self, session: Session, user: User, chat: Chat) -> None:
        token = conversations.share(session, chat)
        assert conversations.share(session, chat) == token
        chats.add_written(session, chat, {"prompt": "more", "answer": "x", "status": FINISHED}, after=chat.leaf_id)
        session.flush()
        session.expire(chat)
        _, turns = conversations.shared(session, token)
        assert [turn.prompt for turn in turns] == ["To be"]
        whole = chats.get_chat(session, user, chat.public_id)
        newer = conversations.share(session, whole)
        session.flush()
        assert len(conversations.shared(session, newer)[1]) == 2
        with pytest.raises(NotFound):
            conversations.shared(session, token)

    def test_it_ends_when_asked_and_with_the_conversation(self, session: Session, user: User, chat: Chat) -> None:
        token = conversations.share(session, chat)
        conversations.unshare(session, chat)
        session.flush()
        with pytest.raises(NotFound):
            conversations.shared(session, token)
        token = conversations.share(session, chat)
        conversations.clear(session, chat)
        session.flush()
        with pytest.raises(NotFound):
            conversations.shared(session, token)

    def test_there_must_be_something_to_show(self, session: Session, user: User, chat: Chat) -> None:
        empty = chats.open_chat(session, user, chat.checkpoint)
        session.flush()
        with pytest.raises(Conflict):
            conversations.share(session, chats.get_chat(session, user, empty.public_id))
