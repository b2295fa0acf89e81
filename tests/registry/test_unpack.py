"""What is unpacked, and what is refused."""

import hashlib
import io
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from registry import unpack
from registry.errors import Invalid
from registry.settings import get_settings

pytestmark = pytest.mark.usefixtures("grow_home")
Change = Callable[[zipfile.ZipInfo], None]


def zip_of(files: dict[str, bytes], change: Change | None = None) -> bytes:
    """A zip of these files; `change` may tell lies about each."""
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as opened:
        for name, data in files.items():
            entry = zipfile.ZipInfo(name)
            entry.compress_type = zipfile.ZIP_DEFLATED
            entry.external_attr = 0o100644 << 16
            if change:
                change(entry)
            opened.writestr(entry, data)
    return content.getvalue()


def extracted(folder: Path, content: bytes) -> dict[str, str]:
    """The hashes of what is in a zip."""
    archive = folder / "x.zip"
    archive.write_bytes(content)
    return unpack.extract(archive, folder / "content")


def link(entry: zipfile.ZipInfo) -> None:
    entry.external_attr = 0o120777 << 16


def device(entry: zipfile.ZipInfo) -> None:
    entry.external_attr = 0o060644 << 16


def changed(at: int, value: bytes) -> bytes:
    """A zip with other bytes in the entry of its central directory."""
    packed = bytearray(zip_of({"config.json": b"0" * 5000}))
    start = packed.rindex(b"PK\x01\x02") + at
    packed[start : start + len(value)] = value
    return bytes(packed)


def flipped() -> bytes:
    """A zip whose packed bytes are damaged."""
    packed = bytearray(zip_of({"config.json": bytes(range(256)) * 40}))
    packed[60:90] = b"\xff" * 30
    return bytes(packed)


BAD_ZIPS: dict[str, tuple[Callable[[], bytes], str]] = {
    "it goes up": (lambda: zip_of({"../evil.json": b"{}"}), "leaves its folder"),
    "it is absolute": (lambda: zip_of({"/tmp/evil.json": b"{}"}), "leaves its folder"),
    "it goes up in the middle": (lambda: zip_of({"a/../../evil.json": b"{}"}), "leaves its folder"),
    "it goes up as Windows does": (lambda: zip_of({"a\\..\\..\\evil.json": b"{}"}), "leaves its folder"),
    "it goes up in other letters": (lambda: zip_of({"．．/evil.json": b"{}"}), "leaves its folder"),
    "its name is turned around": (lambda: zip_of({"a\u202enosj.json": b"{}"}), "cannot be seen"),
    "its name is too long": (lambda: zip_of({"a" * 201 + ".json": b"{}"}), "too long"),
    "a link": (lambda: zip_of({"config.json": b"/etc/passwd"}, link), "is a link"),
    "a device": (lambda: zip_of({"config.json": b"x"}, device), "is a link"),
    "code": (lambda: zip_of({"pytorch_model.bin": b"x"}), "can run code"),
    "a zip in a zip": (lambda: zip_of({"more.zip": b"x"}), "another zip"),
    "twins": (lambda: zip_of({"Config.json": b"1", "config.json": b"2"}), "came twice"),
    "twins in other letters": (lambda: zip_of({"café.json": b"1", "cafe\u0301.json": b"2"}), "usual form"),
    "a file that is a folder": (lambda: zip_of({"a.json": b"1", "a.json/b.json": b"2"}), "file and a folder"),
    "encrypted": (lambda: changed(8, b"\x01\x00"), "encrypted"),
    "a size that is too small": (lambda: changed(24, struct.pack("<I", 10)), "damaged|larger than it says"),
    "a size that is too large": (lambda: changed(24, struct.pack("<I", 50_000)), "damaged|smaller than it says"),
    "nothing": (lambda: b"", "damaged"),
    "no zip": (lambda: b"not a zip", "damaged"),
    "it stops": (lambda: zip_of({"config.json": b"{}" * 4000})[:-200], "damaged"),
    "damaged inside": (flipped, "damaged"),
    "too many": (lambda: zip_of({f"{n}.json": b"" for n in range(501)}), "at most 500"),
}


@pytest.mark.parametrize("case", BAD_ZIPS)
def test_a_zip_that_cannot_be_trusted_is_refused_in_words(tmp_path: Path, case: str) -> None:
    make, said = BAD_ZIPS[case]
    with pytest.raises(Invalid, match=said):
        extracted(tmp_path, make())
    assert not list(tmp_path.rglob("evil.json"))
    assert not Path("/tmp/evil.json").exists()


def test_a_bomb_is_refused_before_it_goes_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unpack, "RATIO_FROM_BYTES", 1_000_000)
    with pytest.raises(Invalid, match="hundred times"):
        extracted(tmp_path, zip_of({"config.json": b"0" * 5_000_000}))
    assert not list((tmp_path / "content").iterdir())


def test_more_than_the_limit_when_unpacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GROW_MAX_UPLOAD_BYTES", "10000")
    get_settings.cache_clear()
    with pytest.raises(unpack.TooLarge):
        extracted(tmp_path, zip_of({"config.json": b"0" * 20_000}))


def test_a_list_of_files_that_would_fill_the_memory_is_not_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(unpack, "MAX_DIRECTORY_BYTES", 10_000)
    with pytest.raises(Invalid, match="at most 500"):
        extracted(tmp_path, zip_of({f"{n}.json": b"" for n in range(400)}))


def test_a_good_one_is_unpacked_without_its_top_folder_and_hashed(tmp_path: Path) -> None:
    files = {"top/config.json": b"{}", "top/sub/x.json": b"1", "__MACOSX/._m.bin": b"y", "top/.DS_Store": b"z"}
    assert extracted(tmp_path, zip_of(files)) == {
        "config.json": hashlib.sha256(b"{}").hexdigest(),
        "sub/x.json": hashlib.sha256(b"1").hexdigest(),
    }
    assert (tmp_path / "content/sub/x.json").read_bytes() == b"1"


def test_received_files_are_linked_so_that_a_second_try_finds_them(tmp_path: Path) -> None:
    (tmp_path / "one").write_bytes(b"1")
    (tmp_path / "two").write_bytes(b"2")
    for _ in range(2):
        unpack.gather([("top/a.json", tmp_path / "one"), ("top/b/c.json", tmp_path / "two")], tmp_path / "content")
        assert (tmp_path / "content/b/c.json").read_bytes() == b"2"
        unpack.remove(tmp_path / "content")
    unpack.remove(tmp_path / "content")  # gone is gone
