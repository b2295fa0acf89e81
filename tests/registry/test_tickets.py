"""The line: who goes first, and what happens when a worker goes silent."""

import datetime as dt

import pytest
from sqlalchemy.orm import Session

from registry import chats, evaluations, tickets
from registry.errors import Conflict
from registry.models import Checkpoint, Ticket, Turn
from registry.models.base import CANCELLED, FINISHED, QUEUED, RUNNING, utcnow
from tests.factories import make_checkpoint, make_run, make_task, make_user


def ask(session: Session, checkpoint: Checkpoint, prompt: str = "hello") -> Turn:
    """A visitor's queued message."""
    turn = chats.open_turn(session, chats.open_chat(session, make_user(session), checkpoint), prompt)
    session.flush()
    return turn


def test_a_chat_goes_before_an_evaluation_that_waited_longer(session: Session) -> None:
    make_task(session)
    checkpoint = make_checkpoint(session, make_run(session))
    evaluations.plan(session, checkpoint)
    turn = ask(session, checkpoint)
    first = tickets.claim(session, "w1")
    second = tickets.claim(session, "w1")
    assert first is not None
    assert first.turn_id == turn.id
    assert second is not None
    assert second.evaluation_id is not None
    assert tickets.claim(session, "w1") is None


def test_within_a_lane_the_resident_checkpoint_goes_first_then_the_oldest(session: Session) -> None:
    run = make_run(session)
    old, resident = make_checkpoint(session, run, 1), make_checkpoint(session, run, 2)
    first, second, third = ask(session, old), ask(session, resident), ask(session, old)
    order = [tickets.claim(session, "w", resident_id=resident.id) for _ in range(3)]
    assert [claim.turn_id for claim in order if claim] == [second.id, first.id, third.id]


def test_a_ticket_of_an_unverified_checkpoint_waits_and_blocks_nobody(session: Session) -> None:
    run = make_run(session)
    make_task(session)
    unready = make_checkpoint(session, run, 1, ready=False)
    evaluations.plan(session, unready)
    assert tickets.num_queued(session) == 0
    ready = make_checkpoint(session, run, 2)
    turn = ask(session, ready)
    claim = tickets.claim(session, "w")
    assert claim is not None
    assert claim.turn_id == turn.id


def test_a_worker_bound_to_one_checkpoint_gets_only_its_tickets(session: Session) -> None:
    run = make_run(session)
    here, there = make_checkpoint(session, run, 1), make_checkpoint(session, run, 2)
    ask(session, there)
    assert tickets.claim(session, "w", only_checkpoint_id=here.id) is None
    assert tickets.oldest_wait(session, not_checkpoint_id=here.id) is not None
    assert tickets.oldest_wait(session, not_checkpoint_id=there.id) is None


def test_a_silent_workers_ticket_is_taken_over_and_its_late_report_is_refused(session: Session) -> None:
    ask(session, make_checkpoint(session, make_run(session)))
    lost = tickets.claim(session, "dead", lease_seconds=-1)
    assert lost is not None
    assert tickets.reclaim_expired(session) == 1
    taken = tickets.claim(session, "alive")
    assert taken is not None
    assert (taken.ticket_id, taken.fence) == (lost.ticket_id, lost.fence + 1)
    assert tickets.renew(session, lost.ticket_id, lost.fence) is False
    with pytest.raises(Conflict, match="no longer held"):
        tickets.finish(session, lost.ticket_id, lost.fence)
    tickets.finish(session, taken.ticket_id, taken.fence)
    session.expire_all()
    assert session.get_one(Ticket, taken.ticket_id).status == FINISHED


def test_a_renewed_lease_is_not_reclaimed(session: Session) -> None:
    ask(session, make_checkpoint(session, make_run(session)))
    claim = tickets.claim(session, "w", lease_seconds=-1)
    assert claim is not None
    assert tickets.renew(session, claim.ticket_id, claim.fence, lease_seconds=60)
    assert tickets.reclaim_expired(session) == 0


def test_given_back_keeps_its_place(session: Session) -> None:
    checkpoint = make_checkpoint(session, make_run(session))
    first, _second = ask(session, checkpoint), ask(session, checkpoint)
    claim = tickets.claim(session, "w")
    assert claim is not None
    tickets.give_back(session, claim.ticket_id, claim.fence)
    again = tickets.claim(session, "w")
    assert again is not None
    assert again.turn_id == first.id


def test_a_cancelled_ticket_is_lost_to_the_worker_that_holds_it(session: Session) -> None:
    turn = ask(session, make_checkpoint(session, make_run(session)))
    claim = tickets.claim(session, "w")
    assert claim is not None
    assert tickets.cancel(session, turn_id=turn.id)
    assert not tickets.renew(session, claim.ticket_id, claim.fence)
    assert not tickets.cancel(session, turn_id=turn.id)
    session.expire_all()
    assert session.get_one(Ticket, claim.ticket_id).status == CANCELLED


class TestPosition:
    def test_counts_what_is_worked_on_and_what_is_claimed_before(self, session: Session) -> None:
        make_task(session)
        checkpoint = make_checkpoint(session, make_run(session))
        evaluations.plan(session, checkpoint)
        assert tickets.claim(session, "w") is not None  # the evaluation runs
        ask(session, checkpoint)
        mine = tickets.for_turn(session, ask(session, checkpoint).id)
        assert mine is not None
        where = tickets.position(session, mine)
        assert (where.ahead_chats, where.ahead_evaluations) == (1, 1)
        assert 0 < where.low_seconds < where.high_seconds

    def test_the_estimate_follows_measured_durations(self, session: Session) -> None:
        checkpoint = make_checkpoint(session, make_run(session))
        done = tickets.for_turn(session, ask(session, checkpoint).id)
        assert done is not None
        done.status, done.claimed_at, done.finished_at = FINISHED, utcnow() - dt.timedelta(seconds=100), utcnow()
        ask(session, checkpoint)
        mine = tickets.for_turn(session, ask(session, checkpoint).id)
        assert mine is not None
        where = tickets.position(session, mine)
        assert where.low_seconds < 100 < where.high_seconds

    def test_nothing_ahead_is_no_waiting(self, session: Session) -> None:
        mine = tickets.for_turn(session, ask(session, make_checkpoint(session, make_run(session))).id)
        assert mine is not None
        assert tickets.position(session, mine) == (0, 0, 0, 0)


def test_open_tickets_are_counted_by_lane_and_status(session: Session) -> None:
    checkpoint = make_checkpoint(session, make_run(session))
    ask(session, checkpoint)
    ask(session, checkpoint)
    tickets.claim(session, "w")
    assert tickets.count_by_lane(session) == {("chat", QUEUED): 1, ("chat", RUNNING): 1}
