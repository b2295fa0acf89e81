"""Checkpoint folders: whole or not there, and nothing hostile gets in."""

import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from registry import store
from registry.errors import Conflict, Invalid

pytestmark = pytest.mark.usefixtures("grow_home")


def safetensors(header: dict[str, Any], body: bytes) -> bytes:
    """A file of that header and body, truthful or not."""
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + body


def make_folder(folder: Path) -> Path:
    """The smallest folder that is accepted."""
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps({"architectures": ["LlamaForCausalLM"]}))
    (folder / "tokenizer.json").write_text("{}")
    header = {"w": {"dtype": "BF16", "shape": [2, 3], "data_offsets": [0, 12]}}
    (folder / "model.safetensors").write_bytes(safetensors(header, bytes(12)))
    return folder


class TestSeal:
    def test_moves_the_folder_with_its_manifest(self, tmp_path: Path) -> None:
        manifest = store.seal(make_folder(tmp_path / "new"), tmp_path / "run" / "step-1", {"step": 1})
        assert not (tmp_path / "new").exists()
        assert store.read_manifest(tmp_path / "run" / "step-1") == manifest
        assert manifest.facts == {"step": 1}
        store.verify_files(tmp_path / "run" / "step-1", manifest)

    def test_the_same_files_twice_are_once(self, tmp_path: Path) -> None:
        first = store.seal(make_folder(tmp_path / "a"), tmp_path / "done", {})
        second = store.seal(make_folder(tmp_path / "b"), tmp_path / "done", {})
        assert first.digest == second.digest
        assert not (tmp_path / "b").exists()

    def test_other_files_never_replace_a_checkpoint(self, tmp_path: Path) -> None:
        first = store.seal(make_folder(tmp_path / "a"), tmp_path / "done", {})
        other = make_folder(tmp_path / "b")
        (other / "config.json").write_text("{}")
        with pytest.raises(Conflict):
            store.seal(other, tmp_path / "done", {})
        store.verify_files(tmp_path / "done", first)

    def test_a_half_written_destination_never_counted_and_is_replaced(self, tmp_path: Path) -> None:
        (tmp_path / "done").mkdir()
        (tmp_path / "done" / "model.safetensors").write_bytes(b"half")
        with pytest.raises(Invalid, match="half-written"):
            store.read_manifest(tmp_path / "done")
        store.seal(make_folder(tmp_path / "a"), tmp_path / "done", {})
        assert store.read_manifest(tmp_path / "done").size_bytes > 0


class TestVerifyFiles:
    @pytest.mark.parametrize(
        ("damage", "said"),
        [
            (lambda f: (f / "config.json").unlink(), "config.json is missing"),
            (lambda f: (f / "extra.json").write_text("{}"), "extra.json is not in the manifest"),
            (lambda f: (f / "tokenizer.json").write_text("{ }"), "tokenizer.json has 3 bytes"),
            (lambda f: (f / "tokenizer.json").write_text("[]"), "does not have the sha256"),
        ],
    )
    def test_names_what_changed(self, tmp_path: Path, damage: Callable[[Path], Any], said: str) -> None:
        manifest = store.seal(make_folder(tmp_path / "a"), tmp_path / "done", {})
        damage(tmp_path / "done")
        with pytest.raises(Invalid, match=said):
            store.verify_files(tmp_path / "done", manifest)


class TestCheckFolder:
    def test_accepts_a_llama_folder(self, tmp_path: Path) -> None:
        store.check_folder(make_folder(tmp_path / "ok"))

    @pytest.mark.parametrize(
        ("change", "said"),
        [
            (lambda f: (f / "config.json").unlink(), "no config.json"),
            (lambda f: (f / "config.json").write_text("{"), "not valid JSON"),
            (lambda f: (f / "config.json").write_text("[]"), "must hold an object"),
            (
                lambda f: (f / "config.json").write_text('{"architectures": ["GPT2LMHeadModel"]}'),
                "only LlamaForCausalLM",
            ),
            (
                lambda f: (f / "config.json").write_text(
                    '{"architectures": ["LlamaForCausalLM"], "auto_map": {"a": "b"}}'
                ),
                "code of its own",
            ),
            (lambda f: (f / "pytorch_model.bin").write_bytes(b"\x80"), "can run code"),
            (lambda f: (f / "modeling.py").write_text(""), "can run code"),
            (lambda f: (f / "weights.pkl").write_bytes(b""), "can run code"),
            (lambda f: (f / "model.safetensors").unlink(), "no .safetensors"),
            (lambda f: (f / "tokenizer.json").unlink(), "no tokenizer"),
            (lambda f: (f / "link.json").symlink_to("/etc/passwd"), "is a link"),
        ],
    )
    def test_says_what_is_wrong(self, tmp_path: Path, change: Callable[[Path], Any], said: str) -> None:
        folder = make_folder(tmp_path / "bad")
        change(folder)
        with pytest.raises(Invalid, match=said):
            store.check_folder(folder)


@pytest.mark.parametrize(
    "name", ["../config.json", "/etc/x.json", "a/../../x.json", "C:\\x.json", "a//b.json", "a\n.json", "\\x.json"]
)
def test_a_path_that_leaves_its_folder_is_refused(name: str) -> None:
    with pytest.raises(Invalid):
        store.check_file_name(name)


class TestCheckSafetensors:
    @pytest.mark.parametrize(
        "content",
        [
            b"",
            b"\x01\x02",
            struct.pack("<Q", 2**62) + b"{}",
            struct.pack("<Q", 1000) + b"{}",
            struct.pack("<Q", 2) + b"{]",
            struct.pack("<Q", 2) + b"[]",
            safetensors({"w": {"dtype": "F32", "shape": [4], "data_offsets": [0, 16]}}, bytes(8)),  # truncated
            safetensors({"w": {"dtype": "F32", "shape": [4], "data_offsets": [0, 16]}}, bytes(20)),  # too long
            safetensors({"w": {"dtype": "F32", "shape": [400], "data_offsets": [0, 16]}}, bytes(16)),  # lying shape
            safetensors({"w": {"dtype": "F32", "shape": [-4], "data_offsets": [0, 16]}}, bytes(16)),
            safetensors({"w": {"dtype": "EVIL", "shape": [4], "data_offsets": [0, 16]}}, bytes(16)),
            safetensors({"w": {"dtype": "F32", "shape": [4], "data_offsets": ["a", 16]}}, bytes(16)),
            safetensors({"w": {"dtype": "F32", "shape": [4]}}, bytes(16)),
            safetensors({"w": 5}, b""),
            safetensors(
                {
                    "a": {"dtype": "F32", "shape": [4], "data_offsets": [0, 16]},
                    "b": {"dtype": "F32", "shape": [4], "data_offsets": [8, 24]},
                },
                bytes(24),
            ),  # overlapping
            safetensors({"w": {"dtype": "F32", "shape": [1], "data_offsets": [4, 8]}}, bytes(8)),  # a hole
        ],
    )
    def test_refuses_truncated_and_lying_headers(self, tmp_path: Path, content: bytes) -> None:
        path = tmp_path / "model.safetensors"
        path.write_bytes(content)
        with pytest.raises(Invalid, match=r"model\.safetensors"):
            store.check_safetensors(path)
