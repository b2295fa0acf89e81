"""Transactions: all or nothing, and jobs only after the commit."""

import threading
import time

import pytest
from sqlalchemy import text

from registry import chats, db, evaluations, events, jobs, runs, tickets
from registry.errors import Invalid
from tests.factories import make_checkpoint, make_run, make_task, make_user


def queued(queue: str) -> int:
    """Messages waiting on the broker."""
    return int(events.client().llen(queue))  # type: ignore[arg-type]


def test_a_failed_transaction_leaves_neither_rows_nor_jobs(database: object, redis_url: str) -> None:
    def fail_late() -> None:
        with db.transaction() as session:
            make_checkpoint(session, make_run(session), ready=False)
            raise Invalid("no")

    with pytest.raises(Invalid):
        fail_late()
    with db.read_session() as session:
        assert runs.list_runs(session) == []
    assert queued("cpu") == 0


def test_jobs_leave_after_the_commit_each_once(database: object, redis_url: str) -> None:
    with db.transaction() as session:
        make_checkpoint(session, make_run(session), ready=False)
        for _ in range(3):
            jobs.defer(session, jobs.WORK)
        assert queued("cpu") == queued("gpu") == 0
    assert (queued("cpu"), queued("gpu")) == (1, 1)


def test_who_asks_rings_the_bell_and_leaves_a_message_only_where_nobody_hears_it(
    database: object, redis_url: str
) -> None:
    with db.transaction() as session:
        user, checkpoint = make_user(session), make_checkpoint(session, make_run(session))

    def ask() -> None:
        with db.transaction() as session:
            chats.open_turn(session, chats.open_chat(session, user, checkpoint), "Once")

    events.client().delete("gpu")
    ask()
    assert queued("gpu") == 1
    events.client().delete("gpu")
    with events.subscribed(events.BELL) as hearing:
        ask()
        deadline = time.monotonic() + 30
        while (message := hearing.get_message(timeout=0.1)) is None and time.monotonic() < deadline:
            pass
        assert message is not None
    assert queued("gpu") == 0


def test_without_a_broker_the_rows_are_kept(database: object) -> None:
    with db.transaction() as session:
        make_checkpoint(session, make_run(session), ready=False)
    with db.read_session() as session:
        assert len(runs.list_runs(session)) == 1


@pytest.mark.parametrize("kind", ["sqlite", "postgres"])
def test_two_workers_never_hold_the_same_ticket(
    kind: str, request: pytest.FixtureRequest, database: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    if kind == "postgres":
        url = request.getfixturevalue("own_postgres")
        monkeypatch.setattr(db, "current_engine", lambda: db.get_engine(url))
    with db.transaction() as session:
        for number in range(6):
            make_task(session, f"task{number}")
        evaluations.plan(session, make_checkpoint(session, make_run(session)))
    claimed: list[int] = []

    def work(name: str) -> None:
        while True:
            with db.transaction() as session:
                claim = tickets.claim(session, name)
            if claim is None:
                return
            claimed.append(claim.ticket_id)

    threads = [threading.Thread(target=work, args=(f"w{n}",)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(claimed) == len(set(claimed)) == 6


class TestWritersOfOneFile:
    def test_one_begins_when_the_other_has_ended_and_none_is_lost(self, database: object) -> None:
        def write(number: int) -> None:
            with db.transaction() as session:
                make_run(session, f"run{number}")

        threads = [threading.Thread(target=write, args=(number,)) for number in range(12)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(20)
        with db.read_session() as session:
            assert len(runs.list_runs(session)) == 12

    def test_a_failed_one_lets_the_next_one_in(self, database: object) -> None:
        for _ in range(2):
            with pytest.raises(Invalid), db.transaction():
                raise Invalid("no")
        with db.transaction() as session:
            make_run(session)

    def test_a_connection_may_write_again_and_others_between(self, database: object) -> None:
        with db.current_engine().connect() as connection:
            connection.execute(text("DELETE FROM runs"))
            connection.commit()
            with db.transaction() as session:
                make_run(session)
            connection.execute(text("DELETE FROM runs"))
            connection.rollback()
        with db.read_session() as session:
            assert len(runs.list_runs(session)) == 1

    def test_who_only_reads_waits_for_nobody(self, database: object) -> None:
        with db.transaction() as session:
            make_run(session)
            session.flush()
            with db.read_session() as reading:
                assert runs.list_runs(reading) == []
