"""What leaves the disk and the store by itself, and what stays."""

import shutil
from pathlib import Path

import pytest
from sqlalchemy import select

from registry import blobs, checkpoints, db, quota, remote
from registry.models import AuditEntry
from registry.models.base import READY, VERIFYING
from registry.settings import get_settings
from tests.blobstores import Server, blob_store, s3_server
from worker import verify
from worker.tidy import tidy
from worker.verify import verify_checkpoint

__all__ = ["blob_store", "s3_server"]


def test_what_was_set_aside_long_ago_goes_and_frees_the_quota(publish, make_checkpoint, monkeypatch) -> None:
    checkpoint_id = publish(make_checkpoint("tidy", seed=3), ready=False)
    with db.transaction() as session:
        checkpoints.mark_rejected(session, checkpoints.get_by_id(session, checkpoint_id), "It is no good.")
    tidy()
    with db.read_session() as session:
        rejected = checkpoints.get_by_id(session, checkpoint_id)
        assert checkpoints.path(rejected).is_dir(), "one can look at it for a while"
        assert quota.site_usage(session).used == rejected.size_bytes > 0
    monkeypatch.setenv("GROW_QUARANTINE_DAYS", "0")
    get_settings.cache_clear()
    monkeypatch.setattr(blobs.collect, "__kwdefaults__", {"grace_seconds": 0.0})
    tidy()
    with db.read_session() as session:
        rejected = checkpoints.get_by_id(session, checkpoint_id)
        assert (rejected.reason, checkpoints.path(rejected).exists()) == ("It is no good.", False)
        assert quota.site_usage(session).used == 0
        assert "quarantine_end" in set(session.scalars(select(AuditEntry.action)))
    assert blobs.usage().num == 0


class TestBlobStore:
    def test_a_checkpoint_is_ready_once_the_store_has_it(
        self, database: Path, blob_store: Server, publish, make_checkpoint, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        checkpoint_id = publish(make_checkpoint("tidy", seed=3), ready=False)
        working = get_settings().blob_store_options
        monkeypatch.setattr(remote, "ATTEMPTS", 1)
        monkeypatch.setenv("GROW_BLOB_STORE_OPTIONS", blob_store.options(secret="wrong"))
        get_settings.cache_clear()
        with pytest.raises(remote.Away):
            verify_checkpoint(checkpoint_id)
        assert state_of(checkpoint_id) == VERIFYING, "the sweep tries again"
        monkeypatch.setenv("GROW_BLOB_STORE_OPTIONS", working)
        get_settings.cache_clear()
        verify_checkpoint(checkpoint_id)
        assert state_of(checkpoint_id) == READY
        with db.read_session() as session:
            files = checkpoints.get_by_id(session, checkpoint_id).manifest["files"]
        assert all(remote.has(entry["sha256"], entry["size"]) for entry in files.values())
        tidy()
        assert all(remote.has(entry["sha256"], entry["size"]) for entry in files.values())

    def test_a_worker_without_its_files_leaves_it_to_the_one_that_has_them(
        self, database: Path, blob_store: Server, publish, make_checkpoint, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        checkpoint_id = publish(make_checkpoint("tidy", seed=3), ready=False)
        monkeypatch.setattr(verify, "inspect_folder", None)  # would be called in vain
        for folder in (get_settings().checkpoints_dir, get_settings().blobs_dir):
            shutil.rmtree(folder)
        verify_checkpoint(checkpoint_id)
        assert state_of(checkpoint_id) == VERIFYING


def state_of(checkpoint_id: int) -> str:
    with db.read_session() as session:
        return checkpoints.get_by_id(session, checkpoint_id).state
