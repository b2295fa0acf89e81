"""From a report to its decision, and what everybody sees afterwards, in a real browser."""

import re
from contextlib import closing

import pytest
from playwright.sync_api import Browser, Page, expect

from registry import accounts, db
from tests.browser.conftest import PHONE, Site, log_in, sound

pytestmark = pytest.mark.browser

QUESTION = "To be, or not to be, that is"


def register(page: Page, name: str) -> None:
    """Through the form, which leads to the chat."""
    page.goto("/register")
    page.get_by_label("Name").fill(name)
    page.get_by_label("Password").fill("a long enough word")
    page.locator("main button[type=submit]").click()
    page.wait_for_url("/chat")


def ask(page: Page, question: str = QUESTION) -> None:
    """The scripted engine says the question again."""
    page.goto("/chat")
    page.get_by_label("Message", exact=True).fill(question)
    page.get_by_label("Message", exact=True).press("Enter")
    page.wait_for_url(re.compile(r"/chat/[\w-]{15,}$"))
    expect(page.locator(".turn .answer")).to_have_text(question)


def report(page: Page) -> None:
    """With the keyboard: the menu, a reason, a note, and off."""
    menu = page.locator(".report summary")
    menu.focus()
    page.keyboard.press("Enter")
    page.get_by_label("What is wrong with it?").select_option("harmful")
    page.get_by_label("Anything to add?").fill("This should go.")
    page.get_by_role("button", name="Send the report").click()
    expect(page.get_by_role("status").filter(has_text="An administrator will look at it")).to_be_visible()


def test_a_reported_answer_is_removed_and_its_author_banned(page: Page, browser: Browser, site: Site) -> None:
    register(page, "wang")
    ask(page)
    chat = page.url
    report(page)

    with (
        closing(browser.new_context(base_url=site.address, locale="en-GB", viewport=PHONE)) as own,
        sound(own) as keeper,
    ):
        log_in(keeper)
        keeper.goto("/admin/reports")
        case = keeper.locator(".case").filter(has_text="asked by wang")
        expect(case).to_contain_text("This should go.")
        case.get_by_label("Ban wang, who asked").check()
        case.get_by_label("Reason of the ban, for the person").fill("asks for harm")
        case.get_by_role("button", name="Uphold").click()
        expect(keeper.get_by_role("status").filter(has_text="Upheld")).to_be_visible()
        keeper.goto("/admin/audit")
        expect(keeper.locator(".trail")).to_contain_text("Answer removed")

    page.goto(chat)
    expect(page.locator(".turn .answer")).to_have_text("An administrator has removed this answer.")
    expect(page.locator(".banner").filter(has_text="asks for harm")).to_be_visible()
    page.get_by_label("Message", exact=True).fill("Once more")
    page.get_by_label("Message", exact=True).press("Enter")
    expect(page.locator(".composer-error")).to_contain_text("asks for harm")


def test_a_report_without_a_reason_stays_open(page: Page, site: Site) -> None:
    register(page, "zhao")
    ask(page)
    page.locator(".report summary").click()
    page.locator(".report form").evaluate("form => { form.noValidate = true; }")
    page.get_by_role("button", name="Send the report").click()
    expect(page.locator(".report [role=alert]")).to_have_text("Choose one of the reasons.")


def test_a_blocked_question_is_refused_and_its_text_stays(page: Page, browser: Browser, site: Site) -> None:
    with (
        closing(browser.new_context(base_url=site.address, locale="en-GB")) as own,
        sound(own) as keeper,
    ):
        log_in(keeper)
        keeper.goto("/admin/blocklist")
        keeper.get_by_label("Text or regular expression").fill("an unspeakable word")
        keeper.get_by_role("button", name="Block it").click()
        expect(keeper.locator(".rows")).to_contain_text("an unspeakable word")

    register(page, "qian")
    page.get_by_label("Message", exact=True).fill("Say An Unspeakable Word")
    page.get_by_label("Message", exact=True).press("Enter")
    expect(page.locator(".composer-error")).to_contain_text("rules do not allow")
    expect(page.get_by_label("Message", exact=True)).to_have_value("Say An Unspeakable Word")


def test_somebody_takes_everything_along_and_leaves(page: Page, site: Site) -> None:
    register(page, "sun")
    ask(page)
    page.goto("/account")
    with page.expect_download() as started:
        page.get_by_role("link", name="Download everything").click()
    assert QUESTION in started.value.path().read_text()
    page.get_by_text("Delete sun and everything").click()
    page.get_by_label("Your password").fill("a long enough word")
    page.get_by_role("button", name="Delete the account for good").click()
    expect(page.get_by_role("heading", name="Your account is deleted")).to_be_visible()
    expect(page.get_by_role("link", name="Log in", exact=True)).to_be_visible()
    assert not site.use(lambda: _exists("sun"))


def _exists(name: str) -> bool:
    with db.read_session() as session:
        return bool(accounts.find_users(session, name)[1])
