"""What is odd about a vote: rules that set flags. A flagged vote is kept and does not count until somebody clears it.

The rules catch what is careless or crude. Each says what an honest voter would hardly do; the numbers are ours,
tried on made-up voters.
"""

import datetime as dt
from collections.abc import Sequence

from scipy.stats import binomtest
from sqlalchemy import func, or_, select
from sqlalchemy.orm import Session

from registry import votes
from registry.models import Turn, User, Vote
from registry.votes import CLEARED, CONFIRMED, LEFT, RIGHT

FAST, IDENTICAL, REPEATED, ONE_SIDED, LONGER, BURST = "fast", "identical", "repeated", "one-sided", "longer", "burst"
FLAGS = (FAST, IDENTICAL, REPEATED, ONE_SIDED, LONGER, BURST)

SKIMMED_BYTES = 100.0
"""UTF-8 bytes a second: four times what people read in English or Chinese (Brysbaert 2019)."""
LEAST_SECONDS, MOST_SECONDS = 1.0, 6.0
"""However short both answers are; and however long, since noise is seen at a glance."""
REMEMBERED = 60
"""A voter's last votes, to which the rules about a voter look."""
UNLIKELY = 1e-4
"""An honest voter is flagged by a rule about voters this rarely; small, since it is asked anew at each vote."""
LONGER_SHARE = 0.75
"""The share of longer answers that an honest voter may well prefer: people do like them better."""
BURST_VOTES = 20
BURST_TIME = dt.timedelta(minutes=10)


def of_vote(session: Session, vote: Vote, left: Turn, right: Turn) -> list[str]:
    """What is odd about this vote by itself; for one that is not flushed yet."""
    rules = (
        (FAST, _is_fast(vote.created_at, left, right)),
        (IDENTICAL, left.answer.strip() == right.answer.strip()),
        (REPEATED, _is_repeated(session, vote)),
        (BURST, _is_burst(session, vote)),
    )
    return [word for word, applies in rules if applies]


def of_voter(session: Session, user: User) -> list[str]:
    """What is odd about how somebody votes, by their last votes without those that were cleared."""
    query = select(Vote.choice, Vote.left_tokens, Vote.right_tokens, Vote.flags).where(Vote.user_id == user.id)
    rows = session.execute(query.where(Vote.choice.in_((LEFT, RIGHT))).order_by(Vote.id.desc()).limit(REMEMBERED)).all()
    kept = [row for row in rows if CLEARED not in row.flags]
    on_left = [row.choice == LEFT for row in kept]
    uneven = [row for row in kept if row.left_tokens != row.right_tokens]
    for_longer = [(row.choice == LEFT) == (row.left_tokens > row.right_tokens) for row in uneven]
    found = []
    if on_left and binomtest(sum(on_left), len(on_left)).pvalue < UNLIKELY:
        found.append(ONE_SIDED)
    if for_longer and binomtest(sum(for_longer), len(for_longer), LONGER_SHARE, "greater").pvalue < UNLIKELY:
        found.append(LONGER)
    return found


def flag_voter(session: Session, user: User, words: Sequence[str]) -> None:
    """Flag all votes of somebody that nobody has decided about: what is odd about a voter is so of each vote."""
    for vote in session.scalars(select(Vote).where(Vote.user_id == user.id).order_by(Vote.id)).all():
        missing = [word for word in words if word not in vote.flags]
        is_settled = CLEARED in vote.flags or CONFIRMED in vote.flags
        if missing and not is_settled and votes.is_genuine(vote):
            vote.flags = [*vote.flags, *missing]
            votes.sign(session, vote)


def _is_fast(voted_at: dt.datetime, left: Turn, right: Turn) -> bool:
    """Sooner than both answers could be skimmed, counted from the first word of the first one."""
    begun = [turn.started_at or turn.created_at for turn in (left, right)]
    size = len(left.answer.encode()) + len(right.answer.encode())
    needed = min(MOST_SECONDS, max(LEAST_SECONDS, size / SKIMMED_BYTES))
    return (voted_at - min(begun)).total_seconds() < needed


def _is_repeated(session: Session, vote: Vote) -> bool:
    """The same voter, the same prompt, the same pair, either way round: it counts once."""
    same = or_(
        (Vote.left_id == vote.left_id) & (Vote.right_id == vote.right_id),
        (Vote.left_id == vote.right_id) & (Vote.right_id == vote.left_id),
    )
    query = select(Vote.id).where(Vote.voter == vote.voter, Vote.run_id == vote.run_id, same)
    return session.scalar(query.where(Vote.prompt_hash == vote.prompt_hash).limit(1)) is not None


def _is_burst(session: Session, vote: Vote) -> bool:
    """More votes from one address than its people could think about."""
    query = select(func.count(Vote.id)).where(Vote.address_hash == vote.address_hash)
    return (session.scalar(query.where(Vote.created_at > vote.created_at - BURST_TIME)) or 0) >= BURST_VOTES
