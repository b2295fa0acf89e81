"""Which forms of a checkpoint are asked for, when, and what becomes of them; on both databases."""

import pytest
from sqlalchemy.orm import Session

from registry import checkpoints, evaluations, joblog, quantizations, tickets
from registry.errors import Conflict, Invalid
from registry.models import Checkpoint, CheckpointParent, Job, Run, Ticket
from registry.models.base import FAILED, READY, REJECTED, VERIFYING
from registry.settings import get_settings
from registry.store import Manifest
from tests.factories import make_checkpoint, make_half, make_run, make_task


@pytest.fixture
def run(session: Session) -> Run:
    run = make_run(session, "demo")
    run.max_steps = 300
    return run


@pytest.fixture
def parent(session: Session, run: Run) -> Checkpoint:
    return make_checkpoint(session, run, 100)


def unready(session: Session, run: Run, step: int) -> Checkpoint:
    return make_checkpoint(session, run, step, ready=False)


class TestAsking:
    def test_both_precisions_of_a_released_checkpoint_are_asked_for_once(
        self, session: Session, parent: Checkpoint
    ) -> None:
        checkpoints.release(session, parent)

        assert [job.args["bits"] for job in quantizations.plan_missing(session)] == [8, 4]
        assert quantizations.plan_missing(session) == []

    def test_what_failed_waits_for_somebody(self, session: Session, parent: Checkpoint) -> None:
        checkpoints.release(session, parent)
        for job in quantizations.plan_missing(session):
            job.status = FAILED
        assert quantizations.plan_missing(session) == []

    def test_what_is_not_released_is_left_alone(self, session: Session, parent: Checkpoint) -> None:
        assert quantizations.plan_missing(session) == []

    def test_it_must_be_ready_sixteen_bit_and_without_that_form(self, session: Session, run: Run) -> None:
        with pytest.raises(Conflict, match="not ready"):
            quantizations.plan(session, unready(session, run, 1), 4)
        parent = make_checkpoint(session, run, 2)
        half = make_half(session, run, 2)
        with pytest.raises(Conflict, match="quantized already"):
            quantizations.plan(session, half, 4)
        with pytest.raises(Conflict, match="there already"):
            quantizations.plan(session, parent, 8)
        with pytest.raises(Invalid, match="no 3 bit"):
            quantizations.plan(session, parent, 3)
        half.state = REJECTED
        assert quantizations.plan(session, parent, 8).args == {"bits": 8}


@pytest.mark.parametrize(
    ("rule", "step", "is_milestone", "is_due"),
    [
        ("milestones", 100, True, True),
        ("milestones", 100, False, False),
        ("milestones", 300, False, True),
        ("all", 100, False, True),
        ("none", 300, True, False),
    ],
)
def test_what_is_released_by_itself(
    session: Session, run: Run, monkeypatch: pytest.MonkeyPatch, rule: str, step: int, is_milestone: bool, is_due: bool
) -> None:
    monkeypatch.setenv("GROW_RELEASE", rule)
    get_settings.cache_clear()
    checkpoint = make_checkpoint(session, run, step)
    checkpoint.is_milestone = is_milestone

    assert quantizations.release_if_due(session, checkpoint) is is_due
    assert checkpoint.is_released is is_due
    assert session.query(Job).count() == (2 if is_due else 0)


class TestForms:
    @pytest.fixture
    def form(self, session: Session, parent: Checkpoint) -> Checkpoint:
        make_task(session, schedule="panel")
        make_task(session, "rare", schedule="milestone")
        parent.is_released = True
        return quantizations.keep(
            session,
            parent,
            4,
            folder=quantizations.folder_of(parent, 4),
            manifest=Manifest(files={"model.safetensors": {"size": 9, "sha256": "4" * 64}}, facts=dict(tokens_seen=7)),
            derivation={"method": "GPTQ"},
            user_id=None,
        )

    def test_it_stands_beside_its_parent(self, session: Session, parent: Checkpoint, form: Checkpoint) -> None:
        assert (form.label, form.folder) == ("demo@100-4bit", "demo/step-100-4bit")
        assert (form.state, form.origin, form.is_released) == (VERIFYING, "quantization", True)
        [link] = session.query(CheckpointParent)
        assert (link.child_id, link.parent_id, link.role) == (form.id, parent.id, "quantization")
        assert quantizations.parent_of(session, form) is parent
        assert quantizations.parent_of(session, parent) is None

    def test_it_is_asked_the_panel_last_of_all(self, session: Session, form: Checkpoint) -> None:
        [evaluation] = evaluations.for_checkpoint(session, form)
        [ticket] = session.query(Ticket).filter_by(evaluation_id=evaluation.id)
        assert (evaluation.task.schedule, ticket.lane) == ("panel", tickets.QUANTIZATION)

    def test_it_is_nobodys_newest_and_no_milestone(self, session: Session, run: Run, form: Checkpoint) -> None:
        form.state = READY
        session.flush()
        assert form not in checkpoints.newest(session, limit=9)
        assert checkpoints.extent(session, run).newest is not form
        assert not form.is_milestone

    def test_it_is_offered_as_long_as_its_parent_is(
        self, session: Session, parent: Checkpoint, form: Checkpoint
    ) -> None:
        checkpoints.release(session, parent, is_released=False)
        assert not form.is_released

    def test_pages_learn_what_is_made_and_what_failed(
        self, session: Session, parent: Checkpoint, form: Checkpoint
    ) -> None:
        failed = quantizations.plan(session, parent, 8)
        failed.status = FAILED
        session.flush()
        assert quantizations.forms(session, parent) == [(8, None, failed), (4, form, None)]


def test_a_kind_of_its_own_has_a_folder_of_its_own(session: Session, run: Run) -> None:
    chat = make_checkpoint(session, run, 5, kind="chat")
    assert quantizations.folder_of(chat, 8) == "demo/step-5-chat-8bit"
    assert joblog.QUANTIZE == "quantize"
