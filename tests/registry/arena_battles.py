"""Battles for tests: opened as visitors do, answered as a worker does, and decided."""

import datetime as dt
from collections.abc import Sequence

from sqlalchemy import update
from sqlalchemy.orm import Session

from registry import arena, chats, tickets
from registry.arena import Battle
from registry.models import Checkpoint, Run, User, Vote
from registry.models.base import FINISHED, utcnow

LONG_AGO = dt.timedelta(minutes=1)
"""How long before the vote the answers came, so that they could be read."""


def open_battle(session: Session, user: User, run: Run, prompt: str = "Who are you?") -> Battle:
    """A battle of the run's pretrained checkpoints, as its owner finds it."""
    group = arena.open_battle(session, user, run, "pretrained", prompt, {"max_tokens": 16})
    session.flush()
    session.expire_all()
    return arena.get_battle(session, user, group.public_id)


def answer(
    session: Session, user: User, battle: Battle, texts: Sequence[str] = ("I am one.", "I am another."), *,
    tokens: Sequence[int] = (3, 4), ago: dt.timedelta = LONG_AGO,
) -> Battle:  # fmt: skip
    """Write both answers, left and right."""
    for turn, text, num in zip(battle.turns, texts, tokens, strict=True):
        tickets.cancel(session, turn_id=turn.id)
        chats.close_turn(
            session, turn.id, status=FINISHED, answer=text, finish_reason="stop", completion_tokens=num,
            started_at=utcnow() - ago,
        )  # fmt: skip
    session.flush()
    session.expire_all()
    return arena.get_battle(session, user, battle.group.public_id)


def decide(
    session: Session, user: User, run: Run, choice: str = "left", *, prompt: str = "Who are you?",
    address: str = "10.0.0.1", tokens: Sequence[int] = (3, 4),
) -> Vote:  # fmt: skip
    """A whole battle, from the question to the vote."""
    battle = answer(session, user, open_battle(session, user, run, prompt), tokens=tokens)
    return arena.vote(session, user, battle, choice, address)


def favour(battle: Battle, better: Checkpoint) -> str:
    """The choice that says `better`, whose side is a matter of chance, wrote the better answer."""
    return "left" if battle.checkpoints[0].id == better.id else "right"


def change_by_hand(session: Session, vote: Vote, **fields: object) -> None:
    """What somebody with the database's password may do."""
    session.flush()
    session.execute(update(Vote).where(Vote.id == vote.id).values(**fields))
    session.expire_all()
