"""Verbs of conversations: trees of turns, of which one branch is shown, alone or in groups that were asked the same."""

import datetime as dt
import secrets
from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import ColumnElement, func, or_, select
from sqlalchemy.orm import Session, joinedload, selectinload

from registry import accounts, audit, blocklist, checkpoints, estimates, events, tickets
from registry.errors import Conflict, Invalid, NotFound
from registry.models import Chat, ChatGroup, Checkpoint, Turn, User
from registry.models.base import CANCELLED, FINISHED, QUEUED, RUNNING, utcnow
from registry.models.chats import BATTLE
from registry.settings import get_settings

OPEN = (QUEUED, RUNNING)
TITLE_CHARS = 60
REASON_CHARS = 500
LEAF = -1
DEFAULT_MAX_TOKENS = 128
"""Tokens an answer has at most where its parameters say nothing."""
COPIED = (
    "prompt", "answer", "status", "finish_reason", "params", "tokens", "prompt_tokens", "completion_tokens",
    "created_at", "started_at", "finished_at",
)  # fmt: skip
"""What a copy of a turn takes along: not who rated it."""


def open_chat(
    session: Session, user: User, checkpoint: Checkpoint, *, group: ChatGroup | None = None, place: int = 0
) -> Chat:
    """Begin a thread with a checkpoint, as a column of a group where there is one.

    Raises:
        Conflict: the checkpoint is not ready.
    """
    checkpoints.check_usable(checkpoint)
    chat = Chat(public_id=_public_id(), user_id=user.id, checkpoint=checkpoint, place=place)
    chat.group_id = group.id if group is not None else None
    session.add(chat)
    session.flush()  # turns carry the id
    return chat


def open_group(session: Session, user: User, kind: str, asked: Sequence[Checkpoint], title: str = "") -> ChatGroup:
    """Begin one thread with each of several checkpoints, in this order.

    Args:
        session: the transaction.
        user: whose they are.
        kind: `side`, `film` or `battle`.
        asked: the checkpoints.
        title: what the list of conversations calls it.

    Raises:
        Conflict: a checkpoint is not ready.
    """
    group = ChatGroup(public_id=_public_id(), user_id=user.id, kind=kind, title=title[:TITLE_CHARS])
    session.add(group)
    session.flush()  # chats carry the id
    for place, checkpoint in enumerate(asked):
        open_chat(session, user, checkpoint, group=group, place=place)
    return group


def get_group(session: Session, user: User, public_id: str) -> ChatGroup:
    """A person's own group with its chats and their turns.

    Raises:
        NotFound: there is none, or it is another person's.
    """
    query = select(ChatGroup).where(
        ChatGroup.public_id == public_id, ChatGroup.user_id == user.id, ChatGroup.cleared_at.is_(None)
    )
    group = session.scalar(query.options(selectinload(ChatGroup.chats).selectinload(Chat.turns)))
    if group is None:
        raise NotFound("There is no such conversation, or it is another person's.")
    return group


def open_turn(
    session: Session,
    chat: Chat,
    prompt: str,
    params: Mapping[str, Any] | None = None,
    *,
    after: int | None = LEAF,
    lane: int = tickets.CHAT,
) -> Turn:
    """Ask something: a turn, queued, with a ticket; the branch that ends with it is the one shown.

    Args:
        session: the transaction.
        chat: the thread.
        prompt: what is asked.
        params: sampling, in the names of `Turn.params`.
        after: the turn that it follows; by default the last one of the branch that is shown, None: it begins anew.
        lane: which lane of the line; a film strip's turns wait in the probes' lane, a battle's in the arena's.

    Raises:
        Invalid: an empty or an overlong message, or one with a blocked pattern.
        Refused: the person is banned.
        Conflict: an answer of this thread is still being written.
        NotFound: the turn to follow is none of this thread.
    """
    limit = get_settings().max_prompt_chars
    if not prompt.strip():
        raise Invalid("The message is empty: write something for the model to go on from.")
    if len(prompt) > limit:
        raise Invalid(
            "The message has %(count)s characters; at most %(limit)s are accepted.",
            count=f"{len(prompt):,}",
            limit=f"{limit:,}",
        )
    user = session.get_one(User, chat.user_id)
    accounts.check_may_ask(user)
    blocklist.check_prompt(session, user, "\n".join([str((params or {}).get("system") or ""), prompt]))
    open_turns = select(Turn.id).where(Turn.chat_id == chat.id, Turn.status.in_(OPEN))
    if session.scalar(open_turns.limit(1)) is not None:
        raise Conflict("The answer before is still being written: wait for it or stop it.")
    parent_id = chat.leaf_id if after == LEAF else after
    parent = session.get(Turn, parent_id) if parent_id is not None else None
    if parent_id is not None and (parent is None or parent.chat_id != chat.id):
        raise NotFound("There is no message with the id %(turn_id)s.", turn_id=parent_id)
    turn = Turn(chat_id=chat.id, parent_id=parent_id, prompt=prompt, params=dict(params or {}))
    turn.position = parent.position + 1 if parent is not None else 0
    chat.title = chat.title or " ".join(prompt.split())[:TITLE_CHARS]
    session.add(turn)
    session.flush()  # the ticket carries the id
    chat.leaf_id = turn.id
    size = int(turn.params.get("max_tokens", DEFAULT_MAX_TOKENS))
    estimates.issue(
        session, lane=lane, checkpoint_id=chat.checkpoint_id, turn_id=turn.id, user_id=chat.user_id, size=size
    )
    return turn


def branch(chat: Chat) -> list[Turn]:
    """The turns that are shown, the first one first; for a chat with its turns."""
    return path_to(chat.turns, chat.leaf_id)


def path_to(turns: Sequence[Turn], turn_id: int | None) -> list[Turn]:
    """A turn after all those that lead to it, the first one first."""
    by_id = {turn.id: turn for turn in turns}
    path: list[Turn] = []
    while turn_id is not None and (turn := by_id.get(turn_id)) is not None:
        path.append(turn)
        turn_id = turn.parent_id
    return path[::-1]


def siblings(chat: Chat, turn: Turn) -> list[Turn]:
    """The ways the conversation went at this place, itself among them, the oldest first."""
    return [other for other in chat.turns if other.parent_id == turn.parent_id]


def show_turn(chat: Chat, turn: Turn) -> None:
    """Show the branch that goes through a turn, to its newest end; for a chat with its turns."""
    children: dict[int | None, int] = {}
    for other in chat.turns:
        children[other.parent_id] = other.id  # in the order of their ids, so that the newest child stays
    end = turn.id
    while end in children:
        end = children[end]
    chat.leaf_id = end


def step_back(chat: Chat) -> Turn | None:
    """Show the branch without its last turn, which stays in the tree; gives that turn, if there was one."""
    shown = branch(chat)
    if not shown:
        return None
    chat.leaf_id = shown[-1].parent_id
    return shown[-1]


def fork(session: Session, user: User, chat: Chat, turn: Turn | None, checkpoint: Checkpoint) -> Chat:
    """Copy a conversation up to and with a turn into a new thread with another checkpoint, or with the same one.

    Args:
        session: the transaction.
        user: whose the copy is.
        chat: the thread with its turns; the caller has seen to it that this person may read it.
        turn: the last one to copy, None: none at all. Turns that are still being written, or failed, are left out.
        checkpoint: whom the copy goes on with.

    Raises:
        Conflict: the checkpoint is not ready.
    """
    copy = open_chat(session, user, checkpoint)
    copy.title, copy.forked_from_id = chat.title, chat.id
    for original in path_to(chat.turns, turn.id if turn is not None else None):
        if original.status in (FINISHED, CANCELLED):
            add_written(session, copy, {name: getattr(original, name) for name in COPIED}, after=copy.leaf_id)
    return copy


def add_written(session: Session, chat: Chat, fields: Mapping[str, Any], *, after: int | None) -> Turn:
    """Add a turn whose answer is known already, for copies and imports; the branch shown ends with it."""
    turn = Turn(chat_id=chat.id, parent_id=after, **fields)
    parent = session.get_one(Turn, after) if after is not None else None
    turn.position = parent.position + 1 if parent is not None else 0
    session.add(turn)
    session.flush()  # its children carry the id
    chat.leaf_id = turn.id
    return turn


def get_turn(session: Session, turn_id: int) -> Turn:
    """A turn with its chat, the chat's checkpoint and all its turns.

    Raises:
        NotFound: there is none of that id.
    """
    options = joinedload(Turn.chat).selectinload(Chat.turns)
    turn = session.scalar(select(Turn).where(Turn.id == turn_id).options(options))
    if turn is None:
        raise NotFound("There is no message with the id %(turn_id)s.", turn_id=turn_id)
    return turn


def own_turn(session: Session, user: User, turn_id: int) -> Turn:
    """A turn of this person; another's is not found, and a battle's neither: its pages say nothing of who wrote it."""
    turn = any_own_turn(session, user, turn_id)
    if turn.chat.group_id is not None and session.get_one(ChatGroup, turn.chat.group_id).kind == BATTLE:
        raise NotFound("There is no message with the id %(turn_id)s.", turn_id=turn_id)
    return turn


def any_own_turn(session: Session, user: User, turn_id: int) -> Turn:
    """A turn of this person, be it a battle's; for what does not show the checkpoint. Another's is not found."""
    turn = get_turn(session, turn_id)
    if turn.chat.user_id != user.id:
        raise NotFound("There is no message with the id %(turn_id)s.", turn_id=turn_id)
    return turn


def is_no_battle() -> ColumnElement[bool]:
    """The condition that a chat is none of a blind battle's: those are seen in the arena alone."""
    return or_(Chat.group_id.is_(None), Chat.group_id.not_in(select(ChatGroup.id).where(ChatGroup.kind == BATTLE)))


def start_turn(session: Session, turn_id: int) -> None:
    """A worker has begun to answer; a turn taken over from a dead worker starts afresh."""
    turn = session.get_one(Turn, turn_id)
    turn.status, turn.answer, turn.started_at = RUNNING, "", utcnow()


def close_turn(
    session: Session,
    turn_id: int,
    *,
    status: str,
    answer: str = "",
    finish_reason: str = "",
    prompt_tokens: int | None = None,
    completion_tokens: int | None = None,
    tokens: list[Any] | None = None,
    started_at: dt.datetime | None = None,
    error: str = "",
) -> None:
    """Record the whole answer. The fence is the caller's: `tickets.finish` in the same transaction."""
    turn = session.get_one(Turn, turn_id)
    turn.status, turn.answer, turn.finish_reason, turn.error = status, answer, finish_reason, error
    turn.prompt_tokens, turn.completion_tokens, turn.tokens = prompt_tokens, completion_tokens, tokens
    turn.started_at = started_at or turn.started_at
    turn.finished_at = utcnow()
    if finish_reason == "content_filter":
        audit.note(session, None, "answer_cut", f"turn:{turn_id}")


def requeue_turn(session: Session, turn_id: int) -> None:
    """The worker gave it back."""
    session.get_one(Turn, turn_id).status = QUEUED


def cancel_turn(session: Session, turn: Turn) -> None:
    """Stop a turn: a queued one leaves the line at once, a running one is ended by its worker.

    The running one keeps what was written until then, so only its worker closes it.
    """
    if turn.status == QUEUED and tickets.cancel(session, turn_id=turn.id):
        turn.status, turn.finish_reason, turn.finished_at = CANCELLED, "cancelled", utcnow()
        end = {"status": CANCELLED, "finish_reason": "cancelled", "error": ""}
        events.announce(session, events.subject_of(turn_id=turn.id), "done", end)
    elif turn.status in OPEN:
        events.request_stop(events.subject_of(turn_id=turn.id))


def rate_turn(session: Session, turn: Turn, rating: int | None) -> None:
    """Thumbs up (1), down (-1), or neither (None); the reason of another rating than before is forgotten.

    Raises:
        Invalid: another number.
        Conflict: there is no answer yet.
    """
    if rating not in (1, -1, None):
        raise Invalid("A rating is 1, -1 or nothing.")
    if turn.status not in (FINISHED, CANCELLED):
        raise Conflict("There is no answer to rate yet.")
    if rating != turn.rating:
        turn.rating_reason = ""
    turn.rating = rating


def explain_rating(session: Session, turn: Turn, reason: str) -> None:
    """Why a thumb went up or down; an empty reason takes it back.

    Raises:
        Conflict: the answer is not rated.
    """
    if turn.rating is None:
        raise Conflict("This answer is not rated: rate it first, then say why.")
    turn.rating_reason = " ".join(reason.split())[:REASON_CHARS]


def get_chat(session: Session, user: User, public_id: str) -> Chat:
    """A person's own thread with its turns.

    Raises:
        NotFound: there is none, it is another person's, or a battle's.
    """
    query = select(Chat).where(Chat.public_id == public_id, Chat.user_id == user.id, Chat.cleared_at.is_(None))
    chat = session.scalar(query.where(is_no_battle()).options(selectinload(Chat.turns)))
    if chat is None:
        raise NotFound("There is no such conversation, or it is another person's.")
    return chat


def list_chats(session: Session, user: User, limit: int = 50) -> Sequence[Chat]:
    """A person's threads, the newest first."""
    query = select(Chat).where(Chat.user_id == user.id, Chat.cleared_at.is_(None), is_no_battle())
    return session.scalars(query.order_by(Chat.id.desc()).limit(limit)).all()


def clear_chat(session: Session, chat: Chat) -> None:
    """Hide a thread, stopping what is still being written."""
    chat.cleared_at = utcnow()
    for turn in session.scalars(select(Turn).where(Turn.chat_id == chat.id, Turn.status.in_(OPEN))):
        cancel_turn(session, turn)


def count_turns(session: Session) -> int:
    """How many messages were ever sent."""
    return session.scalar(select(func.count(Turn.id))) or 0


def _public_id() -> str:
    return secrets.token_urlsafe(15)
