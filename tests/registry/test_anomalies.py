"""Odd votes are flagged, honest ones are not."""

import datetime as dt
import itertools

import pytest
from sqlalchemy import select
from sqlalchemy.orm import Session

from registry import anomalies, arena, votes
from registry.models import Run, User, Vote
from registry.models.base import utcnow
from tests.factories import make_checkpoint, make_run, make_user
from tests.registry.arena_battles import answer, decide, open_battle

pytestmark = pytest.mark.usefixtures("no_broker")


@pytest.fixture
def user(session: Session) -> User:
    """Who votes."""
    return make_user(session)


@pytest.fixture
def run(session: Session) -> Run:
    """A run with two ages."""
    made = make_run(session)
    for step in (0, 100):
        make_checkpoint(session, made, step)
    return made


def add_votes(session: Session, user: User, run: Run, choices: list[str], tokens: tuple[int, int] = (3, 3)) -> None:
    """Votes of earlier days, without their battles."""
    one = arena.candidates(session, run, "pretrained")
    for number, choice in enumerate(choices):
        vote = Vote(
            run_id=run.id, left_id=one[0].id, right_id=one[1].id, choice=choice, left_tokens=tokens[0],
            right_tokens=tokens[1], prompt_hash=f"{number:064}", user_id=user.id, voter=votes.pseudonym(user),
            address_hash=votes.digest("address", "10.0.0.1"), signature="", flags=[],
            created_at=utcnow() - dt.timedelta(days=2),
        )  # fmt: skip
        session.add(vote)
        votes.sign(session, vote)
    session.flush()


def test_a_vote_before_the_answers_could_be_read(session: Session, user: User, run: Run) -> None:
    long = ("word " * 100, "other " * 100)
    battle = answer(session, user, open_battle(session, user, run), long, ago=dt.timedelta(seconds=2))
    assert arena.vote(session, user, battle, "left", "10.0.0.1").flags == ["fast"]


def test_a_glance_is_enough_for_short_ones(session: Session, user: User, run: Run) -> None:
    battle = answer(session, user, open_battle(session, user, run), ago=dt.timedelta(seconds=2))
    assert arena.vote(session, user, battle, "left", "10.0.0.1").flags == []


def test_identical_answers_say_nothing(session: Session, user: User, run: Run) -> None:
    battle = answer(session, user, open_battle(session, user, run), ("the same", " the same\n"))
    assert arena.vote(session, user, battle, "right", "10.0.0.1").flags == ["identical"]


def test_the_same_question_about_the_same_pair_counts_once(session: Session, user: User, run: Run) -> None:
    assert decide(session, user, run, prompt="Who  are you?").flags == []
    assert decide(session, user, run, prompt="Who are you? ").flags == ["repeated"]
    assert decide(session, user, run, prompt="Where are you?").flags == []
    assert decide(session, make_user(session), run, prompt="Who are you?").flags == []


def test_many_votes_from_one_address_at_once(session: Session, run: Run) -> None:
    people = itertools.cycle([make_user(session) for _ in range(4)])
    made = [
        decide(session, next(people), run, choice, prompt=f"{number}")
        for number, choice in zip(range(anomalies.BURST_VOTES + 1), itertools.cycle(["left", "right", "tie"]))
    ]
    assert [vote.flags for vote in made[:-1]] == [[]] * anomalies.BURST_VOTES
    assert made[-1].flags == ["burst"]
    assert decide(session, next(people), run, prompt="elsewhere", address="10.0.0.2").flags == []


class TestVoters:
    def test_whoever_always_takes_the_same_side_is_flagged_with_all_their_votes(
        self, session: Session, user: User, run: Run
    ) -> None:
        add_votes(session, user, run, ["left"] * 14)
        assert anomalies.of_voter(session, user) == []
        vote = decide(session, user, run, "left", tokens=(3, 3))
        assert vote.flags == ["one-sided"]
        flags = session.scalars(select(Vote.flags).where(Vote.user_id == user.id)).all()
        assert list(flags) == [["one-sided"]] * 15
        assert votes.verify(session) == []

    def test_chance_may_favour_a_side(self, session: Session, user: User, run: Run) -> None:
        add_votes(session, user, run, ["left"] * 20 + ["right"] * 8 + ["tie"] * 5)
        assert anomalies.of_voter(session, user) == []

    def test_whoever_always_takes_the_longer_one_is_flagged(self, session: Session, user: User, run: Run) -> None:
        for number in range(35):
            choice, tokens = ("left", (9, 3)) if number % 2 else ("right", (3, 9))
            add_votes(session, user, run, [choice], tokens)
        assert anomalies.of_voter(session, user) == ["longer"]

    def test_a_liking_for_longer_ones_is_human(self, session: Session, user: User, run: Run) -> None:
        for number in range(40):
            choice = "left" if number % 2 else "right"
            longer = choice if number % 5 else {"left": "right", "right": "left"}[choice]
            add_votes(session, user, run, [choice], (9, 3) if longer == "left" else (3, 9))
        assert anomalies.of_voter(session, user) == []

    def test_cleared_votes_are_not_held_against_anybody_again(self, session: Session, user: User, run: Run) -> None:
        add_votes(session, user, run, ["left"] * 15)
        anomalies.flag_voter(session, user, anomalies.of_voter(session, user))
        admin = make_user(session, role="admin")
        for number in session.scalars(select(Vote.id)).all():
            votes.settle(session, admin, number, does_count=True)
        assert decide(session, user, run, "left").flags == []
        assert votes.count_waiting(session) == 0
