"""Checkpoints: registered once, found by what one knows of them."""

from pathlib import Path

import pytest
from sqlalchemy.orm import Session

from registry import checkpoints, evaluations, jobs
from registry.errors import Conflict, NotFound
from registry.models.base import READY, REJECTED, VERIFYING
from registry.store import Manifest
from tests.factories import make_checkpoint, make_run, make_task


def test_a_new_checkpoint_waits_for_a_workers_verdict(session: Session) -> None:
    checkpoint = make_checkpoint(session, make_run(session), 5, ready=False)
    assert checkpoint.state == VERIFYING
    assert (jobs.VERIFY, checkpoint.id) in session.info["deferred_jobs"]
    assert list(checkpoints.unverified(session)) == [checkpoint]
    assert checkpoints.list_checkpoints(session) == []


def test_registering_the_same_files_again_is_the_same_checkpoint(session: Session) -> None:
    run = make_run(session)
    first = make_checkpoint(session, run, 5)
    assert make_checkpoint(session, run, 5).id == first.id


def test_other_files_at_the_same_step_are_refused(session: Session) -> None:
    run = make_run(session)
    make_checkpoint(session, run, 5)
    other = Manifest(files={"a.json": {"size": 1, "sha256": "0" * 64}}, facts={})
    with pytest.raises(Conflict, match="demo@5"):
        checkpoints.register(session, run, step=5, folder="x", manifest=other)


def test_a_step_that_holds_two_kinds_gives_the_pretrained_one_unless_asked(session: Session) -> None:
    run = make_run(session)
    chat, base = make_checkpoint(session, run, 5, kind="chat"), make_checkpoint(session, run, 5)
    assert checkpoints.get_checkpoint(session, run, 5).id == base.id
    assert checkpoints.get_checkpoint(session, run, 5, kind="chat").id == chat.id
    assert (base.label, chat.label) == ("demo@5", "demo@5-chat")


def test_an_unknown_step_is_told_with_those_that_exist(session: Session) -> None:
    run = make_run(session)
    make_checkpoint(session, run, 5)
    with pytest.raises(NotFound, match="Steps: 5"):
        checkpoints.get_checkpoint(session, run, 6)
    with pytest.raises(NotFound):
        checkpoints.get_by_id(session, 10**6)


def test_a_label_names_its_checkpoint(session: Session) -> None:
    run = make_run(session)
    plain, chat = make_checkpoint(session, run, 10), make_checkpoint(session, run, 10, kind="chat")
    for checkpoint in (plain, chat):
        assert checkpoints.by_label(session, checkpoint.label) is checkpoint
    with pytest.raises(NotFound, match="no checkpoint: write run@step"):
        checkpoints.by_label(session, "demo-10")
    with pytest.raises(NotFound, match="no checkpoint at step 11"):
        checkpoints.by_label(session, "demo@11")


def test_the_one_before_is_ready_and_of_the_same_kind(session: Session) -> None:
    run = make_run(session)
    first = make_checkpoint(session, run, 1)
    make_checkpoint(session, run, 2, ready=False)
    make_checkpoint(session, run, 3, kind="chat")
    last = make_checkpoint(session, run, 4)
    assert checkpoints.previous(session, last) is first
    assert checkpoints.previous(session, first) is None


def test_a_rejected_one_says_why_and_counts_apart(session: Session) -> None:
    run = make_run(session)
    make_checkpoint(session, run, 1)
    bad = make_checkpoint(session, run, 2, ready=False)
    checkpoints.mark_rejected(session, bad, "It holds NaN.")
    session.flush()
    assert checkpoints.count_by_state(session) == {READY: 1, REJECTED: 1}
    assert [c.step for c in checkpoints.newest(session)] == [1]


def test_a_mended_checkpoint_takes_the_place_of_a_rejected_one(session: Session, grow_home: Path) -> None:
    make_task(session)
    run = make_run(session)
    bad = make_checkpoint(session, run, 2, ready=False)
    evaluations.plan(session, bad)
    checkpoints.path(bad).mkdir(parents=True)
    place = checkpoints.path(bad)
    checkpoints.mark_rejected(session, bad, "It holds NaN.")
    assert not place.exists()
    assert checkpoints.path(bad).is_dir()  # still there to be looked at
    mended = Manifest(files={"a.json": {"size": 1, "sha256": "0" * 64}}, facts={})
    checkpoint = checkpoints.register(session, run, step=2, folder="demo/step-2-pretrained", manifest=mended)
    assert checkpoint.state == VERIFYING
    assert [c.id for c in checkpoints.list_checkpoints(session, run, (VERIFYING, REJECTED))] == [checkpoint.id]
