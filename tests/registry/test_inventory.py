"""Finding checkpoints among many, and what is done to them by hand, on both databases."""

import pytest
from sqlalchemy import select
from sqlalchemy.orm import Session

from registry import checkpoints, coverage, evaluations, inventory
from registry.errors import Invalid
from registry.inventory import Wanted
from registry.models import AuditEntry, Checkpoint, Evaluation, User
from registry.models.base import CANCELLED, FAILED, QUEUED, REJECTED
from tests.factories import finish_evaluation, make_checkpoint, make_half, make_run, make_task


@pytest.fixture
def admin(session: Session) -> User:
    person = User(name="Keeper", name_key="keeper", password_hash="none", role="admin")
    session.add(person)
    session.flush()
    return person


def labels(session: Session, **wanted: object) -> list[str]:
    return [row.checkpoint.label for row in inventory.find(session, Wanted(**wanted)).rows]  # type: ignore[arg-type]


def test_each_filter_finds_its_own(session: Session, admin: User) -> None:
    run, other = make_run(session, "alpha"), make_run(session, "beta_1")
    first, second = make_checkpoint(session, run, 1), make_checkpoint(session, other, 20)
    chat, half = make_checkpoint(session, run, 2, kind="chat"), make_half(session, run, 1)
    second.user_id, second.origin, second.size_bytes = admin.id, "upload", 10**12
    first.is_released = True
    checkpoints.mark_rejected(session, chat, "No.")
    session.flush()
    assert labels(session) == ["alpha@1-8bit", "alpha@2-chat", "beta_1@20", "alpha@1"]
    assert labels(session, order="oldest")[0] == "alpha@1"
    assert labels(session, order="largest")[0] == "beta_1@20"
    assert labels(session, order="step")[0] == "alpha@2-chat"
    for wanted, found in (
        ({"search": "beta@20"}, ["beta_1@20"]),
        ({"search": "beta_1@20"}, ["beta_1@20"]),
        ({"search": "a_1"}, ["beta_1@20"]),
        ({"search": "20"}, ["beta_1@20"]),
        ({"search": "KEEP"}, ["beta_1@20"]),
        ({"search": "%"}, []),
        ({"search": "9" * 40}, []),
        ({"state": "rejected"}, ["alpha@2-chat"]),
        ({"origin": "upload"}, ["beta_1@20"]),
        ({"kind": "chat"}, ["alpha@2-chat"]),
        ({"precision": 8}, [half.label]),
        ({"released": True}, ["alpha@1"]),
        ({"run": "beta_1"}, ["beta_1@20"]),
        ({"run": "beta"}, []),
    ):
        assert labels(session, **wanted) == found, wanted
    found = inventory.find(session, Wanted(search="keeper"), page=99)
    assert (found.total, found.number, found.num_pages, found.size_bytes) == (1, 1, 1, 10**12)
    assert found.rows[0].user_name == "Keeper"
    assert inventory.known_values(session)["precision"] == [8, 16]


def test_what_can_be_done_is_done_and_the_rest_is_named(session: Session, admin: User) -> None:
    make_task(session)
    run = make_run(session)
    good, lost, waiting = (make_checkpoint(session, run, step, ready=step < 3) for step in (1, 2, 3))
    for one in (good, lost):
        evaluations.plan(session, one)
    checkpoints.mark_rejected(session, lost, "It holds NaN.")
    ids = [good.id, lost.id, waiting.id]
    done = inventory.act(session, admin, inventory.RELEASE, ids)
    assert (done.num, [label for label, _ in done.refused]) == (1, ["demo@2", "demo@3"])
    done = inventory.act(session, admin, inventory.CANCEL, [good.id])
    assert done.num == 1
    assert session.scalars(select(Evaluation.status).where(Evaluation.checkpoint_id == good.id)).all() == [CANCELLED]
    inventory.act(session, admin, inventory.REQUEUE, [good.id])
    assert session.scalars(select(Evaluation.status).where(Evaluation.checkpoint_id == good.id)).all() == [QUEUED]
    done = inventory.act(session, admin, inventory.DELETE, ids)
    assert (done.num, len(done.refused)) == (1, 2)
    assert session.get(Checkpoint, lost.id) is None
    deleted = session.scalars(select(AuditEntry).where(AuditEntry.action == "checkpoint_deleted")).one()
    assert deleted.detail == {"checkpoint": "demo@2", "reason": "It holds NaN."}


def test_a_rejected_one_with_results_is_kept_and_the_others_go_on(session: Session, admin: User) -> None:
    task = make_task(session)
    run = make_run(session)
    kept, gone = make_checkpoint(session, run, 1), make_checkpoint(session, run, 2)
    finish_evaluation(session, kept, task, 0.5)
    kept.state = gone.state = REJECTED
    session.flush()
    done = inventory.act(session, admin, inventory.DELETE, [kept.id, gone.id])
    assert (done.num, done.refused[0][0]) == (1, "demo@1")
    assert session.get(Checkpoint, kept.id) is not None


@pytest.mark.parametrize(("action", "ids"), [("explode", [1]), ("release", []), ("release", list(range(201)))])
def test_nonsense_is_refused(session: Session, admin: User, action: str, ids: list[int]) -> None:
    with pytest.raises(Invalid):
        inventory.act(session, admin, action, ids)


def test_coverage_and_cost_of_tasks(session: Session) -> None:
    easy, hard = make_task(session, "easy"), make_task(session, "hard")
    run = make_run(session)
    for step in (1, 2):
        finish_evaluation(session, make_checkpoint(session, run, step), easy, 0.5)
    failed = session.scalars(select(Evaluation).where(Evaluation.task_id == hard.id).order_by(Evaluation.id)).first()
    assert failed is not None
    evaluations.fail(session, failed.id, "No.")
    session.flush()
    known = {one.task.name: one for one in coverage.of_tasks(session)}
    assert (known["easy"].num_finished, known["easy"].seconds, known["easy"].total_seconds) == (2, 1.5, 3.0)
    assert (known["hard"].num_finished, known["hard"].num_failed, known["hard"].num_open) == (0, 1, 1)
    assert coverage.num_checkpoints(session) == 2
    assert evaluations.list_failed(session, 10)[1] == 1
    assert failed.status == FAILED
