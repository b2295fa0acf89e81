"""What a worker process may claim while its engine is busy."""

import datetime as dt
from collections.abc import Iterator

import pytest

from registry import chats, checkpoints, db, evaluations, tickets
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
    line.evaluations(1, waited_seconds=300)
    line.evaluations(0)
    turn_id = line.chat(0)
    claim = residency.claim()
    assert claim is not None
    assert claim.turn_id == turn_id
    assert residency.claim() is None, "but no evaluation of the resident overtakes them"
