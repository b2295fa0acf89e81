"""Leases that are renewed, lost, and cut short."""

import threading
import time

import pytest

from registry import chats, checkpoints, db, tickets
from registry.tickets import Claim
from tests.factories import make_checkpoint, make_run, make_user
from worker.lease import Lease, LeaseLost, Stopping


@pytest.fixture
def claim(database) -> Claim:
    with db.transaction() as session:
        checkpoint = make_checkpoint(session, make_run(session))
        chat = chats.open_chat(session, make_user(session), checkpoints.get_by_id(session, checkpoint.id))
        chats.open_turn(session, chat, "To be")
    with db.transaction() as session:
        claimed = tickets.claim(session, "test", lease_seconds=0.4)
    assert claimed is not None
    return claimed


def test_it_outlasts_work_longer_than_the_lease(claim):
    with Lease(claim, threading.Event(), renew_seconds=0.1) as lease:
        time.sleep(0.6)
        with db.transaction() as session:
            assert tickets.reclaim_expired(session) == 0
        lease.check()


def test_a_ticket_that_was_cancelled_ends_the_work(claim):
    with Lease(claim, threading.Event(), renew_seconds=0.05) as lease:
        with db.transaction() as session:
            tickets.cancel(session, turn_id=claim.turn_id)
        deadline = time.monotonic() + 30
        while not lease.must_end and time.monotonic() < deadline:
            time.sleep(0.02)
        with pytest.raises(LeaseLost):
            lease.check()


def test_a_worker_that_shuts_down_ends_the_work(claim):
    stopping = threading.Event()
    with Lease(claim, stopping) as lease:
        lease.check()
        stopping.set()
        with pytest.raises(Stopping):
            lease.check()
