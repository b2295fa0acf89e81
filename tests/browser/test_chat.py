"""Registering, asking and reading the answer, in a real browser."""

import re

import pytest
from playwright.sync_api import Page, expect

from tests.browser.conftest import Site

pytestmark = [pytest.mark.browser, pytest.mark.xdist_group("browser")]

QUESTION = "To be, or not to be, that is"


def register(page: Page, name: str) -> None:
    """Through the form, which leads to the chat."""
    page.goto("/register")
    page.get_by_label("Name").fill(name)
    page.get_by_label("Password").fill("a long enough word")
    page.locator("main button[type=submit]").click()
    page.wait_for_url("/chat")


def test_a_visitor_registers_asks_and_finds_the_answer_again(page: Page, site: Site) -> None:
    register(page, "李白")
    box = page.get_by_label("Message")
    box.press_sequentially("To be,")
    box.press("Shift+Enter")
    expect(box).to_have_value("To be,\n")
    box.fill(QUESTION)
    box.press("Enter")
    page.wait_for_url(re.compile(r"/chat/[\w-]{15,}$"))
    answer = page.locator(".turn .answer")
    # The scripted engine says the prompt again.
    expect(answer).to_have_text(QUESTION)
    expect(page.get_by_role("button", name="Good answer")).to_be_visible()

    page.reload()
    expect(answer).to_have_text(QUESTION)

    page.get_by_role("button", name="Good answer").click()
    expect(page.get_by_role("button", name="Good answer")).to_have_attribute("aria-pressed", "true")

    box.fill("第一条　为了")
    box.press("Enter")
    expect(page.locator(".turn .answer").nth(1)).to_have_text("第一条　为了")
    expect(box).to_have_value("")


def test_enter_inside_an_input_method_does_not_send(page: Page, site: Site) -> None:
    register(page, "dufu")
    box = page.get_by_label("Message")
    box.fill("ni")
    box.evaluate(
        "box => box.dispatchEvent(new KeyboardEvent('keydown',"
        " {key: 'Enter', isComposing: true, bubbles: true, cancelable: true}))"
    )
    page.wait_for_timeout(300)
    expect(page).to_have_url(f"{site.address}/chat")
    expect(box).to_have_value("ni")


def test_a_refused_message_keeps_its_text(page: Page, site: Site) -> None:
    register(page, "wangwei")
    box = page.get_by_label("Message")
    box.fill("x" * 9000)
    box.press("Enter")
    expect(page.get_by_role("alert")).to_contain_text("9,000 characters; at most 8,000")
    expect(box).to_have_value("x" * 9000)
    box.fill("   ")
    box.press("Enter")
    expect(page.get_by_role("alert")).to_contain_text("empty")


def test_clearing_begins_anew(page: Page, site: Site) -> None:
    register(page, "sushi")
    page.get_by_label("Message").fill(QUESTION)
    page.get_by_role("button", name="Send").click()
    expect(page.locator(".turn .answer")).to_have_text(QUESTION)
    page.on("dialog", lambda dialog: dialog.accept())
    page.get_by_role("button", name="Clear").click()
    page.wait_for_url(re.compile(r"/chat\?checkpoint="))
    expect(page.locator(".turn")).to_have_count(0)
