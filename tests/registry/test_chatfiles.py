"""Conversations as files, out and back in."""

import orjson
import pytest
from sqlalchemy.orm import Session

from registry import chatfiles, chats
from registry.errors import Conflict, Invalid, NotFound
from registry.models import Chat
from registry.models.base import FAILED, FINISHED
from tests.factories import make_checkpoint, make_run, make_user


@pytest.fixture
def chat(session: Session) -> Chat:
    """Two ways of a first question, the first with a follow-up, and a failure."""
    user = make_user(session)
    made = chats.open_chat(session, user, make_checkpoint(session, make_run(session)))
    made.title = "ways"
    first = add(session, made, "one", "1", after=None)
    add(session, made, "two", "2", after=first)
    add(session, made, "lost", "", after=first, status=FAILED)
    add(session, made, "other", "<!-- end -->\n\n## ?", after=None)
    session.flush()
    session.expire(made)
    return chats.get_chat(session, user, made.public_id)


def add(session: Session, chat: Chat, prompt: str, answer: str, after: int | None, status: str = FINISHED) -> int:
    """One written turn; its id."""
    fields = {"prompt": prompt, "answer": answer, "status": status, "params": {"seed": 3, "unknown": 1}}
    return chats.add_written(session, chat, fields, after=after).id


def back(session: Session, content: bytes) -> Chat:
    """What comes of reading a file in, with its turns."""
    user = make_user(session)
    made = chatfiles.bring_in(session, user, chatfiles.read(content))
    session.flush()
    session.expire(made)
    return chats.get_chat(session, user, made.public_id)


def test_the_json_keeps_the_tree_without_what_failed(session: Session, chat: Chat) -> None:
    copy = back(session, chatfiles.to_json(chat))
    by_id = {turn.id: turn.prompt for turn in copy.turns}
    tree = [(turn.prompt, by_id.get(turn.parent_id or 0)) for turn in copy.turns]
    assert tree == [("one", None), ("two", "one"), ("other", None)]
    assert [turn.prompt for turn in chats.branch(copy)] == ["other"]
    assert (copy.title, copy.turns[1].position, copy.turns[0].params) == ("ways", 1, {"seed": 3})


def test_the_markdown_keeps_the_branch_to_the_letter(session: Session, chat: Chat) -> None:
    copy = back(session, chatfiles.to_markdown(chat).encode())
    assert [(turn.prompt, turn.answer) for turn in copy.turns] == [("other", "<!-- end -->\n\n## ?")]
    windows = chatfiles.to_markdown(chat).replace("\n", "\r\n").encode()
    assert back(session, windows).turns[0].answer == "<!-- end -->\n\n## ?"


def test_a_checkpoint_that_is_not_here_or_not_ready_is_named(session: Session, chat: Chat) -> None:
    content = orjson.loads(chatfiles.to_json(chat))
    with pytest.raises(NotFound, match="nowhere"):
        back(session, orjson.dumps({**content, "checkpoint": "nowhere@1"}))
    make_checkpoint(session, chat.checkpoint.run, 99, ready=False)
    with pytest.raises(Conflict):
        back(session, orjson.dumps({**content, "checkpoint": "demo@99"}))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"version": 2}, "version"),
        ({"format": "other"}, "format"),
        ({"shown": 7}, "no such turn"),
        ({"turns": []}, "nothing is said"),
        ({"turns": [{"parent": None, "prompt": "", "answer": ""}]}, "prompt"),
        ({"turns": [{"parent": None, "prompt": "x" * 9_000, "answer": ""}]}, "longer than 8,000"),
        ({"turns": [{"parent": None, "prompt": "x", "answer": "a\x00b"}]}, "zero byte"),
        ({"turns": [{"parent": None, "prompt": "x", "answer": "", "status": "queued"}]}, "status"),
        ({"turns": [{"parent": None, "prompt": "x", "answer": "", "params": {"temperature": 99}}]}, "temperature"),
        ({"turns": [{"parent": None, "prompt": "x", "answer": ""}] * 1_001}, "turns"),
    ],
)
def test_what_is_not_as_it_must_be_is_named(session: Session, chat: Chat, change: dict[str, object], said: str) -> None:
    content = {**orjson.loads(chatfiles.to_json(chat)), **change}
    with pytest.raises(Invalid, match=said):
        chatfiles.read(orjson.dumps(content))
