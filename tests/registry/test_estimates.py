"""What waiting to expect, and that the interval learns from how wrong it was."""

import datetime as dt
import random

import numpy as np
import pytest
from sqlalchemy import select
from sqlalchemy.orm import Session

from registry import chats, estimates, evaluations, events, tickets
from registry.models import Checkpoint, Ticket, User
from registry.models.base import FINISHED, utcnow
from tests.factories import make_checkpoint, make_run, make_task, make_user


@pytest.fixture
def worker(redis_url: str) -> str:
    """A worker that gives signs and has measured its swaps."""
    facts = {"checkpoint_id": None, "max_answers": 1, "patience": 20.0, "load_seconds": 0.5}
    events.worker_beat("w", "idle", facts)
    return "w"


@pytest.fixture(autouse=True)
def _no_past() -> None:
    estimates.forget()


def ask(session: Session, checkpoint: Checkpoint, user: User | None = None, tokens: int = 100) -> Ticket:
    chat = chats.open_chat(session, user or make_user(session), checkpoint)
    turn = chats.open_turn(session, chat, "hello", {"max_tokens": tokens})
    ticket = tickets.for_turn(session, turn.id)
    assert ticket is not None
    return ticket


def test_without_a_worker_nothing_is_promised(session: Session, redis_url: str) -> None:
    ticket = ask(session, make_checkpoint(session, make_run(session)))
    assert ticket.expected_seconds is None
    assert estimates.places(session) == {}


def test_the_first_one_is_next(session: Session, worker: str) -> None:
    ticket = ask(session, make_checkpoint(session, make_run(session)))
    place = estimates.places(session)[ticket.id]
    assert (place.ahead_chats, place.ahead_evaluations) == (0, 0)
    assert place.expected_seconds == pytest.approx(0.5), "the swap"


def test_chats_and_a_slice_ahead_are_counted_and_waited_for(session: Session, worker: str) -> None:
    make_task(session)
    run = make_run(session)
    first, second = make_checkpoint(session, run, 1), make_checkpoint(session, run, 2)
    evaluations.plan(session, first)
    assert tickets.claim(session, worker) is not None
    ask(session, second)
    mine = ask(session, second)
    place = estimates.places(session)[mine.id]
    assert (place.ahead_chats, place.ahead_evaluations) == (1, 1)
    assert place.low_seconds < place.expected_seconds < place.high_seconds
    assert place.expected_seconds > estimates.SECONDS_A_TOKEN * 100


def test_what_is_told_before_sending_is_what_is_kept_with_the_ticket(session: Session, worker: str) -> None:
    checkpoint = make_checkpoint(session, make_run(session))
    ask(session, checkpoint)
    told = estimates.expect(session, lane=tickets.CHAT, checkpoint_id=checkpoint.id, size=100)
    assert told is not None
    ticket = ask(session, checkpoint)
    assert ticket.expected_seconds == pytest.approx(told.expected_seconds, abs=0.2)
    assert ticket.low_seconds is not None
    assert ticket.high_seconds is not None
    assert ticket.low_seconds <= ticket.expected_seconds <= ticket.high_seconds


def test_of_several_sent_at_once_the_last_one_is_waited_for_and_the_others_are_not_counted(
    session: Session, worker: str
) -> None:
    run = make_run(session)
    ids = [make_checkpoint(session, run, step).id for step in (1, 2)]
    size = 100
    alone = estimates.expect(session, lane=tickets.ARENA, checkpoint_id=ids[0], size=size)
    both = estimates.expect_last(session, lane=tickets.ARENA, checkpoint_ids=ids, size=size)
    assert alone is not None
    assert both is not None
    assert both.expected_seconds > alone.expected_seconds + estimates.SECONDS_A_TOKEN * size
    assert both.ahead_chats == alone.ahead_chats == 0
    assert estimates.expect_last(session, lane=tickets.ARENA, checkpoint_ids=[], size=size) is None


def test_how_long_answers_take_is_learnt(session: Session, worker: str) -> None:
    checkpoint = make_checkpoint(session, make_run(session))
    for _ in range(3):
        done = ask(session, checkpoint)
        begin = utcnow() - dt.timedelta(seconds=60)
        done.status, done.claimed_at, done.started_at = FINISHED, begin, begin
        done.finished_at = begin + dt.timedelta(seconds=50)
    session.flush()
    estimates.forget()
    assert estimates.experience(session).seconds_a_token == pytest.approx(0.5)
    ask(session, checkpoint)
    mine = ask(session, checkpoint)
    assert estimates.places(session)[mine.id].expected_seconds > 50


def told(expected: float, ratios: list[float]) -> tuple[float, float]:
    return estimates.interval(expected, estimates.Experience(*estimates.spread(ratios), 0.03, 4.0))


def test_the_interval_is_as_wide_as_the_past_was_wrong() -> None:
    assert told(10.0, [1.0] * 200) == pytest.approx((10.0, 10.0))
    low, high = told(10.0, list(np.random.default_rng(1).lognormal(0.0, 0.5, 200)))
    assert low < 6
    assert high > 18


def test_without_a_past_it_is_wide() -> None:
    low, high = told(10.0, [])
    assert low < 5
    assert high > 20


def test_nine_in_ten_waits_lie_in_their_intervals_whatever_the_bias() -> None:
    """Waits come out at 1.7 times what the schedule says, scattered by half: the intervals learn it."""
    draw = random.Random(5)
    ratios: list[float] = []
    hits = []
    for number in range(700):
        expected = draw.expovariate(1 / 8)
        actual = expected * 1.7 * draw.lognormvariate(0.0, 0.5)
        low, high = told(expected, ratios[-estimates.REMEMBERED :])
        if number >= 200:
            hits.append(low <= actual <= high)
        ratios.append((actual + estimates.GRAIN_SECONDS) / (expected + estimates.GRAIN_SECONDS))
    assert np.mean(hits) >= 0.85


def test_a_cancelled_ticket_teaches_nothing(session: Session, worker: str) -> None:
    ask(session, make_checkpoint(session, make_run(session)))
    ticket = session.scalars(select(Ticket)).one()
    before = estimates.experience(session)
    ticket.started_at, ticket.expected_seconds = utcnow() + dt.timedelta(hours=1), 0.0
    tickets.cancel(session, turn_id=ticket.turn_id)
    estimates.forget()
    assert estimates.experience(session) == before
