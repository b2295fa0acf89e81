"""Verbs of the arena: blind battles between two checkpoints of a run, and the one vote that ends each."""

import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from sqlalchemy import func, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session, selectinload

from analysis import ratings
from registry import ages, anomalies, chats, checkpoints, estimates, events, standings, tickets, votes
from registry.errors import Conflict, Invalid, NotFound
from registry.estimates import Place
from registry.models import Chat, ChatGroup, Checkpoint, Run, Turn, User, Vote
from registry.models.base import CANCELLED, FAILED, FINISHED, utcnow
from registry.models.chats import BATTLE

POOL_STEPS = 40
"""Steps of a run that battle each other: votes spread over thousands would tell nothing of any."""


@dataclass(frozen=True)
class Battle:
    """Two answers to one prompt, and the vote on them."""

    group: ChatGroup
    left: Turn
    right: Turn
    vote: Vote | None

    @property
    def turns(self) -> tuple[Turn, Turn]:
        """Left, right."""
        return self.left, self.right

    @property
    def is_answered(self) -> bool:
        """Both answers are whole."""
        return self.left.status == self.right.status == FINISHED

    @property
    def is_void(self) -> bool:
        """An answer failed or was stopped, so there will be no vote."""
        return self.vote is None and any(turn.status in (FAILED, CANCELLED) for turn in self.turns)

    @property
    def checkpoints(self) -> tuple[Checkpoint, Checkpoint]:
        """Left, right: what nobody may see before the vote."""
        return self.group.chats[0].checkpoint, self.group.chats[1].checkpoint


def candidates(session: Session, run: Run, kind: str) -> list[Checkpoint]:
    """The checkpoints that battle each other, the youngest first: log-spaced steps of a run, in every precision."""
    ready = checkpoints.list_checkpoints(session, run, kind=kind)
    steps = sorted({one.step for one in ready})
    kept = {steps[place] for place in ages.log_spaced(steps, POOL_STEPS)}
    found = [one for one in ready if one.step in kept]
    return sorted(found, key=lambda one: (one.step, -one.precision))


def kinds(session: Session, run: Run) -> list[str]:
    """The kinds of which a run has two checkpoints to battle, the one with the most first."""
    ready = checkpoints.list_checkpoints(session, run)
    by_kind = {kind: sum(one.kind == kind for one in ready) for kind in sorted({one.kind for one in ready})}
    return sorted((kind for kind, num in by_kind.items() if num > 1), key=lambda kind: -by_kind[kind])


def open_battle(session: Session, user: User, run: Run, kind: str, prompt: str, params: Mapping[str, Any]) -> ChatGroup:
    """Ask two checkpoints the same, chosen where a vote tells most, which one is left by chance.

    Args:
        session: the transaction.
        user: who will vote.
        run: whose checkpoints.
        kind: `pretrained` or `chat`; nobody would take one for the other.
        prompt: what is asked.
        params: sampling, the same for both but for the seed.

    Raises:
        Conflict: the run has no two checkpoints of this kind.
        Invalid: the message cannot be sent.
        Refused: the person is banned.
    """
    found = _who_meet(session, run, kind)
    group = chats.open_group(session, user, BATTLE, _pair(session, run, kind, found), " ".join(prompt.split()))
    opened = session.scalars(select(Chat).where(Chat.group_id == group.id).order_by(Chat.place)).all()
    for chat in opened:
        own = {**params, "seed": secrets.randbelow(ages.SEEDS)}
        chats.open_turn(session, chat, prompt, own, lane=tickets.ARENA)
    return group


def expect(session: Session, run: Run, kind: str, size: int) -> Place | None:
    """What waiting somebody should expect who would open a battle now; None while there is no worker.

    It ends when both answers have begun. Nobody knows yet who will meet, so the interval spans the pair that is there
    soonest, with what an engine holds, and one of those that must be fetched first.

    Args:
        session: a read is enough.
        run: whose checkpoints.
        kind: `pretrained` or `chat`.
        size: tokens that each answer may have.

    Raises:
        Conflict: the run has no two checkpoints of this kind.
    """
    held = {facts.get("checkpoint_id") for facts in events.worker_facts().values()}
    ids = sorted((one.id for one in _who_meet(session, run, kind)), key=lambda number: number not in held)
    pairs = {tuple(ids[:2]), tuple(ids[-2:])}
    places = [estimates.expect_last(session, lane=tickets.ARENA, checkpoint_ids=pair, size=size) for pair in pairs]
    known = [place for place in places if place is not None]
    if not known:
        return None
    last = max(known, key=lambda place: place.expected_seconds)
    return last._replace(low_seconds=min(place.low_seconds for place in known))


def get_battle(session: Session, user: User, public_id: str) -> Battle:
    """A person's own battle.

    Raises:
        NotFound: there is none, or it is another person's.
    """
    group = chats.get_group(session, user, public_id)
    if group.kind != BATTLE or len(group.chats) != 2 or not all(chat.turns for chat in group.chats):
        raise NotFound("There is no such battle, or it is another person's.")
    left, right = (chat.turns[0] for chat in group.chats)
    return Battle(group, left, right, _vote_on(session, group))


def unfinished(session: Session, user: User) -> ChatGroup | None:
    """The newest battle that somebody has not voted on, and that can still be voted on."""
    query = select(ChatGroup).outerjoin(Vote, Vote.group_id == ChatGroup.id)
    query = query.where(ChatGroup.user_id == user.id, ChatGroup.kind == BATTLE, ChatGroup.cleared_at.is_(None))
    query = query.order_by(ChatGroup.id.desc()).limit(1).where(Vote.id.is_(None))
    group = session.scalar(query.options(selectinload(ChatGroup.chats).selectinload(Chat.turns)))
    if group is None or any(turn.status in (FAILED, CANCELLED) for chat in group.chats for turn in chat.turns):
        return None
    return group


def give_up(session: Session, battle: Battle) -> None:
    """Leave a battle without a vote; what is still being written is stopped.

    Raises:
        Conflict: it was voted on.
    """
    if battle.vote is not None:
        raise Conflict("You have voted on this battle already.")
    for turn in battle.turns:
        chats.cancel_turn(session, turn)
    battle.group.cleared_at = utcnow()


def vote(session: Session, user: User, battle: Battle, choice: str, address: str) -> Vote:
    """Say which answer is better; who wrote them can be seen from now on.

    Args:
        session: the transaction.
        user: whose battle it is.
        battle: with both answers.
        choice: `left`, `right`, `tie` or `bad`.
        address: where the vote comes from; only its hash is kept.

    Raises:
        Invalid: another choice.
        Conflict: the answers are not whole, or there is a vote already.
    """
    if choice not in votes.CHOICES:
        raise Invalid("Choose left, right, tie or both bad.")
    if battle.vote is not None:
        raise Conflict("You have voted on this battle already.")
    if not battle.is_answered:
        raise Conflict("Both answers must be whole before you can vote.")
    one, other = battle.checkpoints
    made = Vote(
        group_id=battle.group.id,
        run_id=one.run_id,
        left_id=one.id,
        right_id=other.id,
        choice=choice,
        left_tokens=battle.left.completion_tokens or 0,
        right_tokens=battle.right.completion_tokens or 0,
        prompt_hash=votes.digest("prompt", " ".join(battle.left.prompt.split())),
        user_id=user.id,
        voter=votes.pseudonym(user),
        address_hash=votes.digest("address", address),
        signature="",
        created_at=utcnow(),
    )
    made.flags = anomalies.of_vote(session, made, battle.left, battle.right)
    try:
        with session.begin_nested():
            session.add(made)
    except IntegrityError as error:  # two clicks at the same moment
        raise Conflict("You have voted on this battle already.") from error
    votes.sign(session, made)
    if words := anomalies.of_voter(session, user):
        anomalies.flag_voter(session, user, words)
    return made


def count_votes(session: Session, user: User) -> int:
    """How many battles somebody has decided."""
    return session.scalar(select(func.count(Vote.id)).where(Vote.user_id == user.id)) or 0


def _who_meet(session: Session, run: Run, kind: str) -> list[Checkpoint]:
    found = candidates(session, run, kind)
    if len(found) < 2:
        raise Conflict("%(run)s has no two checkpoints that could be held against each other.", run=run.name)
    return found


def _pair(session: Session, run: Run, kind: str, found: Sequence[Checkpoint]) -> list[Checkpoint]:
    tally = standings.board(session, run, kind).tally
    ids = [*tally.ids, *(one.id for one in found if one.id not in set(tally.ids))]
    known = ratings.fit(tally.votes, len(ids))
    own = np.array([ids.index(one.id) for one in found])
    among = ratings.Fit(known.strength[own], known.covariance[np.ix_(own, own)], 0.0)
    steps = sorted({one.step for one in found})
    order = np.array([steps.index(one.step) for one in found])
    return [found[place] for place in ratings.choose_pair(among, order, np.random.default_rng())]


def _vote_on(session: Session, group: ChatGroup) -> Vote | None:
    return session.scalar(select(Vote).where(Vote.group_id == group.id))
