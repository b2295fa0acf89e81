"""Checkpoints from outside: taken in whole, or not at all."""

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy.exc import OperationalError

from registry import checkpoints, db, intake, runs, store
from registry.errors import Conflict, Invalid, NoRoom
from registry.models.base import VERIFYING
from registry.settings import get_settings
from registry.store import Manifest
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


def test_of_two_at_once_the_quota_takes_one(database: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folders = [make_folder(tmp_path / name) for name in ("a", "b")]
    monkeypatch.setenv("GROW_CHECKPOINTS_BYTES", str(store.size_of(folders[0]) * 3 // 2))
    get_settings.cache_clear()
    both, seal = threading.Barrier(2), store.seal

    def meet(*arguments: Any, **more: Any) -> Manifest:
        both.wait(10)  # both have been allowed to come
        return seal(*arguments, **more)

    monkeypatch.setattr(store, "seal", meet)

    def admit(place: int) -> str:
        try:
            return intake.admit(folders[place], run="guest", step=place, tokens_seen=None, kind="pretrained").label
        except NoRoom as error:
            return str(error)

    with ThreadPoolExecutor(2) as threads:
        said = sorted(threads.map(admit, (0, 1)))
    assert "there is no room" in said[0]
    assert said[1] in {"guest@0", "guest@1"}
    assert [path.name for path in (database / "checkpoints" / "guest").iterdir()] == [f"step-{said[1][-1]}"]


def test_a_folder_that_is_no_checkpoint_is_refused_before_anything(database: Path, tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "a")
    (folder / "evil.pkl").write_bytes(b"")
    with pytest.raises(Invalid, match="can run code"):
        intake.admit(folder, run="guest", step=7, tokens_seen=None, kind="pretrained")
    assert not (database / "checkpoints").exists()
