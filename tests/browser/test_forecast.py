"""The forecast page in a real browser: charts, axis, filter, tables, and a phone."""

import re
from contextlib import closing

import pytest
from playwright.sync_api import Browser, Page, expect

from registry import db
from tests.browser.conftest import PHONE, Site, sound
from tests.server.foretold import replay

pytestmark = pytest.mark.browser


def make_foretold() -> None:
    with db.transaction() as session:
        replay(session)


@pytest.fixture(scope="module", autouse=True)
def foretold(seeded_site: Site) -> None:
    """Forecasts as the worker would have written them down."""
    seeded_site.use(make_foretold)


def test_charts_are_drawn_when_they_come_near(seeded_page: Page) -> None:
    seeded_page.goto("/runs/demo/forecast")
    expect(seeded_page.locator("#forecast-heldout-loss_zh")).to_have_attribute("data-drawn", "37")
    last = seeded_page.locator("#forecast-basic_skills")
    expect(last).not_to_have_attribute("data-drawn", "9")
    last.scroll_into_view_if_needed()
    expect(last).to_have_attribute("data-drawn", "9")
    expect(last.locator("canvas")).to_be_visible()


def test_the_axis_and_the_filter_stay_in_the_address(seeded_page: Page) -> None:
    seeded_page.goto("/runs/demo/forecast")
    seeded_page.get_by_role("link", name="Code", exact=True).click()
    expect(seeded_page.locator("[data-forecast]")).to_have_count(3)
    seeded_page.get_by_role("link", name="linear").click()
    expect(seeded_page.locator("[data-forecast]")).to_have_count(3)
    assert "scale=linear" in seeded_page.url
    assert "show=code" in seeded_page.url
    expect(seeded_page.get_by_role("link", name="linear")).to_have_attribute("aria-current", "true")
    expect(seeded_page.locator("#forecast-code_bits")).to_have_attribute("data-drawn", "10")


def test_the_pointer_tells_what_was_measured_and_what_is_expected(seeded_page: Page) -> None:
    seeded_page.goto("/runs/demo/forecast?show=losses")
    plot = seeded_page.locator("#forecast-heldout-loss_zh .plot")
    expect(seeded_page.locator("#forecast-heldout-loss_zh")).to_have_attribute("data-drawn", "37")
    box = plot.bounding_box()
    assert box is not None
    tip = seeded_page.locator(".chart-tip")
    found = set()
    for share in range(30, 100):
        for height in (0.72, 0.76, 0.8, 0.84):
            seeded_page.mouse.move(box["x"] + box["width"] * share / 100, box["y"] + box["height"] * height)
            text = " ".join(tip.all_text_contents())
            found |= {word for word in ("measured", "90% band") if word in text}
        if len(found) == 2:
            break
    assert found == {"measured", "90% band"}


def test_the_table_opens_with_the_keyboard(seeded_page: Page) -> None:
    seeded_page.goto("/runs/demo/forecast?show=chinese")
    table = seeded_page.locator("#forecast-zh_bits .chart-table")
    table.locator("summary").focus()
    seeded_page.keyboard.press("Enter")
    expect(table.locator("tbody tr").last).to_contain_text("24.6M tokens")
    expect(table.locator(".marks li").first).to_contain_text("foretold at")


def test_the_record_shows_coverage_and_misses(seeded_page: Page) -> None:
    seeded_page.goto("/runs/demo/forecast")
    record = seeded_page.locator("#record")
    expect(record).to_contain_text("forecasts that came due")
    expect(record.get_by_role("rowheader", name="the next checkpoint")).to_be_visible()
    record.locator(".misses tbody a").first.click()
    seeded_page.wait_for_url("**/checkpoints/*")


def test_charts_follow_the_theme(seeded_page: Page) -> None:
    seeded_page.goto("/runs/demo/forecast?show=losses")
    figure = seeded_page.locator("#forecast-heldout-loss_zh")
    expect(figure).to_have_attribute("data-drawn", "37")
    before = figure.locator("canvas").first.evaluate("canvas => canvas.toDataURL()")
    seeded_page.locator("#theme-button").click()
    seeded_page.wait_for_timeout(300)
    assert figure.locator("canvas").first.evaluate("canvas => canvas.toDataURL()") != before


def test_a_phone_shows_it_without_scrolling_sideways(browser: Browser, seeded_site: Site) -> None:
    with (
        closing(browser.new_context(base_url=seeded_site.address, locale="zh-CN", viewport=PHONE)) as made,
        sound(made) as page,
    ):
        for address in ("/runs/demo/forecast", "/runs/demo/tasks"):
            page.goto(address)
            assert page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]


class TestTasks:
    def test_a_click_on_a_column_sorts_and_a_second_turns_it_round(self, seeded_page: Page) -> None:
        seeded_page.goto("/runs/demo/tasks")
        rows = seeded_page.locator(".quality tbody tr")
        expect(rows).to_have_count(12)
        seeded_page.get_by_role("link", name="Growth ÷ noise").click()
        expect(rows.first).to_contain_text("Bits per byte, Chinese statutes")
        expect(seeded_page.get_by_role("columnheader", name="Growth ÷ noise")).to_have_attribute(
            "aria-sort", "descending"
        )
        seeded_page.get_by_role("link", name="Growth ÷ noise").click()
        expect(rows.first).to_contain_text("Basic skills, coding")

    def test_filters_by_ability_and_suite(self, seeded_page: Page) -> None:
        seeded_page.goto("/runs/demo/tasks?sort=verdict")
        seeded_page.get_by_role("navigation", name="Ability").get_by_role("link", name="Code").click()
        expect(seeded_page.locator(".quality tbody tr")).to_have_count(3)
        assert "sort=verdict" in seeded_page.url

    def test_the_rules_unfold(self, seeded_page: Page) -> None:
        seeded_page.goto("/runs/demo/tasks")
        seeded_page.get_by_text("How the word is chosen").click()
        expect(seeded_page.get_by_text("rank correlation below 0.5 (FineTasks)")).to_be_visible()

    def test_a_task_leads_to_its_ledger_and_to_its_curve(self, seeded_page: Page) -> None:
        seeded_page.goto("/runs/demo/tasks")
        seeded_page.get_by_role("link", name="Growth curve of Swapped words, Chinese").click()
        expect(seeded_page).to_have_url(re.compile(r"/runs/demo\?tasks=zh_pairs"))
        seeded_page.go_back()
        seeded_page.get_by_role("link", name="Swapped words, Chinese", exact=True).click()
        expect(seeded_page).to_have_url(re.compile(r"/runs/demo/tasks/zh_pairs$"))
        expect(seeded_page.locator("h2").first).to_contain_text("Swapped words, Chinese")
