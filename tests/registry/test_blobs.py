"""Each content is stored once, and deleting one checkpoint takes nothing from another."""

import errno
import os
import shutil
from pathlib import Path

import pytest

from registry import blobs, store
from tests.registry.test_store import make_folder

pytestmark = pytest.mark.usefixtures("grow_home")


def seal(tmp_path: Path, name: str, **texts: str) -> tuple[Path, store.Manifest]:
    folder = make_folder(tmp_path / f"new-{name}")
    for file, text in texts.items():
        (folder / f"{file}.json").write_text(text)
    return tmp_path / name, store.seal(folder, tmp_path / name, {})


def test_two_checkpoints_share_what_they_have_in_common(tmp_path: Path) -> None:
    one, first = seal(tmp_path, "one")
    two, second = seal(tmp_path, "two", tokenizer='{"another": 1}')
    assert (one / "model.safetensors").stat().st_ino == (two / "model.safetensors").stat().st_ino
    assert (one / "tokenizer.json").stat().st_ino != (two / "tokenizer.json").stat().st_ino
    own = (two / "tokenizer.json").stat().st_size
    assert (first.saved_bytes, second.saved_bytes) == (0, second.size_bytes - own)
    used = blobs.usage()
    assert (used.num, used.size_bytes, used.saved_bytes) == (4, first.size_bytes + own, second.saved_bytes)
    assert all(path.stat().st_mode & 0o222 == 0 for path in two.iterdir() if path.name != store.MANIFEST)


def test_deleting_one_leaves_the_other_whole_and_frees_only_its_own(tmp_path: Path) -> None:
    one, first = seal(tmp_path, "one")
    two, second = seal(tmp_path, "two", tokenizer='{"another": 1}')
    store.remove(two)
    own = second.files["tokenizer.json"]
    assert blobs.collect() == 0, "somebody may have been told that it need not be sent"
    assert blobs.collect(grace_seconds=0) == own["size"]
    assert not blobs.has(own["sha256"])
    store.verify_files(one, first)
    assert blobs.collect(grace_seconds=0) == 0


def test_whoever_has_asked_for_a_content_finds_it_later(tmp_path: Path) -> None:
    folder, manifest = seal(tmp_path, "one")
    sha256 = manifest.files["tokenizer.json"]["sha256"]
    shutil.rmtree(folder)
    assert blobs.has(sha256)
    assert blobs.collect() == 0
    blobs.link(sha256, tmp_path / "again.json")
    assert (tmp_path / "again.json").read_text() == "{}"


def test_a_blob_that_something_cut_off_is_not_given_to_the_next(tmp_path: Path) -> None:
    _, manifest = seal(tmp_path, "one")
    blob = blobs.path(manifest.files["model.safetensors"]["sha256"])
    blob.unlink()
    blob.write_bytes(b"short")
    two, second = seal(tmp_path, "two")
    store.verify_files(two, second)
    assert blob.stat().st_ino == (two / "model.safetensors").stat().st_ino


def test_without_links_every_folder_has_its_own_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.EXDEV, "Invalid cross-device link")

    monkeypatch.setattr(os, "link", refuse)
    for name in ("one", "two"):
        folder, manifest = seal(tmp_path, name)
        store.verify_files(folder, manifest)
    assert blobs.usage() == (0, 0, 0)
