"""Verbs of asking several ages of a model the same: columns side by side, and films through a run's checkpoints."""

import math
import secrets
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from registry import chats, tickets
from registry.errors import Conflict, Invalid, NotFound
from registry.models import Chat, ChatGroup, Checkpoint, Turn, User
from registry.models.chats import FILM, SIDE
from registry.settings import get_settings

MIN_COLUMNS, MAX_COLUMNS = 2, 4
MIN_FRAMES = 2
SEEDS = 2**31
SPREAD, LAST, MILESTONES, HAND = CHOICES = ("spread", "last", "milestones", "hand")
"""Ways to choose the frames of a film."""


@dataclass(frozen=True)
class Progress:
    """How far the answers of a group are."""

    num_turns: int
    num_ended: int

    @property
    def is_running(self) -> bool:
        """Whether an answer is still to come."""
        return self.num_ended < self.num_turns


def log_spaced(steps: Sequence[int], count: int) -> list[int]:
    """Places of `count` of the ascending steps: the first, the last, and between them evenly on a logarithmic scale.

    Fewer than `count` steps are all taken; no place is taken twice, so early ages, which lie apart, fill up in order.
    """
    if count >= len(steps):
        return list(range(len(steps)))
    if count < MIN_FRAMES:
        return [len(steps) - 1]
    logs = [math.log1p(step - steps[0]) for step in steps]
    chosen = [0]
    for number in range(1, count):
        target = logs[-1] * number / (count - 1)
        # So late that as many places are left as are still to be chosen, and after the one before.
        free = range(chosen[-1] + 1, len(steps) - (count - 1 - number))
        chosen.append(min(free, key=lambda place: abs(logs[place] - target)))
    return chosen


def choose(able: Sequence[Checkpoint], how: str, count: int, steps: Collection[int] = ()) -> list[Checkpoint]:
    """The checkpoints that a film shows, of those that can be asked, the youngest first.

    Args:
        able: of one run, kind and precision, by ascending step.
        how: `spread`: over the whole life, closer together early on; `last`: the newest; `milestones`; `hand`.
        count: how many for `spread` and `last`; of too many milestones so many are taken as a film may have frames.
        steps: those chosen by hand.
    """
    most = get_settings().film_frames
    count = max(MIN_FRAMES, min(count, most))
    if how == HAND:
        return [one for one in able if one.step in steps]
    if how == LAST:
        return list(able[-count:])
    if how == MILESTONES:
        able, count = [one for one in able if one.is_milestone], most
    return [able[place] for place in log_spaced([one.step for one in able], count)]


def open_side(
    session: Session, user: User, asked: Sequence[Checkpoint], prompt: str, params: Mapping[str, Any]
) -> ChatGroup:
    """Ask two to four checkpoints the same, with the same sampling and seed.

    Raises:
        Invalid: too few or too many checkpoints, or the message cannot be sent.
        Conflict: a checkpoint is not ready.
    """
    if not MIN_COLUMNS <= len(asked) <= MAX_COLUMNS:
        raise Invalid("Choose %(low)s to %(high)s checkpoints to ask side by side.", low=MIN_COLUMNS, high=MAX_COLUMNS)
    return _open(session, user, SIDE, asked, prompt, params, tickets.CHAT)


def open_film(
    session: Session, user: User, asked: Sequence[Checkpoint], prompt: str, params: Mapping[str, Any]
) -> ChatGroup:
    """Ask many checkpoints the same in the probes' lane, one turn a frame; none is answered from another's answer.

    Raises:
        Invalid: too few or too many checkpoints, or the message cannot be sent.
        Conflict: a checkpoint is not ready, or another film of this person is still being answered.
    """
    limit = get_settings().film_frames
    if not MIN_FRAMES <= len(asked) <= limit:
        raise Invalid("A film has %(low)s to %(high)s frames; choose other checkpoints.", low=MIN_FRAMES, high=limit)
    # One at a time passes: two requests at once would both find that no film is running.
    session.execute(select(User.id).where(User.id == user.id).with_for_update())
    running = select(Turn.id).join(Chat).join(ChatGroup, Chat.group_id == ChatGroup.id)
    running = running.where(ChatGroup.user_id == user.id, ChatGroup.kind == FILM, Turn.status.in_(chats.OPEN))
    if session.scalar(running.limit(1)) is not None:
        raise Conflict("Your film before is still being answered: wait for it or stop it.")
    return _open(session, user, FILM, asked, prompt, params, tickets.PROBE)


def ask_all(session: Session, group: ChatGroup, prompt: str, params: Mapping[str, Any]) -> list[Turn]:
    """Put one more question to every column, with one seed; for a group with its chats.

    Raises:
        Invalid: the message cannot be sent.
        Conflict: a column is still being answered, so none is asked.
    """
    return _ask(session, group.chats, prompt, params, tickets.PROBE if group.kind == FILM else tickets.CHAT)


def ask_again(session: Session, asked: Sequence[Chat], params: Mapping[str, Any] | None = None) -> list[Turn]:
    """Another answer to the last question of each of these columns, beside the first, all with one seed.

    Args:
        session: the transaction.
        asked: columns of one group, with their turns.
        params: other settings; by default those of the answer before. The seed is another one in any case where it
            would be the same: the same seed writes the same answer.

    Raises:
        Conflict: a column is still being answered, so none is asked; or none was ever asked.
    """
    last = {chat.id: turns[-1] for chat in asked if (turns := chats.branch(chat))}
    if not last:
        raise Conflict("Nothing was asked here yet.")
    used = {
        turn.params.get("seed") for chat in asked if chat.id in last for turn in chats.siblings(chat, last[chat.id])
    }
    seed = (params or {}).get("seed")
    if seed is None or seed in used:
        seed = (max((int(one) for one in used if one is not None), default=0) + 1) % SEEDS
    opened = []
    for chat in asked:
        if (turn := last.get(chat.id)) is not None:
            same = _suited(chat, {**(turn.params if params is None else params), "seed": seed})
            opened.append(chats.open_turn(session, chat, turn.prompt, same, after=turn.parent_id))
    return opened


def show(group: ChatGroup, turn_id: int) -> Chat:
    """Show the way that a column took through a turn; gives the column. For a group with its chats and turns.

    Raises:
        NotFound: the turn is none of this group.
    """
    for chat in group.chats:
        for turn in chat.turns:
            if turn.id == turn_id:
                chats.show_turn(chat, turn)
                return chat
    raise NotFound("There is no message with the id %(turn_id)s.", turn_id=turn_id)


def progress(group: ChatGroup) -> Progress:
    """How many of the last turns of all chats have ended; for a group with its chats and turns."""
    last = [turns[-1] for chat in group.chats if (turns := chats.branch(chat))]
    return Progress(len(last), sum(turn.status not in chats.OPEN for turn in last))


def stop_all(session: Session, group: ChatGroup) -> None:
    """Stop whatever is still waiting or being written; for a group with its chats and turns."""
    for chat in group.chats:
        stop(session, chat)


def stop(session: Session, chat: Chat) -> None:
    """Stop what is waiting or being written in one column; for a chat with its turns."""
    for turn in chat.turns:
        if turn.status in chats.OPEN:
            chats.cancel_turn(session, turn)


def column(group: ChatGroup, public_id: str) -> Chat:
    """The chat of a group that has this public id.

    Raises:
        NotFound: there is none.
    """
    found = next((chat for chat in group.chats if chat.public_id == public_id), None)
    if found is None:
        raise NotFound("There is no such conversation, or it is another person's.")
    return found


def swap(session: Session, user: User, group: ChatGroup, chat: Chat, checkpoint: Checkpoint) -> Chat:
    """Go on in a column with another checkpoint, which is given what was said; the old thread stays, on its own.

    Raises:
        Conflict: the checkpoint is not ready, or the column is still being answered.
    """
    turns = chats.branch(chat)
    if any(turn.status in chats.OPEN for turn in chat.turns):
        raise Conflict("The answer before is still being written: wait for it or stop it.")
    copy = chats.fork(session, user, chat, turns[-1] if turns else None, checkpoint)
    copy.group_id, copy.place, chat.group_id = group.id, chat.place, None
    session.flush()
    session.expire(group, ["chats"])
    return copy


def _open(
    session: Session,
    user: User,
    kind: str,
    asked: Sequence[Checkpoint],
    prompt: str,
    params: Mapping[str, Any],
    lane: int,
) -> ChatGroup:
    group = chats.open_group(session, user, kind, asked, " ".join(prompt.split()))
    opened = session.scalars(select(Chat).where(Chat.group_id == group.id).order_by(Chat.place)).all()
    _ask(session, opened, prompt, params, lane)
    return group


def _ask(session: Session, asked: Sequence[Chat], prompt: str, params: Mapping[str, Any], lane: int) -> list[Turn]:
    same = dict(params)
    if same.get("seed") is None:
        same["seed"] = secrets.randbelow(SEEDS)
    return [chats.open_turn(session, chat, prompt, _suited(chat, same), lane=lane) for chat in asked]


def _suited(chat: Chat, params: Mapping[str, Any]) -> dict[str, Any]:
    """Without what only a chat model could follow."""
    is_chat = chat.checkpoint.kind == "chat"
    return {name: value for name, value in params.items() if name != "system" or is_chat}
