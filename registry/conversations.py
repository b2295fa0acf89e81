"""A person's conversations as their history lists them: threads and groups, found, renamed, deleted, shared by link."""

import datetime as dt
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

from sqlalchemy import ColumnElement, and_, exists, literal, or_, select, union_all
from sqlalchemy.orm import Session, selectinload

from registry import chats
from registry.errors import Conflict, Invalid, NotFound
from registry.models import Chat, ChatGroup, Turn, User
from registry.models.base import CANCELLED, FINISHED, utcnow
from registry.models.chats import FILM, SIDE

LISTED = (SIDE, FILM)
"""Kinds of groups that stand in the history; a battle's is its vote."""
UNDO = dt.timedelta(hours=1)
"""For how long a deletion can be undone."""
NOUNS: tuple[type[Chat] | type[ChatGroup], ...] = (Chat, ChatGroup)
WRITTEN = (FINISHED, CANCELLED)


@dataclass(frozen=True)
class Entry:
    """One line of the history: a thread of its own, or a group of threads that were asked the same."""

    public_id: str
    title: str
    checkpoints: Sequence[str]
    created_at: dt.datetime
    kind: str = ""
    """`side` or `film` for a group."""

    @property
    def address(self) -> str:
        """Where its page is."""
        return f"/chat/{self.kind}/{self.public_id}" if self.kind else f"/chat/{self.public_id}"


@dataclass(frozen=True)
class Listing:
    """One page of the history, the newest first."""

    entries: Sequence[Entry]
    has_more: bool


def history(session: Session, user: User, search: str = "", *, page: int = 0, size: int = 40) -> Listing:
    """A person's conversations, the newest first.

    Args:
        session: the transaction.
        user: whose they are.
        search: words that the title, a question or an answer holds as they stand; empty: all.
        page: from 0, each of `size`.
        size: entries a page.
    """
    alone = select(Chat.id, literal("").label("kind"), Chat.created_at).where(
        Chat.user_id == user.id, Chat.cleared_at.is_(None), Chat.group_id.is_(None)
    )
    grouped = select(ChatGroup.id, ChatGroup.kind, ChatGroup.created_at).where(
        ChatGroup.user_id == user.id, ChatGroup.cleared_at.is_(None), ChatGroup.kind.in_(LISTED)
    )
    if search := search.strip():
        said = or_(Turn.prompt.icontains(search, autoescape=True), Turn.answer.icontains(search, autoescape=True))
        in_chat = exists().where(Turn.chat_id == Chat.id, said)
        in_group = exists().where(and_(Chat.group_id == ChatGroup.id, Turn.chat_id == Chat.id, said))
        alone = alone.where(or_(Chat.title.icontains(search, autoescape=True), in_chat))
        grouped = grouped.where(or_(ChatGroup.title.icontains(search, autoescape=True), in_group))
    both = union_all(alone, grouped).subquery()
    ordered = select(both).order_by(both.c.created_at.desc(), both.c.kind, both.c.id.desc())
    rows = session.execute(ordered.limit(size + 1).offset(max(0, page) * size)).all()
    threads = _chats(session, [row.id for row in rows[:size] if not row.kind])
    groups = _groups(session, [row.id for row in rows[:size] if row.kind])
    entries = [_of_group(groups[row.id]) if row.kind else _of_chat(threads[row.id]) for row in rows[:size]]
    return Listing(entries, has_more=len(rows) > size)


def find(session: Session, user: User, public_id: str) -> Chat | ChatGroup:
    """A person's own thread or group.

    Raises:
        NotFound: there is none, or it is another person's.
    """
    for noun in NOUNS:
        query = select(noun).where(noun.public_id == public_id, noun.user_id == user.id, noun.cleared_at.is_(None))
        found = cast(Chat | ChatGroup | None, session.scalar(query.where(_is_listed(noun))))
        if found is not None:
            return found
    raise NotFound("There is no such conversation, or it is another person's.")


def rename(session: Session, entry: Chat | ChatGroup, title: str) -> None:
    """Give it another title.

    Raises:
        Invalid: an empty or overlong title.
    """
    plain = " ".join(title.split())
    if not plain:
        raise Invalid("A conversation needs a title: write a few words.")
    if len(plain) > chats.TITLE_CHARS:
        raise Invalid(
            "The title has %(count)s characters; at most %(limit)s are accepted.",
            count=len(plain),
            limit=chats.TITLE_CHARS,
        )
    entry.title = plain


def clear(session: Session, entry: Chat | ChatGroup) -> None:
    """Hide it, stopping what is still being written; `restore` undoes it for an hour."""
    if isinstance(entry, ChatGroup):
        entry.cleared_at = utcnow()
        for chat in session.scalars(select(Chat).where(Chat.group_id == entry.id)):
            chats.clear_chat(session, chat)
    else:
        chats.clear_chat(session, entry)


def cleared(session: Session, user: User, public_id: str) -> Chat | ChatGroup | None:
    """What this person has deleted lately under that id, if anything."""
    for noun in NOUNS:
        query = select(noun).where(noun.public_id == public_id, noun.user_id == user.id, _is_listed(noun))
        found = cast(Chat | ChatGroup | None, session.scalar(query.where(noun.cleared_at > utcnow() - UNDO)))
        if found is not None:
            return found
    return None


def restore(session: Session, user: User, public_id: str) -> Entry:
    """Undo a deletion.

    Raises:
        NotFound: nothing of that id was deleted by this person within the hour.
    """
    found = cleared(session, user, public_id)
    if found is None:
        raise NotFound("It cannot be brought back: it was deleted more than an hour ago, or never was yours.")
    found.cleared_at = None
    session.flush()  # the entry below reads what is written
    if isinstance(found, Chat):
        return _of_chat(found)
    for chat in session.scalars(select(Chat).where(Chat.group_id == found.id)):
        chat.cleared_at = None
    return _of_group(_groups(session, [found.id])[found.id])


def share(session: Session, chat: Chat) -> str:
    """Let whoever has the link read the branch that is shown now; gives what stands in the link.

    The link keeps showing that branch, whatever the owner writes or chooses later; sharing another
    branch makes another link, and the one before ends.

    Raises:
        Conflict: nothing is written yet.
    """
    written = [turn for turn in chats.branch(chat) if turn.status in WRITTEN]
    if not written:
        raise Conflict("There is no answer to share yet.")
    if chat.share_token is None or _leaf_of(chat.share_token) != written[-1].id:
        chat.share_token = f"{secrets.token_urlsafe(12)}.{written[-1].id}"
    return chat.share_token


def unshare(session: Session, chat: Chat) -> None:
    """End the link."""
    chat.share_token = None


def shared(session: Session, token: str) -> tuple[Chat, Sequence[Turn]]:
    """The thread behind a link, and the turns that it shows.

    Raises:
        NotFound: there is no such link, or its owner has ended it.
    """
    query = select(Chat).where(Chat.share_token == token, Chat.cleared_at.is_(None))
    chat = session.scalar(query.options(selectinload(Chat.turns)))
    if chat is None:
        raise NotFound("This link shows nothing: its owner has ended it, or it was never complete.")
    return chat, shared_turns(chat)


def shared_turns(chat: Chat) -> list[Turn]:
    """What the link of a thread shows; for a chat with its turns."""
    path = chats.path_to(chat.turns, _leaf_of(chat.share_token or ""))
    return [turn for turn in path if turn.status in WRITTEN]


def _is_listed(noun: type[Chat] | type[ChatGroup]) -> ColumnElement[bool]:
    return chats.is_no_battle() if noun is Chat else ChatGroup.kind.in_(LISTED)


def _leaf_of(token: str) -> int | None:
    number = token.rpartition(".")[2]
    return int(number) if number.isdecimal() else None


def _chats(session: Session, ids: Sequence[int]) -> dict[int, Chat]:
    return {chat.id: chat for chat in session.scalars(select(Chat).where(Chat.id.in_(ids)))}


def _groups(session: Session, ids: Sequence[int]) -> dict[int, ChatGroup]:
    query = select(ChatGroup).where(ChatGroup.id.in_(ids)).options(selectinload(ChatGroup.chats))
    return {group.id: group for group in session.scalars(query)}


def _of_chat(chat: Chat) -> Entry:
    return Entry(chat.public_id, chat.title, [chat.checkpoint.label], chat.created_at)


def _of_group(group: ChatGroup) -> Entry:
    labels = [chat.checkpoint.label for chat in group.chats]
    return Entry(group.public_id, group.title, labels, group.created_at, group.kind)
