"""The blob store besides this disk, on a real S3 server: what is sent is kept, what comes back is checked."""

import hashlib
import shutil
from pathlib import Path

import pytest

from registry import blobs, cache, checkpoints, db, intake, remote, store
from registry.errors import Invalid, NotFound
from registry.models import Checkpoint
from registry.settings import get_settings
from tests.blobstores import SECRET, Server, blob_store, s3_server
from tests.registry.test_store import make_folder

__all__ = ["blob_store", "s3_server"]
CONTENT = bytes(range(256)) * 500
SHA256 = hashlib.sha256(CONTENT).hexdigest()


def make_file(folder: Path, content: bytes = CONTENT) -> Path:
    path = folder / "a.bin"
    path.write_bytes(content)
    return path


def in_store(server: Server) -> list[str]:
    places = server.files().find(get_settings().blob_store.removeprefix("s3://"))
    return [place.rsplit("/", 1)[-1] for place in places if len(place.rsplit("/", 1)[-1]) == 64]  # no folders


@pytest.fixture
def checkpoint(blob_store: Server, database: Path, no_broker: None, tmp_path: Path) -> Checkpoint:
    """Sealed here and sent to the store."""
    made = intake.admit(make_folder(tmp_path / "new"), run="guest", step=7, tokens_seen=None, kind="pretrained")
    folder = checkpoints.path(made)
    assert store.send(folder, store.read_manifest(folder)) == made.size_bytes
    return made


def lose(checkpoint: Checkpoint) -> dict[str, bytes]:
    """What another machine has: the rows, and none of the files."""
    folder = checkpoints.path(checkpoint)
    content = {name: (folder / name).read_bytes() for name in [*store.list_files(folder), store.MANIFEST]}
    shutil.rmtree(get_settings().checkpoints_dir)
    shutil.rmtree(get_settings().blobs_dir)
    return content


class TestBlobs:
    def test_what_is_sent_comes_back_and_is_sent_once(self, blob_store: Server, tmp_path: Path) -> None:
        file = make_file(tmp_path)
        assert not remote.has(SHA256, len(CONTENT))
        assert [remote.send(SHA256, file), remote.send(SHA256, file)] == [True, False]
        assert in_store(blob_store) == [SHA256]
        fetched = remote.fetch(SHA256, len(CONTENT))
        assert (fetched, fetched.read_bytes()) == (blobs.path(SHA256), CONTENT)
        assert fetched.stat().st_mode & 0o222 == 0

    def test_fetching_goes_on_where_it_stopped(
        self, blob_store: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        remote.send(SHA256, make_file(tmp_path))
        monkeypatch.setattr(remote, "CHUNK_BYTES", 10_000)
        read, asked = remote._read, []

        def read_until_the_line_breaks(sha256: str, begin: int, end: int) -> bytes:
            asked.append(begin)
            if len(asked) == 4:
                raise KeyboardInterrupt
            return read(sha256, begin, end)

        monkeypatch.setattr(remote, "_read", read_until_the_line_breaks)
        with pytest.raises(KeyboardInterrupt):
            remote.fetch(SHA256, len(CONTENT))
        assert not blobs.has(SHA256), "half of it is not there"
        assert remote.fetch(SHA256, len(CONTENT)).read_bytes() == CONTENT
        assert asked == [0, 10_000, 20_000, 30_000, *range(30_000, len(CONTENT), 10_000)]

    @pytest.mark.parametrize("left", [b"other" * 100, CONTENT + b"and more"])
    def test_what_lies_half_fetched_is_not_believed(self, blob_store: Server, tmp_path: Path, left: bytes) -> None:
        remote.send(SHA256, make_file(tmp_path))
        partial = get_settings().blobs_dir / remote.PARTIAL / SHA256
        partial.parent.mkdir(parents=True)
        partial.write_bytes(left)
        if len(left) < len(CONTENT):
            with pytest.raises(Invalid, match="gives other bytes"):
                remote.fetch(SHA256, len(CONTENT))
        assert remote.fetch(SHA256, len(CONTENT)).read_bytes() == CONTENT

    def test_other_bytes_in_the_store_are_refused_and_not_kept(self, blob_store: Server) -> None:
        place = f"{get_settings().blob_store.removeprefix('s3://')}/{SHA256[:2]}/{SHA256}"
        blob_store.files().pipe_file(place, CONTENT[::-1])
        with pytest.raises(Invalid, match=f"other bytes for {SHA256[:16]}"):
            remote.fetch(SHA256, len(CONTENT))
        assert [path for path in get_settings().blobs_dir.rglob("*") if path.is_file()] == []

    def test_what_the_store_lacks_is_said_to_be_missing(self, blob_store: Server) -> None:
        with pytest.raises(NotFound, match="is not in the blob store"):
            remote.fetch("0" * 64, 10)

    def test_what_no_checkpoint_needs_is_collected_after_the_grace(self, blob_store: Server, tmp_path: Path) -> None:
        other = hashlib.sha256(b"other").hexdigest()
        remote.send(SHA256, make_file(tmp_path))
        remote.send(other, make_file(tmp_path, b"other"))
        assert remote.collect({other}) == 0
        assert remote.collect({other}, grace_seconds=-60) == len(CONTENT)
        assert in_store(blob_store) == [other]


class TestTrouble:
    @pytest.mark.parametrize(
        ("change", "said"),
        [({"endpoint_url": "http://127.0.0.1:1"}, "cannot be"), ({"secret": "wrong"}, "cannot be")],
        ids=["nobody listens", "a wrong secret"],
    )
    def test_a_store_that_does_not_answer_is_named_without_its_secret(
        self, blob_store: Server, change: dict[str, str], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("GROW_BLOB_STORE_OPTIONS", blob_store.options(**change))
        monkeypatch.setattr(remote, "ATTEMPTS", 1)
        get_settings.cache_clear()
        with pytest.raises(remote.Away, match=said) as trouble:
            remote.check()
        assert SECRET not in str(trouble.value)
        assert "\n" not in str(trouble.value)

    def test_a_store_that_works_is_told_apart(self, blob_store: Server) -> None:
        remote.check()
        assert in_store(blob_store) == []

    @pytest.mark.parametrize(
        ("url", "options", "said"),
        [
            ("nosuch://bucket", "", "cannot be used"),
            ("s3://grow/x", "{", "cannot be used"),
            ("s3://grow/x", "[]", "cannot be used"),
        ],
    )
    def test_settings_that_make_no_sense_are_refused(
        self, grow_home: Path, monkeypatch: pytest.MonkeyPatch, url: str, options: str, said: str
    ) -> None:
        monkeypatch.setenv("GROW_BLOB_STORE", url)
        monkeypatch.setenv("GROW_BLOB_STORE_OPTIONS", options)
        get_settings.cache_clear()
        with pytest.raises(Invalid, match=said):
            remote.check()


class TestCheckpoints:
    def test_a_machine_without_the_folder_gets_it_from_the_store(self, checkpoint: Checkpoint) -> None:
        before = lose(checkpoint)
        folder = checkpoints.ensure_local(checkpoints.path(checkpoint))
        assert {name: (folder / name).read_bytes() for name in before} == before
        store.verify_files(folder, store.parse_manifest(checkpoint.manifest))
        assert all(path.stat().st_nlink == 2 for path in folder.iterdir() if path.name != store.MANIFEST)
        assert checkpoints.ensure_local(folder) == folder

    def test_a_torn_folder_in_its_place_is_replaced(self, checkpoint: Checkpoint) -> None:
        lose(checkpoint)
        folder = checkpoints.path(checkpoint)
        folder.mkdir(parents=True)
        (folder / "half.json").write_text("{")
        checkpoints.ensure_local(folder)
        store.verify_files(folder, store.parse_manifest(checkpoint.manifest))
        assert not (folder / "half.json").exists()

    def test_one_file_of_it_comes_alone(self, checkpoint: Checkpoint) -> None:
        lose(checkpoint)
        assert checkpoints.ensure_file(checkpoint, "tokenizer.json").read_text() == "{}"
        assert not checkpoints.path(checkpoint).exists()
        with pytest.raises(NotFound, match=r"has no file nothing\.json"):
            checkpoints.ensure_file(checkpoint, "nothing.json")

    def test_without_a_store_a_lost_folder_is_said_to_be_lost(
        self, database: Path, no_broker: None, tmp_path: Path
    ) -> None:
        made = intake.admit(make_folder(tmp_path / "new"), run="guest", step=7, tokens_seen=None, kind="pretrained")
        lose(made)
        with pytest.raises(NotFound, match="not on this disk"):
            store.ensure_local(checkpoints.path(made), store.parse_manifest(made.manifest))

    def test_the_least_recently_used_leave_a_full_disk_and_come_back(
        self, checkpoint: Checkpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        unsent = intake.admit(make_folder(tmp_path / "b"), run="guest", step=8, tokens_seen=None, kind="chat")
        (tmp_path / "c").mkdir()
        monkeypatch.setenv("GROW_CACHE_BYTES", "1")
        get_settings.cache_clear()
        assert cache.shrink() == 0, "both are in use"
        monkeypatch.setattr(cache, "IDLE_SECONDS", -1)
        cache.shrink()
        assert not checkpoints.path(checkpoint).exists()
        with db.read_session() as session:
            again = checkpoints.get_by_id(session, unsent.id)
        # The store holds the same contents under the first one's name, so this one may leave too.
        assert not checkpoints.path(again).exists()
        assert checkpoints.ensure_local(checkpoints.path(again)).is_dir()
