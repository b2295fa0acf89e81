"""The broker goes away in the middle: nothing is lost, the visitor is told, and work goes on by itself."""

import re

import pytest
from playwright.sync_api import Page, expect

from server import pulse
from tests.browser.conftest import Site, log_in

pytestmark = pytest.mark.browser

SOON_MS = 20_000
"""The pages look at the broker every five seconds, the stream at the rows every two."""


def test_a_message_sent_without_a_broker_is_answered_when_it_is_back(page: Page, site: Site) -> None:
    log_in(page)
    page.goto("/chat?checkpoint=garden@10")
    box = page.get_by_label("Message")
    box.fill("Is anybody there?")
    site.valkey.stop()
    try:
        box.press("Enter")
        page.wait_for_url(re.compile(r"/chat/[\w-]{15,}$"))
        expect(page.locator(".place")).to_contain_text("Waiting for the service", timeout=SOON_MS)
        page.wait_for_timeout(pulse.FRESH_SECONDS * 1_000)  # the site asks the broker no more often
        page.reload()
        expect(page.locator(".place")).to_contain_text("Waiting for the service", timeout=SOON_MS)
        expect(page.locator(".banner")).to_contain_text("Nothing is lost")
    finally:
        site.valkey.start()
    expect(page.locator(".turn .answer")).to_have_text("Is anybody there?", timeout=90_000)
    expect(page.get_by_role("button", name="Good answer")).to_be_visible()
