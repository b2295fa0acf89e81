"""Ratings of a run's checkpoints from its votes, worked out again when votes have come, and remembered until then."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from threading import Lock
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from sqlalchemy import String, cast, func, select
from sqlalchemy.orm import Session

from analysis import ratings
from analysis.clusters import Floats
from analysis.ratings import Ints, Ratings
from registry import votes
from registry.models import Checkpoint, Run, Vote
from registry.settings import get_settings
from registry.votes import LEFT, RIGHT

SCORES = {LEFT: 1.0, RIGHT: 0.0}
"""What the left answer got; anything else, a tie or both bad, is half a win."""
EXACT_VOTES = 1000
"""From so many votes on, the ratings are worked out anew for each hundredth more."""
REMEMBERED_BOARDS = 64


class Standing(NamedTuple):
    """One checkpoint's place, in Elo points."""

    checkpoint: Checkpoint
    rating: float
    low: float
    high: float
    at_equal_length: float
    at_equal_length_low: float
    at_equal_length_high: float
    num_votes: int
    num_wins: int
    num_even: int
    """Ties and both bad."""
    component: int

    @property
    def num_losses(self) -> int:
        """Votes that went to the other one."""
        return self.num_votes - self.num_wins - self.num_even

    @property
    def win_rate(self) -> float:
        """Of its votes, a tie as a half."""
        return (self.num_wins + self.num_even / 2) / self.num_votes


class Meeting(NamedTuple):
    """What became of the votes between two checkpoints."""

    num_votes: int
    score: float
    """Wins of the first one, a tie as a half."""


@dataclass(frozen=True)
class Tally:
    """The votes that count, as columns: candidates and voters by their numbers, and the ids they stand for."""

    ids: Sequence[int]
    """Of the checkpoints."""
    votes: ratings.Votes
    vote_ids: Ints
    num_left_out: int
    """Votes that are flagged or were changed by hand."""


@dataclass(frozen=True)
class Board:
    """All checkpoints of one kind with votes, the youngest first."""

    standings: Sequence[Standing]
    tally: Tally
    meetings: dict[tuple[int, int], Meeting]
    """By the ids of both checkpoints, either way round."""
    length_effect: float
    """Odds of an answer that is all the words there are, over one of equal length, as a logarithm."""

    @property
    def num_votes(self) -> int:
        """How many count."""
        return int(self.tally.votes.left.size)

    @property
    def num_voters(self) -> int:
        """How many people voted."""
        return int(np.unique(self.tally.votes.voter).size)

    @property
    def is_connected(self) -> bool:
        """Whether all ratings are on one scale."""
        return len({one.component for one in self.standings}) <= 1


_boards: dict[tuple[str, int, str], tuple[object, Board]] = {}
_lock = Lock()  # request threads remember boards


def board(session: Session, run: Run, kind: str) -> Board:
    """The ratings of a run's checkpoints of a kind, with intervals, plain and at equal lengths."""
    key, state = (get_settings().database, run.id, kind), _state(session, run)
    with _lock:
        known = _boards.get(key)
    if known is not None and known[0] == state:
        return known[1]
    made = _make(session, run, kind)
    with _lock:
        if len(_boards) >= REMEMBERED_BOARDS:
            _boards.clear()
        _boards[key] = (state, made)
    return made


def forget() -> None:
    """Let go of all that is remembered, for tests."""
    with _lock:
        _boards.clear()


def changes(session: Session, run: Run, vote: Vote) -> dict[int, tuple[float, float]]:
    """What one vote did to the two ratings, before and after it, by checkpoint; nothing where it does not count."""
    left, right = session.get_one(Checkpoint, vote.left_id), session.get_one(Checkpoint, vote.right_id)
    tally = board(session, run, left.kind).tally
    if vote.id not in tally.vote_ids:
        tally = load(session, run, left.kind)
    if vote.id not in tally.vote_ids:
        return {}
    before, after = tally.vote_ids < vote.id, tally.vote_ids <= vote.id
    points = [_points(tally, rows) for rows in (before, after)]
    places = {one.id: tally.ids.index(one.id) for one in (left, right)}
    return {number: (float(points[0][place]), float(points[1][place])) for number, place in places.items()}


def load(session: Session, run: Run, kind: str) -> Tally:
    """The votes that count."""
    columns = [getattr(Vote, name) for name in votes.SIGNED]
    of_kind = select(Checkpoint.id).where(Checkpoint.run_id == run.id, Checkpoint.kind == kind)
    query = select(*columns, Vote.signature).where(Vote.run_id == run.id, Vote.left_id.in_(of_kind))
    rows = session.execute(query.order_by(Vote.id)).all()
    kept = [row for row in rows if votes.counts(row.flags) and votes.signature_of(row[:-1]) == row.signature]
    ids = sorted({number for row in kept for number in (row.left_id, row.right_id)})
    place = {number: at for at, number in enumerate(ids)}
    voters = {name: at for at, name in enumerate(dict.fromkeys(row.voter for row in kept))}
    columned = ratings.Votes(
        left=np.array([place[row.left_id] for row in kept], np.int64),
        right=np.array([place[row.right_id] for row in kept], np.int64),
        score=np.array([SCORES.get(row.choice, 0.5) for row in kept], np.float64),
        voter=np.array([voters[row.voter] for row in kept], np.int64),
        length=ratings.relative_length([row.left_tokens for row in kept], [row.right_tokens for row in kept]),
    )
    return Tally(ids, columned, np.array([row.id for row in kept], np.int64), len(rows) - len(kept))


def _state(session: Session, run: Run) -> object:
    """Changes whenever the ratings should: with votes, and with what administrators decide about them."""
    text = cast(Vote.flags, String)
    rows = session.execute(select(text, func.count(Vote.id)).where(Vote.run_id == run.id).group_by(text)).all()
    by_flags = {str(flags): number for flags, number in rows}
    counting = by_flags.pop("[]", 0)
    rough = counting if counting < EXACT_VOTES else math.floor(math.log(counting) / math.log(1.01))
    return rough, tuple(sorted(by_flags.items()))


def _make(session: Session, run: Run, kind: str) -> Board:
    tally = load(session, run, kind)
    num = len(tally.ids)
    plain = ratings.rate(tally.votes, num)
    even = ratings.rate(tally.votes, num, by_length=True)
    effect = ratings.fit(tally.votes, num, by_length=True).length_effect if num else 0.0
    by_id = {one.id: one for one in session.scalars(select(Checkpoint).where(Checkpoint.id.in_(tally.ids)))}
    found = [_standing(by_id[number], at, tally.votes, plain, even) for at, number in enumerate(tally.ids)]
    found.sort(key=lambda one: (one.checkpoint.step, -one.checkpoint.precision))
    return Board(found, tally, _meetings(tally), effect)


def _standing(checkpoint: Checkpoint, at: int, cast_votes: ratings.Votes, plain: Ratings, even: Ratings) -> Standing:
    got = np.concatenate((cast_votes.score[cast_votes.left == at], 1 - cast_votes.score[cast_votes.right == at]))
    return Standing(
        checkpoint=checkpoint,
        rating=float(plain.rating[at]),
        low=float(plain.low[at]),
        high=float(plain.high[at]),
        at_equal_length=float(even.rating[at]),
        at_equal_length_low=float(even.low[at]),
        at_equal_length_high=float(even.high[at]),
        num_votes=int(plain.num_votes[at]),
        num_wins=int((got == 1).sum()),
        num_even=int((got == 0.5).sum()),
        component=int(plain.component[at]),
    )


def _meetings(tally: Tally) -> dict[tuple[int, int], Meeting]:
    found: dict[tuple[int, int], Meeting] = {}
    rows = zip(tally.votes.left.tolist(), tally.votes.right.tolist(), tally.votes.score.tolist(), strict=True)
    for left, right, score in rows:
        for one, other, got in ((left, right, score), (right, left, 1 - score)):
            pair = (tally.ids[one], tally.ids[other])
            before = found.get(pair, Meeting(0, 0.0))
            found[pair] = Meeting(before.num_votes + 1, before.score + got)
    return found


def _points(tally: Tally, rows: npt.NDArray[np.bool_]) -> Floats:
    left, right, score, voter, length = tally.votes
    chosen = ratings.Votes(left[rows], right[rows], score[rows], voter[rows], length[rows])
    return ratings.rate(chosen, len(tally.ids), num_resamples=0).rating
