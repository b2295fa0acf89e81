"""Every page in both languages and at both widths: nothing sticks out, nothing fails.

With GROW_SCREENSHOTS set to a folder, a picture of each is left there.
"""

import os
import re
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from registry import db, news
from tests.browser.conftest import DESKTOP, PHONE, Site, log_in, wait_for

pytestmark = pytest.mark.browser

PUBLIC = (
    "/",
    "/runs",
    "/runs/garden",
    "/runs/garden/timelapse",
    "/runs/garden/checkpoints/10",
    "/evaluations/1",
    "/models",
    "/news",
    "/chat",
    "/arena",
    "/nothing-here",
)
DOORS = ("/login", "/register")
INSIDE = ("/chat", "/account", "/admin", "/admin/upload", "/admin/news", "/admin/prompts", "/admin/votes")


@pytest.fixture(scope="module")
def _grown(site: Site) -> None:
    """The site with scores of one checkpoint and a post."""

    def is_scored() -> bool:
        with db.read_session() as session:
            return session.connection().exec_driver_sql("SELECT count(*) FROM results").scalar_one() > 0

    site.use(lambda: wait_for(is_scored, 60, "scores", site.home))

    def publish() -> None:
        with db.transaction() as session:
            news.publish_post(session, title="The garden is open", body="**First** checkpoint: [see it](/runs/garden).")

    site.use(publish)


@pytest.fixture(params=[("en", "desktop"), ("zh", "desktop"), ("en", "phone"), ("zh", "phone")], ids="-".join)
def view(request: pytest.FixtureRequest, browser: Browser, site: Site, _grown: None) -> Iterator[tuple[Page, str]]:
    """A page of that language and width, and the name of both."""
    language, width = request.param
    locale = {"en": "en-GB", "zh": "zh-CN"}[language]
    size = PHONE if width == "phone" else DESKTOP
    made = browser.new_context(base_url=site.address, locale=locale, viewport=size, is_mobile=width == "phone")
    with closing(made):
        page = made.new_page()
        page.set_default_timeout(30_000)
        yield page, f"{width}-{language}"


def look_at(page: Page, address: str, name: str) -> None:
    """Opens a page, checks its width, and keeps a picture where one is wanted."""
    page.goto(address)
    page.wait_for_timeout(300)  # charts draw themselves
    wide = page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
    folder = os.environ.get("GROW_SCREENSHOTS")
    if folder:
        Path(folder).mkdir(parents=True, exist_ok=True)
        page.screenshot(path=Path(folder) / f"{name}.png", full_page=True)
    assert wide <= 0, f"{address} is {wide} pixels too wide for {name}"


def name_of(address: str) -> str:
    return re.sub(r"\W+", "-", address).strip("-") or "home"


def test_no_page_is_wider_than_its_screen(view: tuple[Page, str]) -> None:
    page, kind = view
    for address in (*PUBLIC, *DOORS):
        look_at(page, address, f"{kind}-public-{name_of(address)}")
    assert page.locator("html").get_attribute("lang") == {"zh": "zh-CN", "en": "en"}[kind.split("-")[1]]


def test_no_page_behind_the_login_either(view: tuple[Page, str]) -> None:
    page, kind = view
    page.goto("/login")
    page.locator("#field-name").fill("keeper")
    page.locator("#field-password").fill("keeper of the garden")
    page.locator("main button[type=submit]").click()
    page.wait_for_url("/")
    for address in INSIDE:
        look_at(page, address, f"{kind}-inside-{name_of(address)}")
    page.goto("/chat?checkpoint=garden@10")
    page.locator("#prompt").fill("To be, or not to be, that is the question:\nWhether 'tis nobler\n" + "w" * 200)
    page.locator("#prompt").press("Enter")
    page.wait_for_url(re.compile(r"/chat/[\w-]{15,}$"))
    expect(page.locator("[data-copy]")).to_be_visible()
    look_at(page, page.url, f"{kind}-inside-conversation")


@pytest.mark.parametrize("width", [390, 320])
def test_the_whole_menu_is_on_a_phones_screen(page: Page, width: int) -> None:
    page.set_viewport_size({"width": width, "height": 844})
    log_in(page)
    edges = page.locator("header nav a").evaluate_all("links => links.map((one) => one.getBoundingClientRect().right)")
    assert len(edges) == 7
    assert max(edges) <= width
    page.locator("header nav").get_by_role("link", name="Admin").click()
    page.wait_for_url("/admin")


def test_news_are_previewed_as_harmless_markup(page: Page, site: Site) -> None:
    log_in(page)
    page.goto("/admin/news")
    page.get_by_label("Title").fill("A preview")
    page.get_by_label("Text, in Markdown").fill("**bold** <script>alert(1)</script>")
    page.get_by_role("button", name="Preview").click()
    expect(page.locator("#preview strong")).to_have_text("bold")
    expect(page.locator("#preview script")).to_have_count(0)
