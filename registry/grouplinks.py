"""Verbs of sharing by one link what several checkpoints were asked together: read-only, and as it stood then.

Every column carries a token of its own, as a thread that is shared alone does; those that were shared together begin
with the same random part. So each column is as public as its group, and whoever ends one link ends no other.
"""

import secrets
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import select
from sqlalchemy.orm import Session, joinedload, selectinload

from registry import chats, conversations
from registry.errors import Conflict, NotFound
from registry.models import Chat, ChatGroup, Turn
from registry.models.chats import FILM, SIDE


@dataclass(frozen=True)
class SharedColumn:
    """One column behind a link: its thread, and the turns that the link shows."""

    chat: Chat
    turns: Sequence[Turn]


@dataclass(frozen=True)
class SharedGroup:
    """What stands behind the link of a group."""

    title: str
    kind: str
    columns: Sequence[SharedColumn]


def share(group: ChatGroup) -> str:
    """Let whoever has the link read the columns as they stand now; gives what stands in the link.

    For a group with its chats and turns. Sharing again makes another link, and the one before ends.

    Raises:
        Conflict: nothing is written yet, or an answer is still being written.
    """
    branches = {chat.id: chats.branch(chat) for chat in group.chats}
    written = [turn for turns in branches.values() for turn in turns if turn.status in conversations.WRITTEN]
    if not written:
        raise Conflict("There is no answer to share yet.")
    if any(turn.status in chats.OPEN for turns in branches.values() for turn in turns):
        raise Conflict("Answers are still being written: share them when they are whole, or stop them.")
    common = secrets.token_urlsafe(12)
    for chat in group.chats:
        if turns := branches[chat.id]:
            chat.share_token = f"{common}.{turns[-1].id}"
    return link(group) or ""


def unshare(group: ChatGroup) -> None:
    """End the link; for a group with its chats."""
    for chat in group.chats:
        chat.share_token = None


def link(group: ChatGroup) -> str | None:
    """What stands in the link of a group: the first token of those that were made together; for one with its chats."""
    tokens = [chat.share_token for chat in group.chats if chat.share_token]
    commons = Counter(map(_common, tokens))
    return next((token for token in tokens if commons[_common(token)] > 1), None)


def shared(session: Session, token: str) -> SharedGroup:
    """The columns behind a link.

    Raises:
        NotFound: there is no such link, its owner has ended it, or it is one of a thread that was shared alone.
    """
    first = session.scalar(
        select(Chat).where(Chat.share_token == token, Chat.cleared_at.is_(None)).options(joinedload(Chat.group))
    )
    if first is None or first.group is None or first.group.kind not in (SIDE, FILM):
        raise NotFound("This link shows nothing: its owner has ended it, or it was never complete.")
    query = select(Chat).where(Chat.group_id == first.group_id, Chat.cleared_at.is_(None)).order_by(Chat.place)
    found = session.scalars(query.options(selectinload(Chat.turns))).all()
    together = [chat for chat in found if chat.share_token and _common(chat.share_token) == _common(token)]
    if len(together) < 2:  # one alone has a page of its own
        raise NotFound("This link shows nothing: its owner has ended it, or it was never complete.")
    columns = [SharedColumn(chat, conversations.shared_turns(chat)) for chat in together]
    return SharedGroup(first.group.title, first.group.kind, columns)


def _common(token: str) -> str:
    return token.rpartition(".")[0]
