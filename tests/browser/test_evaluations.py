"""From a milestone asked for by hand to its answers: live, by finger and by keyboard."""

import re
from contextlib import closing

import pytest
from playwright.sync_api import Browser, Page, expect

from registry import db, suites
from tests.browser.conftest import PHONE, Site, log_in

pytestmark = pytest.mark.browser

FULL = "starter_follows_en"
"""A real task that this site asks at milestones only."""


@pytest.fixture(scope="module", autouse=True)
def _full_suite(site: Site) -> None:
    def add() -> None:
        with db.transaction() as session:
            task = suites.get_task(session, FULL)
            task.schedule, task.retired = suites.MILESTONE, False

    site.use(add)


def wait_for_chart(page: Page, task: str = "starter_pairs_en") -> None:
    """Loads the run's page until the chart of a task has a point."""
    chart = page.locator(f"#chart-{task}")
    for _ in range(60):
        page.goto("/runs/garden")
        if chart.locator(".plot").count():
            expect(chart).to_have_attribute("data-drawn", re.compile(r"[1-9]"))
            return
        page.wait_for_timeout(1000)
    pytest.fail(f"No score of {task} appeared.")


def test_the_full_suites_are_asked_for_and_their_answers_can_be_read(page: Page, site: Site) -> None:
    log_in(page)
    page.goto("/runs/garden/checkpoints/10")
    page.get_by_role("button", name="Run the full suites").click()
    expect(page.get_by_role("status").filter(has_text="in line now")).to_be_visible()
    page.evaluate("window.notReloaded = true")
    row = page.locator("#scores tr").filter(has=page.get_by_text("Which lines follow"))
    expect(row.locator("td strong")).to_contain_text("%", timeout=90_000)
    assert page.evaluate("window.notReloaded") is True

    row.locator("th a").click()
    expect(page).to_have_url(re.compile(r"/evaluations/\d+$"))
    expect(page.locator(".items .item").first).to_be_visible()
    page.locator(".segmented a", has_text="wrong").click()
    expect(page.locator(".items .item").first).to_contain_text("wrong")
    expect(page.locator("#protocol")).to_contain_text("scripted")


def test_the_table_of_a_chart_leads_to_the_answers_by_keyboard(page: Page, site: Site) -> None:
    wait_for_chart(page)
    table = page.locator("#chart-starter_pairs_en details")
    table.locator("summary").focus()
    page.keyboard.press("Enter")
    page.keyboard.press("Tab")  # the checkpoint
    page.keyboard.press("Tab")  # its answers
    page.keyboard.press("Enter")
    expect(page).to_have_url(re.compile(r"/evaluations/\d+$"))


def test_a_tap_on_a_chart_shows_the_numbers_and_where_they_lead(browser: Browser, site: Site) -> None:
    with closing(browser.new_context(base_url=site.address, viewport=PHONE, is_mobile=True, has_touch=True)) as made:
        page = made.new_page()
        plot = page.locator("#chart-starter_pairs_en .plot")
        tip = plot.locator(".chart-tip")
        wait_for_chart(page)
        plot.scroll_into_view_if_needed()
        place = plot.bounding_box()
        plot.tap()
        expect(tip).to_contain_text("95% interval")
        # A tooltip that sticks out for a moment makes the phone zoom out: the page moves under the finger.
        assert (page.evaluate("innerWidth"), plot.bounding_box()) == (PHONE["width"], place)
        assert page.url.endswith("/runs/garden")  # the tap itself opens nothing
        page.wait_for_timeout(500)  # a click of the same tap is not one on the links
        expect(tip).to_be_visible()
        tip.get_by_role("link", name="Its answers").first.tap()
        expect(page).to_have_url(re.compile(r"/evaluations/\d+$"))
