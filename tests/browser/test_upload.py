"""Uploading a checkpoint in a real browser: folders, zips, pauses, reloads, dead servers, bad lines."""

import contextlib
import os
import subprocess
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, Request, Response, Route, expect
from sqlalchemy import select

from registry import checkpoints, db, runs, uploads
from registry.models import Upload
from registry.settings import get_settings
from tests.browser.conftest import DESKTOP, PHONE, Site, _answers, _end, _environment, _start, log_in, sound, wait_for
from tests.browser.tiny import write_folder, write_zip
from tests.conftest import free_port

pytestmark = pytest.mark.browser
MIB = 2**20
CHUNK = 32 * MIB
"""As static/js/upload/sender.js has it."""
SLOW = 16 * MIB
"""Bytes a second: a chunk takes two seconds."""


@pytest.fixture
def keeper(page: Page) -> Page:
    """An administrator's browser."""
    log_in(page)
    return page


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A checkpoint of a few hundred kilobytes."""
    return write_folder(tmp_path / "small", seed=3)


@pytest.fixture
def big(tmp_path: Path) -> Path:
    """A checkpoint with fifty-six megabytes, of which weights are the least."""
    made = write_folder(tmp_path / "big", seed=4)
    (made / "notes.md").write_bytes(os.urandom(56 * MIB))
    return made


@pytest.fixture
def run() -> str:
    """A name that no earlier test took, nor an earlier try of this one."""
    return f"sent-{uuid.uuid4().hex[:8]}"


def fill(page: Page, run: str, step: int) -> None:
    """The form, before the files are chosen."""
    page.goto("/admin/upload")
    page.get_by_label("Name of a new run").fill(run)
    page.get_by_label("Step", exact=True).fill(str(step))


def choose(page: Page, chosen: Path) -> None:
    """Through the picker: a folder as a folder."""
    page.locator("#folder" if chosen.is_dir() else "#files").set_input_files(chosen)
    expect(page.locator("#chosen")).to_contain_text("Chosen")


def send(page: Page) -> None:
    """The button, whatever it is called now."""
    page.locator("#upload-send").click()


def throttle(page: Page, bytes_per_second: int) -> None:
    """Give the browser a slow line; -1 gives it its own back."""
    session = page.context.new_cdp_session(page)
    rates = {"downloadThroughput": -1, "uploadThroughput": bytes_per_second, "latency": 0}
    session.send("Network.emulateNetworkConditions", {"offline": False, **rates})


def row(site: Site, run: str) -> Upload | None:
    """What the server knows of the upload."""

    def read() -> Upload | None:
        with db.read_session() as session:
            return session.scalars(select(Upload).where(Upload.run == run).order_by(Upload.id.desc())).first()

    found: Upload | None = site.use(read)
    return found


def is_under_way(site: Site, run: str) -> Callable[[], bool]:
    """Whether a chunk has arrived and others have not."""

    def ask() -> bool:
        upload = row(site, run)
        return upload is not None and CHUNK <= upload.received < upload.size_bytes

    return ask


def is_here(site: Site, run: str, step: int, folder: Path) -> None:
    """Holds the checkpoint against what was sent, byte for byte."""

    def compare() -> None:
        with db.read_session() as session:
            checkpoint = checkpoints.get_checkpoint(session, runs.get_run(session, run), step)
            sealed = checkpoints.path(checkpoint)
        for file in folder.iterdir():
            assert (sealed / file.name).read_bytes() == file.read_bytes()

    site.use(compare)


def test_a_folder_is_dropped_sent_and_verified(keeper: Page, site: Site, folder: Path, run: str) -> None:
    fill(keeper, run, 1)
    box = keeper.locator("#drop").bounding_box()
    assert box
    data = {"items": [], "files": [str(folder)], "dragOperationsMask": 1}
    session = keeper.context.new_cdp_session(keeper)
    for kind in ("dragEnter", "dragOver", "drop"):
        place = {"x": box["x"] + 20, "y": box["y"] + 20}
        session.send("Input.dispatchDragEvent", {"type": kind, **place, "data": data})
    expect(keeper.locator("#chosen")).to_contain_text("Chosen: 4 (")
    checksums: list[str | None] = []

    def note(request: Request) -> None:
        if request.method == "PATCH":
            checksums.append(request.headers.get("upload-checksum"))

    keeper.on("request", note)
    send(keeper)
    expect(keeper.get_by_role("heading", name=f"{run}@1")).to_be_visible()
    expect(keeper.locator("#uploaded")).to_have_attribute("data-state", "ready", timeout=60_000)
    is_here(site, run, 1, folder)
    assert len(checksums) == 4
    assert all(one and one.startswith("sha256 ") for one in checksums)


def test_what_can_be_refused_is_refused_before_a_byte_is_sent(keeper: Page, folder: Path, run: str) -> None:
    sent: list[str] = []
    keeper.on("request", lambda request: sent.append(request.method) if request.method == "PATCH" else None)
    fill(keeper, "garden", 10)
    choose(keeper, folder)
    send(keeper)
    expect(keeper.get_by_role("alert")).to_contain_text("has a checkpoint at step 10 already")
    (folder / "pytorch_model.bin").write_bytes(b"x")
    fill(keeper, run, 1)
    choose(keeper, folder)
    send(keeper)
    expect(keeper.get_by_role("alert")).to_contain_text("can run code")
    assert sent == []


def test_a_bad_zip_is_refused_with_the_reason_and_the_form_can_be_sent_again(
    keeper: Page, site: Site, folder: Path, tmp_path: Path, run: str
) -> None:
    whole = write_zip(tmp_path / "whole.zip", folder)
    broken = tmp_path / "broken.zip"
    broken.write_bytes(whole.read_bytes()[:-200])
    fill(keeper, run, 1)
    choose(keeper, broken)
    send(keeper)
    expect(keeper.get_by_role("alert")).to_contain_text("damaged")
    choose(keeper, whole)
    send(keeper)
    expect(keeper.get_by_role("heading", name=f"{run}@1")).to_be_visible()
    is_here(site, run, 1, folder)


def test_progress_pause_reload_and_continue(keeper: Page, site: Site, big: Path, run: str) -> None:
    fill(keeper, run, 1)
    choose(keeper, big)
    throttle(keeper, SLOW)
    send(keeper)
    expect(keeper.locator("#upload-said")).to_contain_text(" left", timeout=30_000)
    expect(keeper.locator("#upload-said")).to_contain_text("MB/s")
    wait_for(is_under_way(site, run), 30, "the first chunk", site.home)
    keeper.get_by_role("button", name="Pause").click()
    expect(keeper.locator("#upload-state")).to_have_text("Paused")
    expect(keeper.get_by_role("button", name="Resume")).to_be_focused()
    keeper.get_by_role("button", name="Resume").click()
    expect(keeper.locator("#upload-state")).to_have_text("Sending")

    keeper.reload()
    expect(keeper.get_by_role("heading", name="Continue the upload")).to_be_visible()
    keeper.goto("/admin/uploads")
    keeper.get_by_role("link", name=f"Continue the upload {run}@1").click()
    (big / "config.json").rename(big / "other.json")
    choose(keeper, big)
    send(keeper)
    expect(keeper.get_by_role("alert")).to_contain_text("config.json")
    (big / "other.json").rename(big / "config.json")
    sent: list[int] = []

    def note(request: Request) -> None:
        if request.method == "PATCH":
            sent.append(int(request.headers["upload-offset"]))

    keeper.on("request", note)
    choose(keeper, big.rename(big.with_name("renamed")))
    throttle(keeper, -1)
    send(keeper)
    expect(keeper.get_by_role("heading", name=f"{run}@1")).to_be_visible(timeout=60_000)
    is_here(site, run, 1, big.with_name("renamed"))
    assert max(sent) == CHUNK  # what had arrived was not sent again


@dataclass
class OwnServer:
    """A web server of this test's own before the site's data, which can be killed."""

    site: Site
    port: int
    child: "subprocess.Popen[bytes] | None" = None

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        environment = _environment(self.site.home, self.port, self.site.valkey.connection_url)
        self.child = _start(self.site.home / "own-server.log", environment, "server")
        wait_for(lambda: _answers(self.address), 60, "the web server", self.site.home)

    def kill(self) -> None:
        assert self.child is not None
        self.child.kill()
        self.child.wait()


@pytest.fixture
def own_server(site: Site) -> Iterator[OwnServer]:
    server = OwnServer(site, free_port())
    server.start()
    yield server
    if server.child is not None:
        _end(server.child)


def test_it_goes_on_by_itself_after_the_server_was_killed(
    browser: Browser, site: Site, own_server: OwnServer, big: Path, run: str
) -> None:
    with (
        contextlib.closing(browser.new_context(base_url=own_server.address, locale="en-GB", viewport=DESKTOP)) as made,
        sound(made) as page,
    ):
        log_in(page)
        fill(page, run, 1)
        choose(page, big)
        throttle(page, SLOW)
        send(page)
        wait_for(is_under_way(site, run), 30, "the first chunk", site.home)
        own_server.kill()
        expect(page.locator("#upload-state")).to_contain_text("goes on by itself", timeout=30_000)
        own_server.start()
        expect(page.get_by_role("heading", name=f"{run}@1")).to_be_visible(timeout=90_000)
    is_here(site, run, 1, big)


def test_a_chunk_that_was_damaged_on_its_way_is_sent_again(keeper: Page, site: Site, folder: Path, run: str) -> None:
    statuses: list[int] = []

    def note(response: Response) -> None:
        if response.request.method == "PATCH":
            statuses.append(response.status)

    def damage(route: Route) -> None:
        body = route.request.post_data_buffer or b""
        if route.request.method == "PATCH" and not statuses:
            route.continue_(post_data=bytes([body[0] ^ 1]) + body[1:])
        else:
            route.continue_()

    keeper.on("response", note)
    fill(keeper, run, 1)
    choose(keeper, folder)
    keeper.route("**/api/uploads/files/*", damage)
    send(keeper)
    expect(keeper.get_by_role("heading", name=f"{run}@1")).to_be_visible(timeout=60_000)
    assert statuses[0] == 460
    is_here(site, run, 1, folder)


def test_a_file_that_changed_after_it_was_chosen_is_chosen_again(
    keeper: Page, site: Site, folder: Path, run: str
) -> None:
    fill(keeper, run, 1)
    choose(keeper, folder)
    (folder / "config.json").write_text((folder / "config.json").read_text() + " ")
    send(keeper)
    expect(keeper.get_by_role("alert")).to_contain_text("changed or moved")
    (folder / "config.json").write_text((folder / "config.json").read_text().rstrip())
    again = folder.rename(folder.with_name("again"))
    choose(keeper, again)
    send(keeper)
    expect(keeper.get_by_role("heading", name=f"{run}@1")).to_be_visible(timeout=60_000)
    is_here(site, run, 1, again)


def test_cancelling_leaves_nothing(keeper: Page, site: Site, big: Path, run: str) -> None:
    fill(keeper, run, 1)
    choose(keeper, big)
    throttle(keeper, SLOW)
    send(keeper)
    wait_for(is_under_way(site, run), 30, "the first chunk", site.home)
    upload = row(site, run)
    assert upload is not None
    keeper.on("dialog", lambda dialog: dialog.accept())
    keeper.get_by_role("button", name="Cancel").click()
    keeper.wait_for_url("**/admin/upload")
    assert not site.use(lambda: (get_settings().uploads_dir / upload.folder).exists())

    def rows() -> int:
        with db.read_session() as session:
            return len([one for one in uploads.list_open(session) if one.run == run])

    assert site.use(rows) == 0


def test_the_pages_fit_a_phone_and_speak_chinese(browser: Browser, site: Site) -> None:
    with (
        contextlib.closing(browser.new_context(base_url=site.address, locale="zh-CN", viewport=PHONE)) as made,
        sound(made) as page,
    ):
        page.goto("/login")
        page.locator("input[name=name]").fill("keeper")
        page.locator("input[name=password]").fill("keeper of the garden")
        page.locator("main button[type=submit]").click()
        page.wait_for_url("/")
        for address in ("/admin/upload", "/admin/uploads"):
            page.goto(address)
            assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
            expect(page.locator("h1")).to_contain_text("上传")
