"""Transactions: all or nothing, and jobs only after the commit."""

import threading

import pytest

from registry import db, evaluations, events, jobs, runs, tickets
from registry.errors import Invalid
from tests.factories import make_checkpoint, make_run, make_task


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
