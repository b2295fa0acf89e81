"""The answers that stand on one line: which checkpoints, under which protocol, and where they are kept."""

import numpy as np
import pytest
from sqlalchemy.orm import Session

from registry import cells, ledger
from registry.cells import LEAST, MOST
from registry.models import Run
from tests.factories import make_checkpoint, make_run
from tests.server import ledgers
from tests.server.ledgers import HISTORIES, NUM_CHECKPOINTS, PROTOCOL, make_ledger

OTHER = PROTOCOL | {"engine": "other"}


def test_a_line_has_the_checkpoints_by_step(session: Session) -> None:
    task = make_ledger(session)
    found = ledger.line(session, session.query(Run).one(), task)
    assert [member.step for member in found.members] == [100 * column for column in range(NUM_CHECKPOINTS)]
    assert found.items_file is not None
    assert found.items_file.is_file()


def test_the_protocol_used_last_is_shown_and_the_others_can_be(session: Session) -> None:
    run = make_run(session, "grown")
    task = make_ledger(session, run)
    ledgers.answer(session, make_checkpoint(session, run, 5000), task, ledgers.items(), ledgers.rows_at(0), OTHER)
    latest = ledger.line(session, run, task)
    assert [member.step for member in latest.members] == [5000]
    assert len(latest.protocols) == 2
    assert len(ledger.line(session, run, task, latest.protocols[1]).members) == NUM_CHECKPOINTS
    assert ledger.line(session, run, task, "none").members == []


def test_chat_models_and_other_precisions_have_lines_of_their_own(session: Session) -> None:
    task = make_ledger(session)
    run = session.query(Run).one()
    assert ledger.line(session, run, task, kind="chat").members == []
    assert ledger.line(session, run, task, precision=4).members == []


def test_cells_are_the_same_before_and_after_they_are_kept(session: Session) -> None:
    task = make_ledger(session)
    found = ledger.line(session, session.query(Run).one(), task)
    before = ledger.cells_of(session, found)
    assert before.right.tolist() == [[MOST if mark == "✓" else LEAST for mark in row] for row in HISTORIES.values()]
    assert cells.known(found.folder, "acc") is None
    ledger.keep_cells(session, found.members[0].evaluation_id)
    kept = cells.known(found.folder, "acc")
    assert kept is not None
    assert np.array_equal(kept.right, before.right)
    assert np.array_equal(ledger.cells_of(session, found).likelihood, before.likelihood)


def test_many_answers_without_a_file_are_kept_by_whoever_reads_them(
    session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = make_ledger(session)
    found = ledger.line(session, session.query(Run).one(), task)
    monkeypatch.setattr(ledger, "COMPACT_EVERY", NUM_CHECKPOINTS)
    ledger.cells_of(session, found)
    assert cells.known(found.folder, "acc") is not None


def test_a_folder_that_cannot_be_written_stops_nobody(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError("read-only")

    task = make_ledger(session)
    monkeypatch.setattr(ledger, "COMPACT_EVERY", 1)
    monkeypatch.setattr(cells, "keep", refuse)
    assert ledger.cells_of(session, ledger.line(session, session.query(Run).one(), task)).right.any()


def test_results_without_answers_keep_nothing(session: Session) -> None:
    task = ledgers.make_imported(session)
    run = session.query(Run).one()
    assert ledger.line(session, run, task).members == []


def test_an_items_answers_come_by_step(session: Session) -> None:
    task = make_ledger(session)
    found = ledger.answers_to(session, ledger.line(session, session.query(Run).one(), task), 1)
    assert [one.source.step for one in found] == [100 * column for column in range(NUM_CHECKPOINTS)]
    assert {one.sample.item for one in found} == {ledgers.key("early")}
