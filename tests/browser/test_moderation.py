"""What keepers do in a browser: banning and forgiving people, blocking texts in answers, dismissing reports."""

from collections.abc import Iterator
from contextlib import closing

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.browser.conftest import DESKTOP, Site, log_in, sound
from tests.browser.test_chat import enter, say

pytestmark = pytest.mark.browser

SECRET = "the moon is made of cheese"


@pytest.fixture
def keeper(browser: Browser, site: Site) -> Iterator[Page]:
    """An administrator's browser beside the visitor's."""
    with (
        closing(browser.new_context(base_url=site.address, locale="en-GB", viewport=DESKTOP)) as own,
        sound(own) as page,
    ):
        log_in(page)
        yield page


def test_somebody_is_banned_reads_why_and_is_forgiven(page: Page, keeper: Page, site: Site) -> None:
    rascal = enter(page, site, "rascal")
    page.goto("/chat?checkpoint=garden@10")
    say(page, "Before the ban")
    keeper.goto("/admin/people")
    keeper.get_by_label("Name").fill("rasc")
    keeper.get_by_role("button", name="Search", exact=True).click()
    row = keeper.locator(".people .row").filter(has_text=rascal)
    row.get_by_text("Ban", exact=True).click()
    row.get_by_label("Reason, for the person").fill("asks a thousand things at once")
    row.get_by_role("button", name=f"Ban {rascal}").click()
    expect(keeper.get_by_role("status").filter(has_text="Banned.")).to_be_visible()

    page.get_by_label("Message", exact=True).fill("And after?")
    page.get_by_label("Message", exact=True).press("Enter")
    expect(page.locator(".composer-error")).to_contain_text("asks a thousand things at once")
    page.reload()
    expect(page.locator(".banner")).to_contain_text("asks a thousand things at once")
    expect(page.locator(".turn .answer")).to_have_text("Before the ban")  # reading stays possible

    keeper.locator(".people .row").filter(has_text=rascal).get_by_role("button", name="Lift the ban").click()
    expect(keeper.get_by_role("status").filter(has_text="The ban is lifted.")).to_be_visible()
    page.reload()
    expect(page.locator(".banner")).to_have_count(0)
    page.get_by_label("Message", exact=True).fill("And after?")
    page.get_by_label("Message", exact=True).press("Enter")
    expect(page.locator(".turn .answer").nth(1)).to_have_text("And after?")
    keeper.goto("/admin/audit?actor=keeper")
    for deed in ("Person banned", "Ban lifted"):
        expect(keeper.locator(".trail")).to_contain_text(deed)


def test_an_answer_ends_before_a_blocked_text_until_it_is_allowed_again(page: Page, keeper: Page, site: Site) -> None:
    keeper.goto("/admin/blocklist")
    keeper.get_by_label("Text or regular expression").fill(SECRET)
    keeper.get_by_label("Where").select_option("out")
    keeper.get_by_role("button", name="Block it").click()
    expect(keeper.get_by_role("status")).to_contain_text("Blocked from now on.")
    keeper.get_by_label("Text", exact=True).fill(f"They say {SECRET.upper()}.")
    keeper.get_by_role("button", name="Try it").click()
    expect(keeper.get_by_role("status")).to_contain_text(f"Blocked by: {SECRET}")

    enter(page, site, "stargazer")
    page.goto("/chat?checkpoint=garden@10")
    say(page, f"They say {SECRET} and more")  # what is blocked in answers may be asked
    expect(page.locator(".turn .answer")).to_have_text("They say")
    expect(page.locator(".turn-foot")).to_contain_text("ended before a blocked text")

    keeper.get_by_role("button", name=f"Remove {SECRET}").click()
    expect(keeper.get_by_role("status")).to_contain_text("No longer blocked.")
    page.get_by_role("button", name="Another answer").click()
    expect(page.locator(".turn .answer")).to_have_text(f"They say {SECRET} and more")
    keeper.goto("/admin/audit?action=answer_cut")
    expect(keeper.locator(".trail")).to_contain_text("Answer")


def test_a_dismissed_report_leaves_the_answer_where_it_is(page: Page, keeper: Page, site: Site) -> None:
    grumbler = enter(page, site, "grumbler")
    page.goto("/chat?checkpoint=garden@10")
    say(page, "Nothing wrong with this")
    page.locator(".report summary").click()
    page.get_by_label("What is wrong with it?").select_option("wrong")
    page.get_by_role("button", name="Send the report").click()
    expect(page.get_by_role("status").filter(has_text="An administrator will look at it")).to_be_visible()
    keeper.goto("/admin/reports")
    case = keeper.locator(".case").filter(has_text=f"asked by {grumbler}")
    case.get_by_role("button", name="Dismiss").click()
    expect(keeper.get_by_role("status").filter(has_text="Dismissed.")).to_be_visible()
    expect(keeper.locator(".case").filter(has_text=f"asked by {grumbler}")).to_have_count(0)
    page.reload()
    expect(page.locator(".turn .answer")).to_have_text("Nothing wrong with this")


def test_every_page_to_ask_from_says_what_to_think_of_answers(seeded_page: Page) -> None:
    log_in(seeded_page, "admin", "correct horse battery")  # whom the seed registers
    for address in ("/chat", "/chat/notebook", "/chat/side", "/chat/film", "/arena"):
        seeded_page.goto(address)
        expect(seeded_page.get_by_text("may be wrong, offensive or harmful").first).to_be_visible()
