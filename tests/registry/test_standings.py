"""Ratings of a run from its votes: what counts, what does not, and when they are worked out again."""

import pytest
from sqlalchemy.orm import Session

from registry import arena, standings, votes
from registry.models import Checkpoint, Run, User
from tests.factories import make_checkpoint, make_run, make_user
from tests.registry.arena_battles import answer, change_by_hand, favour, open_battle

pytestmark = pytest.mark.usefixtures("no_broker")


@pytest.fixture
def run(session: Session) -> Run:
    """A run with two ages."""
    standings.forget()
    made = make_run(session)
    for step in (0, 100):
        make_checkpoint(session, made, step)
    return made


@pytest.fixture
def oldest(session: Session, run: Run) -> Checkpoint:
    """The one that is better."""
    return arena.candidates(session, run, "pretrained")[-1]


def prefer(session: Session, run: Run, better: Checkpoint, num: int = 1, user: User | None = None) -> list[int]:
    """Votes of different people for one checkpoint; gives their ids."""
    made = []
    for _ in range(num):
        voter = user or make_user(session)
        battle = answer(session, voter, open_battle(session, voter, run))
        made.append(arena.vote(session, voter, battle, favour(battle, better), f"10.0.0.{voter.id % 250}").id)
    session.flush()
    return made


def test_nothing_is_rated_before_a_vote(session: Session, run: Run) -> None:
    board = standings.board(session, run, "pretrained")
    assert board.standings == []
    assert (board.num_votes, board.num_voters) == (0, 0)


def test_who_wins_is_rated_higher(session: Session, run: Run, oldest: Checkpoint) -> None:
    prefer(session, run, oldest, 5)
    board = standings.board(session, run, "pretrained")
    young, old = board.standings
    assert old.checkpoint.id == oldest.id
    assert old.low < old.rating < old.high
    assert old.rating > 1000 > young.rating
    assert (old.num_votes, old.num_wins, old.num_losses, old.win_rate) == (5, 5, 0, 1.0)
    assert board.meetings[old.checkpoint.id, young.checkpoint.id] == standings.Meeting(5, 5.0)
    assert (board.num_votes, board.num_voters) == (5, 5)
    assert board.is_connected


def test_it_is_remembered_until_a_vote_comes(session: Session, run: Run, oldest: Checkpoint) -> None:
    prefer(session, run, oldest, 2)
    first = standings.board(session, run, "pretrained")
    assert standings.board(session, run, "pretrained") is first
    prefer(session, run, oldest)
    assert standings.board(session, run, "pretrained").num_votes == 3


def test_flagged_votes_do_not_count_until_they_are_cleared(session: Session, run: Run, oldest: Checkpoint) -> None:
    first, _ = prefer(session, run, oldest, 2)
    vote = session.get_one(standings.Vote, first)
    vote.flags = ["fast"]
    votes.sign(session, vote)
    session.flush()
    board = standings.board(session, run, "pretrained")
    assert (board.num_votes, board.tally.num_left_out) == (1, 1)
    votes.settle(session, make_user(session, role="admin"), first, does_count=True)
    session.flush()
    assert standings.board(session, run, "pretrained").num_votes == 2


def test_a_row_that_was_changed_by_hand_does_not_count(session: Session, run: Run, oldest: Checkpoint) -> None:
    first, _ = prefer(session, run, oldest, 2)
    change_by_hand(session, session.get_one(standings.Vote, first), choice="bad")
    assert standings.board(session, run, "pretrained").num_votes == 1


def test_kinds_have_ratings_of_their_own(session: Session, run: Run, oldest: Checkpoint) -> None:
    prefer(session, run, oldest)
    assert standings.board(session, run, "chat").standings == []


def test_a_vote_says_what_it_changed(session: Session, run: Run, oldest: Checkpoint) -> None:
    first, second = prefer(session, run, oldest, 2)
    vote = session.get_one(standings.Vote, first)
    found = standings.changes(session, run, vote)
    before, after = found[oldest.id]
    assert before == pytest.approx(1000)
    assert after > 1000
    # What the later vote did begins where this one ended.
    assert standings.changes(session, run, session.get_one(standings.Vote, second))[oldest.id][0] == pytest.approx(
        after
    )


def test_a_flagged_vote_changes_nothing(session: Session, run: Run, oldest: Checkpoint) -> None:
    voter = make_user(session)
    battle = answer(session, voter, open_battle(session, voter, run), ("same", "same"))
    vote = arena.vote(session, voter, battle, "left", "10.0.0.1")
    session.flush()
    assert standings.changes(session, run, vote) == {}
