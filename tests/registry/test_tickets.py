"""The line: who goes first, and what happens when a worker goes silent."""

import datetime as dt

import pytest
from sqlalchemy import select
from sqlalchemy.orm import Session

from registry import chats, evaluations, tickets
from registry.errors import Conflict
from registry.models import Checkpoint, Ticket, Turn, User
from registry.models.base import CANCELLED, FINISHED, QUEUED, RUNNING, utcnow
from tests.factories import make_checkpoint, make_run, make_task, make_user


def ask(session: Session, checkpoint: Checkpoint, prompt: str = "hello") -> Turn:
    """A visitor's queued message."""
    turn = chats.open_turn(session, chats.open_chat(session, make_user(session), checkpoint), prompt)
    session.flush()
    return turn


def ask_as(session: Session, user: User, checkpoint: Checkpoint) -> Turn:
    """A queued message of this person, in a conversation of its own."""
    return chats.open_turn(session, chats.open_chat(session, user, checkpoint), "hello")


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
    assert list(tickets.waiting_since(session, tickets.ANSWERS)) == [there.id]


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
    assert tickets.give_back(session, claim.ticket_id, claim.fence)
    assert not tickets.give_back(session, claim.ticket_id, claim.fence)
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


class TestFairness:
    def test_nobodys_second_question_goes_before_somebodys_first(self, session: Session) -> None:
        checkpoint = make_checkpoint(session, make_run(session))
        eager, late = make_user(session), make_user(session)
        many = [ask_as(session, eager, checkpoint).id for _ in range(3)]
        one = ask_as(session, late, checkpoint).id
        order = [tickets.claim(session, "w") for _ in range(4)]
        assert [claim.turn_id for claim in order if claim] == [many[0], one, many[1], many[2]]

    def test_answers_under_way_count_as_turns_that_were_had(self, session: Session) -> None:
        checkpoint = make_checkpoint(session, make_run(session))
        eager, late = make_user(session), make_user(session)
        for _ in range(2):
            ask_as(session, eager, checkpoint)
        assert tickets.claim(session, "w") is not None
        second = ask_as(session, late, checkpoint).id
        claim = tickets.claim(session, "w")
        assert claim is not None
        assert claim.turn_id == second


class TestLanes:
    def test_chat_goes_before_arena_before_probes_before_evaluation(self, session: Session) -> None:
        make_task(session)
        checkpoint = make_checkpoint(session, make_run(session))
        evaluations.plan(session, checkpoint)
        for lane in (tickets.PROBE, tickets.ARENA, tickets.CHAT):
            chat = chats.open_chat(session, make_user(session), checkpoint)
            chats.open_turn(session, chat, "hello", lane=lane)
        order = [tickets.claim(session, "w") for _ in range(4)]
        assert [claim.lane for claim in order if claim] == [
            tickets.CHAT,
            tickets.ARENA,
            tickets.PROBE,
            tickets.EVALUATION,
        ]

    def test_a_lane_that_had_nothing_for_long_is_starving(self, session: Session) -> None:
        make_task(session)
        checkpoint = make_checkpoint(session, make_run(session))
        evaluations.plan(session, checkpoint)
        lanes = tuple(tickets.LANES)
        assert tickets.starving_lane(session, lanes) is None
        ticket = session.scalars(select(Ticket)).one()
        ticket.issued_at = utcnow() - dt.timedelta(seconds=tickets.GUARANTEED_SECONDS[tickets.EVALUATION] + 1)
        session.flush()
        assert tickets.starving_lane(session, lanes) == tickets.EVALUATION
        assert tickets.starving_lane(session, (tickets.CHAT,)) is None
        assert tickets.has_waiting(session, tickets.EVALUATION, checkpoint.id)

    def test_a_lane_that_was_just_served_is_not_starving(self, session: Session) -> None:
        make_task(session)
        checkpoint = make_checkpoint(session, make_run(session))
        evaluations.plan(session, checkpoint)
        claim = tickets.claim(session, "w")
        assert claim is not None
        tickets.next_slice(session, claim.ticket_id, claim.fence)
        ticket = session.get_one(Ticket, claim.ticket_id, populate_existing=True)
        ticket.issued_at = utcnow() - dt.timedelta(hours=1)
        session.flush()
        assert tickets.starving_lane(session, tuple(tickets.LANES)) is None


def test_open_tickets_are_counted_by_lane_and_status(session: Session) -> None:
    checkpoint = make_checkpoint(session, make_run(session))
    ask(session, checkpoint)
    ask(session, checkpoint)
    tickets.claim(session, "w")
    assert tickets.count_by_lane(session) == {("chat", QUEUED): 1, ("chat", RUNNING): 1}


class TestEvaluationOrder:
    def test_ends_then_middle_then_quarters(self) -> None:
        assert tickets.coarse_to_fine(9) == [0, 8, 4, 2, 6, 1, 3, 5, 7]
        assert [tickets.coarse_to_fine(n) for n in (0, 1, 2, 3)] == [[], [0], [0, 1], [0, 2, 1]]
        assert sorted(tickets.coarse_to_fine(1000)) == list(range(1000))

    def test_a_backlog_is_worked_coarse_to_fine(self, session: Session) -> None:
        make_task(session)
        run = make_run(session, kind="upload")
        for step in range(0, 90, 10):
            evaluations.plan(session, make_checkpoint(session, run, step))
        assert claimed_steps(session, 9) == [0, 80, 40, 20, 60, 10, 30, 50, 70]

    def test_the_newest_of_a_live_run_goes_first(self, session: Session) -> None:
        make_task(session)
        run = make_run(session)
        for step in range(0, 50, 10):
            evaluations.plan(session, make_checkpoint(session, run, step))
        assert claimed_steps(session, 5) == [40, 0, 20, 10, 30]

    def test_two_backlogs_are_refined_side_by_side(self, session: Session) -> None:
        make_task(session)
        for name in ("a", "b"):
            run = make_run(session, name, kind="upload")
            for step in (1, 2, 3):
                evaluations.plan(session, make_checkpoint(session, run, step))
        assert claimed_steps(session, 6) == [1, 1, 3, 3, 2, 2]

    def test_a_resident_checkpoint_is_finished_before_a_swap(self, session: Session) -> None:
        make_task(session, "a")
        make_task(session, "b")
        run = make_run(session, kind="upload")
        resident = [make_checkpoint(session, run, step) for step in (1, 2, 3)][1]
        for checkpoint in session.scalars(select(Checkpoint)).all():
            evaluations.plan(session, checkpoint)
        claims = [tickets.claim(session, "w", resident_id=resident.id) for _ in range(2)]
        assert {claim.checkpoint_id for claim in claims if claim} == {resident.id}


class TestNextSlice:
    def test_the_ticket_goes_back_to_its_place_and_its_attempts_begin_anew(self, session: Session) -> None:
        make_task(session)
        evaluations.plan(session, make_checkpoint(session, make_run(session)))
        first = tickets.claim(session, "w")
        assert first is not None
        tickets.next_slice(session, first.ticket_id, first.fence)
        second = tickets.claim(session, "w")
        assert second is not None
        assert (second.ticket_id, second.fence, second.attempts) == (first.ticket_id, 2, 1)

    def test_without_progress_attempts_add_up_unless_nobody_is_to_blame(self, session: Session) -> None:
        make_task(session)
        evaluations.plan(session, make_checkpoint(session, make_run(session)))
        attempts = []
        for blameless in (False, False, True, False):
            claim = tickets.claim(session, "w")
            assert claim is not None
            attempts.append(claim.attempts)
            tickets.give_back(session, claim.ticket_id, claim.fence, blameless=blameless)
        assert attempts == [1, 2, 3, 3]

    def test_a_lost_lease_reports_nothing(self, session: Session) -> None:
        make_task(session)
        evaluations.plan(session, make_checkpoint(session, make_run(session)))
        claim = tickets.claim(session, "w")
        assert claim is not None
        with pytest.raises(Conflict):
            tickets.next_slice(session, claim.ticket_id, claim.fence + 1)


def claimed_steps(session: Session, number: int) -> list[int]:
    """Steps in the order in which one worker gets their evaluations."""
    steps = []
    for _ in range(number):
        claim = tickets.claim(session, "w")
        assert claim is not None
        steps.append(session.get_one(Checkpoint, claim.checkpoint_id).step)
        tickets.finish(session, claim.ticket_id, claim.fence)
    return steps
