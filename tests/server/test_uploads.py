"""What is received and unpacked, and what is refused."""

import io
import os
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from starlette.requests import Request

from registry import unpack
from registry.errors import Invalid
from registry.settings import get_settings
from server import uploads

BOUNDARY = "part"


def zip_of(files: dict[str, bytes], change: Callable[[zipfile.ZipInfo], None] | None = None) -> bytes:
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


def received(folder: Path, files: dict[str, bytes]) -> Path:
    """A folder as `receive` leaves it."""
    for name, data in files.items():
        path = folder / "files" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return folder


def form(parts: list[tuple[str, str | None, bytes]]) -> bytes:
    """A multipart body of (field, file name, content)."""
    body = b""
    for field, file_name, content in parts:
        disposition = f'form-data; name="{field}"' + (f'; filename="{file_name}"' if file_name is not None else "")
        body += f"--{BOUNDARY}\r\nContent-Disposition: {disposition}\r\n\r\n".encode() + content + b"\r\n"
    return body + f"--{BOUNDARY}--\r\n".encode()


async def receive(
    folder: Path, body: bytes, check: Callable[[uploads.Fields], None] = lambda _: None
) -> uploads.Fields:
    """Sends a body in small pieces."""
    pieces = [body[start : start + 1000] for start in range(0, len(body), 1000)]

    async def next_piece() -> dict[str, object]:
        return {"type": "http.request", "body": pieces.pop(0) if pieces else b"", "more_body": bool(pieces)}

    headers = [
        (b"content-type", f"multipart/form-data; boundary={BOUNDARY}".encode()),
        (b"content-length", str(len(body)).encode()),
    ]
    request = Request({"type": "http", "method": "POST", "headers": headers}, next_piece)
    return await uploads.receive(request, folder, check)


@pytest.mark.usefixtures("grow_home")
class TestReceive:
    @pytest.fixture
    def anyio_backend(self) -> str:
        return "asyncio"

    @pytest.mark.anyio
    async def test_fields_come_back_and_files_are_on_disk(self, tmp_path: Path) -> None:
        weights = os.urandom(50_000)
        body = form(
            [("run", None, "李".encode()), ("files", "a/config.json", b"{}"), ("files", "a/m.safetensors", weights)]
        )
        assert await receive(tmp_path, body) == {"run": "李"}
        assert (tmp_path / "files/a/m.safetensors").read_bytes() == weights

    @pytest.mark.anyio
    async def test_a_refusal_comes_before_the_first_file_is_kept(self, tmp_path: Path) -> None:
        def refuse(_: uploads.Fields) -> None:
            raise Invalid("No.")

        with pytest.raises(Invalid, match="No"):
            await receive(tmp_path, form([("run", None, b"x"), ("files", "config.json", b"{}")]), refuse)
        assert not (tmp_path / "files").exists()

    @pytest.mark.anyio
    @pytest.mark.parametrize(
        "name",
        ["../../evil.json", "/etc/evil.json", "a/../../evil.json", "C:/evil.json", "..\\\\evil.json", "a//b.json"],
    )
    async def test_a_path_that_leaves_its_folder_is_refused(self, tmp_path: Path, name: str) -> None:
        with pytest.raises(Invalid, match="leaves its folder"):
            await receive(tmp_path, form([("files", name, b"{}")]))

    @pytest.mark.anyio
    @pytest.mark.parametrize("name", ["model.bin", "model.pt", "model.pkl", "model.py", "weights.ckpt", "x"])
    async def test_what_can_run_code_is_refused_in_words(self, tmp_path: Path, name: str) -> None:
        with pytest.raises(Invalid, match="can run code"):
            await receive(tmp_path, form([("files", name, b"x")]))

    @pytest.mark.anyio
    async def test_the_same_name_twice_is_refused(self, tmp_path: Path) -> None:
        with pytest.raises(Invalid, match="twice"):
            await receive(tmp_path, form([("files", "a.json", b"1"), ("files", "a.json", b"2")]))

    @pytest.mark.anyio
    async def test_inputs_without_a_chosen_file_and_leftovers_are_passed_over(self, tmp_path: Path) -> None:
        body = form([("files", "", b""), ("files", "m/.DS_Store", b"x"), ("files", "m/config.json", b"{}")])
        await receive(tmp_path, body)
        assert [path.name for path in (tmp_path / "files").rglob("*") if path.is_file()] == ["config.json"]

    @pytest.mark.anyio
    async def test_no_file_at_all(self, tmp_path: Path) -> None:
        with pytest.raises(Invalid, match="Choose the files"):
            await receive(tmp_path, form([("run", None, b"x"), ("files", "", b"")]))

    @pytest.mark.anyio
    async def test_more_than_the_limit(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("GROW_MAX_UPLOAD_BYTES", "10000")
        get_settings.cache_clear()
        with pytest.raises(unpack.TooLarge, match="at most 10,000"):
            await receive(tmp_path, form([("files", "m.safetensors", b"x" * 20_000)]))

    @pytest.mark.anyio
    async def test_a_body_that_breaks_off(self, tmp_path: Path) -> None:
        body = form([("files", "config.json", b"{" * 3000)])
        with pytest.raises(Invalid, match="broke off"):
            await receive(tmp_path, body[:2000])

    @pytest.mark.anyio
    async def test_a_field_without_end(self, tmp_path: Path) -> None:
        with pytest.raises(unpack.TooLarge):
            await receive(tmp_path, form([("run", None, b"x" * 20_000)]))


@pytest.mark.usefixtures("grow_home")
class TestOpenReceived:
    @pytest.mark.parametrize("top", ["", "my-model/"])
    def test_a_zip_gives_the_folder_with_the_config(self, tmp_path: Path, top: str) -> None:
        packed = zip_of({f"{top}config.json": b"{}", f"{top}m.safetensors": b"x", "__MACOSX/._m.bin": b"y"})
        content, hashes = uploads.open_received(received(tmp_path, {"upload.zip": packed}))
        assert sorted(path.name for path in content.iterdir()) == sorted(hashes) == ["config.json", "m.safetensors"]
        assert not list(tmp_path.rglob("*.zip"))

    def test_files_of_a_picked_folder(self, tmp_path: Path) -> None:
        files = {"my-model/config.json": b"{}", "my-model/m.safetensors": b""}
        content, hashes = uploads.open_received(received(tmp_path, files))
        assert (content.name, hashes) == ("my-model", {})

    def test_a_zip_beside_files_is_refused(self, tmp_path: Path) -> None:
        with pytest.raises(Invalid, match="not both"):
            uploads.open_received(received(tmp_path, {"upload.zip": zip_of({"a.json": b""}), "b.json": b""}))
