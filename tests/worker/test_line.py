"""What a worker process may claim while its engine is busy."""

import datetime as dt
from collections.abc import Iterator

import pytest

from registry import chats, checkpoints, db, evaluations, prompts, tickets
from registry.models import Ticket
from registry.models.base import utcnow
from tests.factories import make_checkpoint, make_run, make_task, make_user
from worker.line import Residency


class Line:
    """Two ready checkpoints, and verbs to queue work on them."""

    def __init__(self) -> None:
        with db.transaction() as session:
            run = make_run(session)
            make_task(session, "first")
            make_task(session, "second")
            self.ids = [make_checkpoint(session, run, step).id for step in (0, 1)]

    def chat(self, checkpoint: int, *, waited_seconds: float = 0) -> int:
        with db.transaction() as session:
            found = checkpoints.get_by_id(session, self.ids[checkpoint])
            turn = chats.open_turn(session, chats.open_chat(session, make_user(session), found), "Once upon a time")
            self._age(session, tickets.for_turn(session, turn.id), waited_seconds)
            return turn.id

    def evaluations(self, checkpoint: int, *, waited_seconds: float = 0) -> None:
        with db.transaction() as session:
            planned = evaluations.plan(session, checkpoints.get_by_id(session, self.ids[checkpoint]))
            for evaluation in planned:
                ticket = session.query(Ticket).filter_by(evaluation_id=evaluation.id).one()
                self._age(session, ticket, waited_seconds)

    @staticmethod
    def _age(session, ticket, seconds: float) -> None:
        session.flush()
        ticket.issued_at = utcnow() - dt.timedelta(seconds=seconds)


@pytest.fixture
def line(database) -> Iterator[Line]:
    return Line()


@pytest.fixture
def residency(line) -> Residency:
    return Residency("test")


def test_an_idle_worker_takes_the_best_ticket_of_any_checkpoint(line, residency):
    line.evaluations(0)
    turn_id = line.chat(1)
    claim = residency.claim()
    assert claim is not None
    assert claim.turn_id == turn_id


def test_chats_with_the_resident_checkpoint_run_side_by_side(line, residency):
    turns = {line.chat(0), line.chat(0), line.chat(0)}
    claims = [residency.claim() for _ in range(3)]
    assert {claim.turn_id for claim in claims if claim} == turns
    assert residency.describe() == "3 answers, 0 evaluations"


def test_another_checkpoint_waits_until_nothing_is_in_flight(line, residency):
    line.chat(0)
    first = residency.claim()
    line.chat(1)
    assert residency.claim() is None

    residency.release(first)
    second = residency.claim()
    assert second is not None
    assert second.checkpoint_id == line.ids[1]


def test_one_evaluation_at_a_time_but_chats_beside_it(line, residency):
    line.evaluations(0)
    evaluation = residency.claim()
    assert evaluation is not None
    assert evaluation.evaluation_id is not None
    assert residency.claim() is None

    turn_id = line.chat(0)
    chat = residency.claim()
    assert chat is not None
    assert chat.turn_id == turn_id


def test_the_resident_checkpoint_goes_first_to_save_a_swap(line, residency):
    line.chat(0)
    residency.release(residency.claim())
    line.chat(1)
    line.chat(0)
    claim = residency.claim()
    assert claim is not None
    assert claim.checkpoint_id == line.ids[0]


def test_nobody_waits_for_ever_behind_the_resident_checkpoint(line, residency):
    line.chat(0)
    first = residency.claim()
    line.chat(0)
    line.chat(1, waited_seconds=30)
    assert residency.claim() is None, "the engine drains for the one that has waited past the bound"

    residency.release(first)
    claim = residency.claim()
    assert claim is not None
    assert claim.checkpoint_id == line.ids[1]


def test_evaluations_of_others_do_not_hold_up_a_chat_with_the_resident(line, residency):
    line.chat(0)
    residency.claim()
    line.evaluations(1, waited_seconds=10)
    turn_id = line.chat(0)
    claim = residency.claim()
    assert claim is not None
    assert claim.turn_id == turn_id


def test_but_they_have_a_guaranteed_minimum(line, residency):
    line.chat(0)
    first = residency.claim()
    line.evaluations(1, waited_seconds=tickets.GUARANTEED_SECONDS[tickets.EVALUATION] + 1)
    line.chat(0)
    assert residency.claim() is None, "the engine drains for the lane that had nothing for so long"
    residency.release(first)
    claim = residency.claim()
    assert claim is not None
    assert (claim.lane, claim.checkpoint_id) == (tickets.EVALUATION, line.ids[1])


def test_so_has_every_lane_also_while_chats_of_its_own_checkpoint_keep_coming(line, residency):
    line.chat(0)
    residency.claim()
    with db.transaction() as session:
        found = checkpoints.get_by_id(session, line.ids[0])
        chat = chats.open_chat(session, make_user(session), found)
        battle = chats.open_turn(session, chat, "Once upon a time", lane=tickets.ARENA)
        seconds = tickets.GUARANTEED_SECONDS[tickets.ARENA] + 1
        line._age(session, tickets.for_turn(session, battle.id), seconds)
    line.chat(0)
    claim = residency.claim()
    assert claim is not None
    assert claim.turn_id == battle.id


def test_the_wait_for_a_swap_is_counted_from_when_the_checkpoint_was_last_resident(line, residency):
    line.chat(0)
    residency.release(residency.claim())
    for _ in range(2):
        line.chat(0, waited_seconds=60)  # a long line of its own, not a wait for a swap
    line.chat(1, waited_seconds=30)
    swapped = residency.claim()
    assert swapped is not None
    assert swapped.checkpoint_id == line.ids[1]
    line.chat(1)
    assert residency.claim() is not None, "those who wait for checkpoint 0 had it a moment ago"


def test_only_so_many_answers_are_written_at_once(line):
    narrow = Residency("test", max_answers=2)
    for _ in range(3):
        line.chat(0)
    first = narrow.claim()
    assert narrow.claim() is not None
    assert narrow.claim() is None
    narrow.release(first)
    assert narrow.claim() is not None


def test_the_engine_drains_early_for_answers_that_take_long(line):
    patient = Residency("test", patience_seconds=20)
    with db.transaction() as session:
        found = checkpoints.get_by_id(session, line.ids[0])
        chat = chats.open_chat(session, make_user(session), found)
        chats.open_turn(session, chat, "Once upon a time", {"max_tokens": 240})
    patient.claim()
    line.chat(0)
    line.chat(1, waited_seconds=15)
    assert patient.claim() is None, "what is left of 240 tokens at 20 a second and 15 s make more than 20 s"


class TestVisitorsPrompts:
    """They may not take anything away from anybody."""

    @pytest.fixture
    def patient(self, line) -> Residency:
        return Residency("test", idle_after_seconds=10)

    @pytest.fixture(autouse=True)
    def _accepted(self, line) -> None:
        with db.transaction() as session:
            prompt = prompts.propose(session, make_user(session), "Once")
            prompts.accept(session, prompt.id, make_user(session, role="admin"))

    def test_they_are_asked_when_nothing_else_waits(self, line, patient):
        line.evaluations(1)
        lanes = []
        while (claim := patient.claim()) is not None:
            lanes.append(claim.lane)
            patient.release(claim)
            finish(claim)
        assert lanes == [tickets.EVALUATION] * 2 + [tickets.IDLE] * 2

    def test_they_wait_until_nobody_has_written_for_a_while(self, line, patient):
        line.chat(0, waited_seconds=5)
        chat = patient.claim()
        assert chat is not None
        patient.release(chat)
        finish(chat)
        assert patient.claim() is None
        with db.transaction() as session:
            session.get_one(Ticket, chat.ticket_id).issued_at = utcnow() - dt.timedelta(seconds=11)
        claim = patient.claim()
        assert claim is not None
        assert claim.lane == tickets.IDLE

    def test_they_are_never_begun_beside_something_else(self, line, patient):
        line.chat(0, waited_seconds=11)
        assert patient.claim() is not None
        assert patient.claim() is None

    def test_a_chat_comes_between_two_of_them(self, line, patient):
        first = patient.claim()
        assert first is not None
        turn_id = line.chat(0 if first.checkpoint_id == line.ids[0] else 1)
        chat = patient.claim()
        assert chat is not None
        assert chat.turn_id == turn_id

    def test_their_backlog_makes_no_evaluation_wait(self, line, patient):
        line.chat(0)
        assert patient.claim() is not None
        with db.transaction() as session:
            for ticket in session.query(Ticket).filter_by(lane=tickets.IDLE):
                ticket.issued_at = utcnow() - dt.timedelta(hours=1)
        line.evaluations(0)
        beside = patient.claim()
        assert beside is not None
        assert beside.lane == tickets.EVALUATION


def finish(claim: tickets.Claim) -> None:
    with db.transaction() as session:
        tickets.finish(session, claim.ticket_id, claim.fence)
