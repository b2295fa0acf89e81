"""Checkpoints from outside: taken in whole, or not at all."""

from pathlib import Path

import pytest
from sqlalchemy.exc import OperationalError

from registry import checkpoints, db, intake, runs
from registry.errors import Conflict, Invalid
from registry.models.base import VERIFYING
from tests.factories import make_task
from tests.registry.test_store import make_folder


def test_a_folder_becomes_a_checkpoint_with_its_evaluations(database: Path, tmp_path: Path) -> None:
    with db.transaction() as session:
        make_task(session)
    checkpoint = intake.admit(make_folder(tmp_path / "new"), run="guest", step=7, tokens_seen=100, kind="chat")
    assert (checkpoint.label, checkpoint.state, checkpoint.tokens_seen) == ("guest@7-chat", VERIFYING, 100)
    assert checkpoints.path(checkpoint).is_dir()
    with db.read_session() as session:
        assert runs.get_run(session, "guest").kind == "upload"


def test_other_files_at_a_taken_step_are_refused_and_the_first_stay(database: Path, tmp_path: Path) -> None:
    first = intake.admit(make_folder(tmp_path / "a"), run="guest", step=7, tokens_seen=None, kind="pretrained")
    other = make_folder(tmp_path / "b")
    (other / "tokenizer.json").write_text("[]")
    with pytest.raises(Conflict):
        intake.admit(other, run="guest", step=7, tokens_seen=None, kind="pretrained")
    assert (checkpoints.path(first) / "tokenizer.json").read_text() == "{}"


def test_what_cannot_be_registered_leaves_no_files(grow_home: Path, tmp_path: Path) -> None:
    # No table exists here: registering fails after the files were sealed.
    with pytest.raises(OperationalError):
        intake.admit(make_folder(tmp_path / "a"), run="guest", step=7, tokens_seen=None, kind="pretrained")
    assert not (grow_home / "checkpoints" / "guest" / "step-7").exists()


def test_a_folder_that_is_no_checkpoint_is_refused_before_anything(database: Path, tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "a")
    (folder / "evil.pkl").write_bytes(b"")
    with pytest.raises(Invalid, match="can run code"):
        intake.admit(folder, run="guest", step=7, tokens_seen=None, kind="pretrained")
    assert not (database / "checkpoints").exists()
