"""The notebook in a real browser: going on, probabilities under pointer and keys, undo, another way."""

import re

import pytest
from playwright.sync_api import Page, expect

from tests.browser.conftest import PHONE, Site
from tests.browser.test_chat import enter

pytestmark = pytest.mark.browser


def write(page: Page, text: str) -> None:
    """Let the model go on with the text, which the scripted engine says again."""
    page.get_by_label("Text", exact=True).fill(text)
    page.get_by_role("button", name="Continue", exact=True).click()
    expect(page.get_by_role("button", name="Another way")).to_be_visible()


def test_the_model_goes_on_and_shows_how_likely_each_word_was(page: Page, site: Site) -> None:
    enter(page, site, "notes1")
    page.goto("/chat/notebook")
    write(page, "To be, or not")
    page.wait_for_url(re.compile(r"/chat/notebook/[\w-]{15,}$"))
    tokens = page.locator(".sheet .token")
    expect(page.locator(".sheet .model")).to_have_text("To be, or not")
    tokens.first.hover()
    tip = page.get_by_role("tooltip")
    expect(tip).to_be_visible()
    expect(tip.locator("tr")).to_have_count(2)
    expect(tip.locator("caption")).to_contain_text("%")
    page.mouse.move(2, 2)
    page.locator(".sheet").focus()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    expect(tokens.nth(1)).to_be_focused()
    expect(tokens.nth(1)).to_have_attribute("aria-describedby", "token-tip")


def test_undo_edit_and_other_ways(page: Page, site: Site) -> None:
    enter(page, site, "notes2")
    page.goto("/chat/notebook")
    write(page, "One.")
    page.get_by_role("button", name="Another way").click()
    expect(page.locator(".siblings")).to_contain_text("2/2")
    expect(page.get_by_role("button", name="Another way")).to_be_visible()
    page.get_by_role("button", name="The version before").click()
    expect(page.locator(".siblings")).to_contain_text("1/2")
    page.get_by_role("button", name="Edit the text").click()
    box = page.get_by_label("Text", exact=True)
    expect(box).to_be_focused()
    expect(box).to_have_value("One.One.")
    box.fill("One.One. Two.")
    box.press("Control+Enter")
    expect(page.locator(".sheet .own").nth(1)).to_have_text(" Two.")
    expect(page.get_by_role("button", name="Another way")).to_be_visible()
    page.get_by_role("button", name="Undo").click()
    expect(box).to_have_value("One.One. Two.")


def test_it_fits_a_phone(page: Page, site: Site) -> None:
    page.set_viewport_size(PHONE)
    enter(page, site, "notes3")
    page.goto("/chat/notebook")
    write(page, "\u202e" + "w" * 300 + "<img src=x onerror=alert(1)>")
    assert page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]
    page.locator(".sheet .token").first.click()
    expect(page.get_by_role("tooltip")).to_be_visible()
