"""Downloads: ranges, resuming and conditions, lists that programs read, mirrors; and what must not come out."""

import hashlib
import http.client
import shutil
import subprocess
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest
from fastapi.testclient import TestClient

from registry import blobs, checkpoints, db, mirrors, remote
from registry.errors import Conflict, Invalid
from registry.models.base import RETIRED
from registry.settings import get_settings
from server import downloads, sendfile, stored
from server.sendfile import SendFile
from tests.blobstores import Server, blob_store, s3_server
from tests.conftest import free_port
from tests.server.live import serve
from tests.server.shelves import checkpoint, put
from tests.server.visitors import Visitor, application, member

__all__ = ["blob_store", "s3_server"]
WEIGHTS = "model.safetensors"


@pytest.fixture
def client(shelf: Path) -> TestClient:
    """A program before a site with checkpoints; without a real connection, so files go in pieces."""
    return TestClient(application())


@pytest.fixture
def live(shelf: Path) -> Iterator[httpx.Client]:
    """The same over a real connection, where the kernel sends the files."""
    with serve() as address, httpx.Client(base_url=address) as opened:
        yield opened


@pytest.fixture(params=["in pieces", "by the kernel"])
def either(request: pytest.FixtureRequest) -> httpx.Client:
    """Both ways."""
    found: httpx.Client = request.getfixturevalue("client" if request.param == "in pieces" else "live")
    return found


def address(name: str = WEIGHTS, step: int = 1) -> str:
    return f"/checkpoints/{checkpoint(step).digest}/files/{name}"


def content(name: str = WEIGHTS, step: int = 1) -> bytes:
    return (checkpoints.path(checkpoint(step)) / name).read_bytes()


RANGES = (
    ("bytes=0-", slice(0, None)),
    ("bytes=0-0", slice(0, 1)),
    ("bytes=100-199", slice(100, 200)),
    ("bytes=100-99999999999999999999", slice(100, None)),
    ("bytes=-5", slice(-5, None)),
    ("bytes=-99999999", slice(0, None)),
    ("bytes = 7-9", slice(7, 10)),
    ("BYTES=7-9", slice(7, 10)),
)


def test_ranges_of_a_file(either: httpx.Client) -> None:
    whole = content()
    for asked, part in RANGES:
        answer = either.get(address(), headers={"range": asked, "accept-encoding": "gzip, deflate, br, zstd"})
        begin = range(len(whole))[part].start
        assert answer.status_code == 206, asked
        assert answer.content == whole[part], asked
        assert answer.headers["content-length"] == str(len(whole[part])), asked
        assert answer.headers["content-range"] == f"bytes {begin}-{begin + len(whole[part]) - 1}/{len(whole)}", asked
        assert "content-encoding" not in answer.headers
    several = either.get(address(), headers={"range": "bytes=0-9,100-109"})
    assert several.status_code == 206
    assert several.headers["content-type"].startswith("multipart/byteranges")
    assert whole[:10] in several.content
    assert whole[100:110] in several.content


@pytest.mark.parametrize(
    ("asked", "status"),
    [
        ("bytes={size}-", 416),
        ("bytes=99999999-", 416),
        ("bytes=-0", 416),
        ("bytes=9-7", 400),
        ("bytes=--5", 416),
        ("bytes=a-b", 400),
        ("bytes=", 400),
        ("lines=1-2", 400),
        ("nothing", 400),
        ("bytes=" + "0-1," * 200, 200),
        ("bytes=" + "9" * 5_000 + "-", 400),
    ],
)
def test_ranges_that_are_none(client: TestClient, asked: str, status: int) -> None:
    answer = client.get(address(), headers={"range": asked.format(size=len(content()))})
    assert answer.status_code == status
    if status == 416:
        assert answer.headers["content-range"] == f"bytes */{len(content())}"
    if status == 200:
        assert answer.content == content()


def test_conditions(either: httpx.Client) -> None:
    etag = f'"{hashlib.sha256(content()).hexdigest()}"'
    first = either.get(address())
    assert (first.headers["etag"], first.headers["cache-control"]) == (etag, "public, max-age=31536000, immutable")
    assert "vary" not in first.headers
    for known in (etag, f'"other", {etag}', f"W/{etag}", "*"):
        again = either.get(address(), headers={"if-none-match": known})
        assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", etag)
    assert either.get(address(), headers={"if-none-match": '"other"'}).status_code == 200
    for condition, status in (
        (etag, 206),
        ('"other"', 200),
        (f"W/{etag}", 200),
        ("Thu, 01 Jan 1970 00:00:00 GMT", 200),
    ):
        resumed = either.get(address(), headers={"range": "bytes=10-", "if-range": condition})
        assert resumed.status_code == status, condition
        assert resumed.content == content()[10 if status == 206 else 0 :]


def test_the_head_of_a_file_is_that_of_the_file(either: httpx.Client) -> None:
    head, whole = either.head(address()), either.get(address(), headers={"accept-encoding": "gzip"})
    assert (head.content, head.headers["content-length"]) == (b"", str(len(content())))
    for name in ("etag", "content-length", "content-type", "accept-ranges", "last-modified"):
        assert head.headers[name] == whole.headers[name]
    assert head.headers["content-disposition"] == f'attachment; filename="{WEIGHTS}"'
    part = either.head(address(), headers={"range": "bytes=1-2"})
    assert (part.status_code, part.content) == (206, b"")


def test_the_list_of_hashes_is_one_that_sha256sum_reads(client: TestClient) -> None:
    one = checkpoint(2)
    sums = client.get(f"/checkpoints/{one.digest}/SHA256SUMS")
    assert sums.headers["content-type"].startswith("text/plain")
    checked = subprocess.run(
        ["sha256sum", "-c"], cwd=checkpoints.path(one), input=sums.text, capture_output=True, text=True, check=True
    )
    assert checked.stdout.splitlines() == [f"{name}: OK" for name in sorted(one.manifest["files"])]


def test_names_that_shells_and_lists_would_misread(tmp_path: Path, shelf: Path) -> None:
    tmp_path = tmp_path / "empty"
    tmp_path.mkdir()
    names = ("a b{1,2}[3]$(touch x).json", "back\\slash.json")
    made = put("strange", 1, **{names[0].replace(".", "__"): "{}"})
    files = downloads.files_of(made, [])
    (line,) = [one.text for one in downloads.snippets("http://x", made, "strange", "step-1", files) if one.id == "curl"]
    listed = subprocess.run(
        ["bash", "-c", line.replace("curl ", "printf '%s\\n' ", 1)], capture_output=True, text=True, cwd=tmp_path
    ).stdout.splitlines()
    assert f"strange-step-1/{names[0]}" in listed
    assert list(tmp_path.iterdir()) == []
    odd = [downloads.File(names[1], 2, hashlib.sha256(b"{}").hexdigest(), "", [])]
    (tmp_path / names[1]).write_text("{}")
    subprocess.run(["sha256sum", "-c"], cwd=tmp_path, input=downloads.sums(odd), text=True, check=True)


@pytest.mark.parametrize(
    "name",
    [
        "nothing.json",
        "manifest.json",
        "../step-3/config.json",
        "%2e%2e/step-3/config.json",
        "..%2f..%2f..%2fsecret_key",
        "/etc/passwd",
        "%2fetc%2fpasswd",
        "config.json%00",
        "config.json/",
        "CONFIG.JSON",
        "..%5c..%5csecret_key",
    ],
)
def test_no_name_leaves_the_manifest(client: TestClient, name: str) -> None:
    answer = client.get(f"/checkpoints/{checkpoint(1).digest}/files/{name}")
    assert answer.status_code == 404
    assert "secret" not in answer.text.replace(name, "").replace("secret_key", "")


@pytest.mark.parametrize("step", [3, 4, 5])
def test_what_is_not_ready_stays_here(client: TestClient, step: int) -> None:
    if step == 5:
        put("garden", 5, state=RETIRED)
    digest = checkpoint(step).digest
    for place in ("files/config.json", "SHA256SUMS", "urls.txt", "aria2.txt"):
        assert client.get(f"/checkpoints/{digest}/{place}").status_code == 404
    page = client.get(f"/runs/garden/checkpoints/{step}/files", headers={"accept": "text/html"})
    assert page.status_code == 404
    assert digest not in page.text


def test_bad_addresses(client: TestClient) -> None:
    digest = checkpoint(1).digest
    for wrong in ("0" * 64, digest[:40], digest.upper(), f"{digest}0", "..", "%2e%2e"):
        assert client.get(f"/checkpoints/{wrong}/files/config.json").status_code in (404, 422), wrong
    assert client.post(address()).status_code == 405
    assert client.get("/runs/garden/checkpoints/9/files").status_code == 404


def test_a_missing_file_is_told_as_such(client: TestClient) -> None:
    (checkpoints.path(checkpoint(1)) / "config.json").unlink()
    answer = client.get(address("config.json"))
    assert (answer.status_code, answer.json()["detail"]) == (
        503,
        "This file is not here at the moment. Try again later.",
    )


def test_what_lies_in_the_blob_store_alone_is_fetched_when_it_is_sent(shelf: Path, blob_store: Server) -> None:
    one, whole = checkpoint(1), content()
    for name, entry in one.manifest["files"].items():
        remote.send(entry["sha256"], checkpoints.path(one) / name)
        blobs.path(entry["sha256"]).unlink()
    shutil.rmtree(checkpoints.path(one))
    client, kept = TestClient(application()), blobs.path(hashlib.sha256(whole).hexdigest())
    for place in (address(), f"/garden/resolve/step-1/{WEIGHTS}"):
        assert client.head(place).headers["content-length"] == str(len(whole))
    assert not kept.exists()
    assert client.get(address(), headers={"range": "bytes=-9"}).content == whole[-9:]
    assert kept.read_bytes() == whole
    assert client.get(f"/garden/resolve/step-1/{WEIGHTS}").content == whole
    assert client.get("/garden/resolve/step-1/tokenizer.json").headers["etag"].strip('"').isalnum()


def test_the_page_names_every_file_and_ready_lines(shelf: Path) -> None:
    with db.transaction() as session:
        mirrors.add(session, "校园 <mirror>", "https://mirror.example/grow", None)
        broken = mirrors.add(session, "Broken", "https://broken.example", None)
        broken.problem = "no"
    page = Visitor().get("/runs/garden/checkpoints/2/files?kind=chat").text
    one = checkpoint(2, "chat")
    for name, entry in one.manifest["files"].items():
        assert f'href="/checkpoints/{one.digest}/files/{name}"' in page
        assert entry["sha256"] in page
        assert f"https://mirror.example/grow/garden/step-2-chat/{name}" in page
    assert "校园 &lt;mirror&gt;" in page
    assert "broken.example" not in page
    assert "hf download garden --revision step-2-chat --local-dir garden-step-2-chat" in page
    assert "/files?kind=chat" in Visitor().get("/runs/garden/checkpoints/2?kind=chat").text
    assert "下载" in Visitor("zh").get("/runs/garden/checkpoints/2").text


class TestKernel:
    """What only a real connection shows."""

    SIZE = 40_000_000

    @pytest.fixture
    def big(self, shelf: Path) -> str:
        """A file larger than what a connection holds, in place of small weights."""
        one = checkpoint(1)
        path = checkpoints.path(one) / WEIGHTS
        path.unlink()
        path.write_bytes(hashlib.shake_128(b"big").digest(self.SIZE))
        return address()

    def test_slow_and_leaving_readers_hold_nobody_back(
        self, live: httpx.Client, big: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        host = urlsplit(str(live.base_url))
        slow = []
        for _ in range(sendfile.THREADS + 2):
            connection = http.client.HTTPConnection(str(host.hostname), host.port)
            connection.request("GET", big)
            slow.append(connection.getresponse())
        expected = hashlib.shake_128(b"big").digest(self.SIZE)
        with ThreadPoolExecutor(4) as pool:
            parts = [f"bytes={begin}-{begin + self.SIZE // 4 - 1}" for begin in range(0, self.SIZE, self.SIZE // 4)]
            got = pool.map(lambda part: live.get(big, headers={"range": part}).content, parts)
            assert b"".join(got) == expected
        assert slow[0].read() == expected
        for left in slow[1:]:
            left.close()
        again = [live.get(big).content == expected for _ in range(2)]  # on the connection that was used before
        assert again == [True, True]

    def test_a_reader_that_takes_nothing_is_let_go(
        self, shelf: Path, big: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(sendfile, "STALLED_SECONDS", 0.3)
        with serve() as site:
            connection = http.client.HTTPConnection(str(urlsplit(site).hostname), urlsplit(site).port)
            connection.request("GET", big)
            answer = connection.getresponse()
            time.sleep(1)
            with pytest.raises((http.client.IncompleteRead, ConnectionError)):
                answer.read()
            assert len(httpx.get(site + big).content) == self.SIZE

    def test_a_file_that_became_shorter_ends_the_connection(
        self, shelf: Path, big: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        found = stored.StoredFile.__init__

        def claim_more(self: stored.StoredFile, *args: object, **words: object) -> None:
            found(self, *args, **words)  # type: ignore[arg-type]
            self.headers["content-length"] = str(TestKernel.SIZE + 5)

        monkeypatch.setattr(stored.StoredFile, "__init__", claim_more)
        with serve() as site, pytest.raises(httpx.RemoteProtocolError):
            httpx.get(site + big)

    def test_without_the_extension_the_same_comes_in_pieces(self, shelf: Path, big: str) -> None:
        with serve(lambda app: app) as site:
            assert httpx.get(site + big).content == hashlib.shake_128(b"big").digest(self.SIZE)
        assert SendFile  # the other tests go through it


@pytest.mark.skipif(shutil.which("nginx") is None, reason="nginx is not installed")
def test_nginx_in_front_sends_the_files_itself(shelf: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GROW_ACCEL_LOCATION", "/_files")
    get_settings.cache_clear()
    with serve() as behind, _nginx(tmp_path, behind, shelf) as front:
        weights, etag = content(), f'"{hashlib.sha256(content()).hexdigest()}"'
        assert (
            httpx.get(behind + address()).headers["x-accel-redirect"].startswith("/_files/checkpoints/garden/step-1/")
        )
        whole = httpx.get(front + address(), headers={"accept-encoding": "gzip"})
        assert (whole.content, whole.headers["etag"]) == (weights, etag)
        assert "x-accel-redirect" not in whole.headers
        assert whole.headers["cache-control"] == stored.FOREVER
        part = httpx.get(front + address(), headers={"range": "bytes=10-19", "if-range": etag})
        assert (part.status_code, part.content) == (206, weights[10:20])
        stale = httpx.get(front + address(), headers={"range": "bytes=10-19", "if-range": '"other"'})
        assert (stale.status_code, stale.content) == (200, weights)
        assert httpx.get(front + address(), headers={"if-none-match": etag}).status_code == 304
        hub = httpx.get(f"{front}/garden/resolve/step-1/config.json")
        assert hub.headers["x-repo-commit"] == checkpoint(1).digest[:40]
        head = httpx.head(f"{front}/garden/resolve/step-1/{WEIGHTS}")
        assert (head.headers["content-length"], head.headers["x-linked-etag"]) == (str(len(weights)), etag)
        # Nobody comes to the files past the site's own checks.
        assert httpx.get(f"{front}/_files/checkpoints/garden/step-3/config.json").status_code == 404
        assert httpx.get(f"{front}/checkpoints/{checkpoint(3).digest}/files/config.json").status_code == 404


@contextmanager
def _nginx(folder: Path, behind: str, home: Path) -> Iterator[str]:
    """A real nginx with the configuration of the operators' guide."""
    port, guide = free_port(), (Path(__file__).parents[2] / "docs" / "operations.md").read_text()
    site = guide.split("```nginx\n")[1].split("```")[0]
    site = site.replace("listen 443 ssl;", f"listen 127.0.0.1:{port};").replace("http://127.0.0.1:8000", behind)
    site = "".join(line + "\n" for line in site.splitlines() if "ssl_certificate" not in line)
    site = site.replace("/var/lib/grow", str(home))
    places = "".join(
        f"{name}_temp_path {folder}/{name};\n" for name in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    (folder / "nginx.conf").write_text(
        f"user root;\npid {folder}/nginx.pid;\nerror_log {folder}/error.log;\nevents {{}}\n"
        f"http {{\naccess_log off;\n{places}{site}\n}}\n"
    )
    child = subprocess.Popen(
        ["nginx", "-c", str(folder / "nginx.conf"), "-g", "daemon off;"], stderr=(folder / "stderr").open("wb")
    )
    try:
        for _ in range(100):
            try:
                httpx.get(f"http://127.0.0.1:{port}/healthz")
                break
            except httpx.TransportError:
                assert child.poll() is None, (folder / "stderr").read_text()
                time.sleep(0.05)
        yield f"http://127.0.0.1:{port}"
    finally:
        child.terminate()
        child.wait(10)


class TestMirrors:
    @pytest.mark.parametrize(
        "wrong",
        [
            "",
            "mirror.example",
            "ftp://mirror.example/",
            "javascript:alert(1)",
            "file:///etc",
            "https://",
            "https://mirror.example/a b",
            "https://mirror.example/\nx",
            "https://mirror.example/'\"><script>",
            "https://mirror.example/%zz{}",
            "https://mirror.example/../other",
            "https://mirror.example/?a=1",
            "https://mirror.example/#a",
            "https://user:secret@mirror.example/",
            "https://mirror.example:99999/",
            "https://mirror.example/" + "a" * 300,
            "https://mirrör.example/",
        ],
    )
    def test_addresses_that_files_cannot_be_below(self, wrong: str) -> None:
        with pytest.raises(Invalid):
            mirrors.checked_url(wrong)

    def test_an_address_is_offered_once_and_labels_are_short(self, shelf: Path) -> None:
        with db.transaction() as session:
            made = mirrors.add(session, "  One ", "http://[::1]:8080/grow/", None)
            assert (made.label, made.base_url) == ("One", "http://[::1]:8080/grow")
            with pytest.raises(Conflict):
                mirrors.add(session, "Two", "http://[::1]:8080/grow", None)
            for label in ("", "a" * 61, "a\x07b"):
                with pytest.raises(Invalid):
                    mirrors.add(session, label, "http://other.example", None)

    def test_a_mirror_is_added_checked_and_removed_by_an_administrator(self, shelf: Path, tmp_path: Path) -> None:
        admin = member("keeper", role="admin")
        copy = tmp_path / "copy"
        shutil.copytree(get_settings().checkpoints_dir, copy / "grow")
        with _web_server(copy) as base:
            form = {"label": "Campus", "base_url": f"{base}/grow/"}
            assert admin.post("/admin/mirrors", form, page="/admin/mirrors").status_code == 303
            assert "never checked" in admin.get("/admin/mirrors").text
            assert admin.post("/admin/mirrors", form, page="/admin/mirrors").status_code == 422
            assert _check(admin) == ""
            newest = copy / "grow" / "garden" / "step-2-chat" / WEIGHTS
            newest.chmod(0o644)
            newest.write_bytes(b"short")
            assert f"has 5 bytes there, and {len(content())} here" in _check(admin)
            newest.unlink()
            assert "answered with the status 404" in _check(admin)
        assert "cannot be reached" in _check(admin)
        assert "Not offered until a check succeeds" in admin.get("/admin/mirrors").text
        assert "Campus" not in Visitor().get("/runs/garden/checkpoints/2/files").text
        mirror_id = _only().id
        assert admin.post(f"/admin/mirrors/{mirror_id}/remove", {}, page="/admin/mirrors").status_code == 303
        assert admin.post(f"/admin/mirrors/{mirror_id}/check", {}, page="/admin/mirrors").status_code == 404
        assert "There is no mirror" in admin.get("/admin/mirrors").text

    def test_others_may_not(self, shelf: Path) -> None:
        someone = member("mei")
        form = {"label": "Mine", "base_url": "https://mine.example"}
        assert someone.post("/admin/mirrors", form).status_code == 403
        assert Visitor().get("/admin/mirrors").status_code == 303
        with db.read_session() as session:
            assert mirrors.list_mirrors(session) == []


def _only() -> mirrors.Mirror:
    with db.read_session() as session:
        (one,) = mirrors.list_mirrors(session)
        return one


def _check(admin: Visitor) -> str:
    assert admin.post(f"/admin/mirrors/{_only().id}/check", {}, page="/admin/mirrors").status_code == 303
    return _only().problem


@contextmanager
def _web_server(folder: Path) -> Iterator[str]:
    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, format: str, *args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder))) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
