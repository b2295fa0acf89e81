"""Comparing in a real browser: choosing, swapping, the forest plot and its table, unfolding what flipped, a phone."""

import datetime as dt
import re
from collections.abc import Iterator
from contextlib import closing

import pytest
from playwright.sync_api import Browser, Page, expect

from registry import db, runs
from registry.models.base import utcnow
from tests.browser.conftest import PHONE, Site, sound
from tests.factories import make_checkpoint, make_run

pytestmark = pytest.mark.browser

TWO = "/compare?a=demo@250&b=demo@1000"


@pytest.fixture(scope="module", autouse=True)
def _second_run(seeded_site: Site) -> None:
    """A run whose checkpoints are nearly as old as some of the first."""

    def add() -> None:
        with db.transaction() as session:
            if any(run.name == "second" for run in runs.list_runs(session)):
                return
            run = make_run(session, "second")
            for step, tokens in ((10, 1_000_000), (20, 2_050_000), (30, 4_200_000)):
                make_checkpoint(session, run, step, tokens_seen=tokens)
            # The site's front page is about the run that was heard from last.
            run.heartbeat_at = utcnow() - dt.timedelta(days=9)

    seeded_site.use(add)


@pytest.fixture
def phone(browser: Browser, seeded_site: Site) -> Iterator[Page]:
    """A small screen whose owner reads Chinese."""
    made = browser.new_context(base_url=seeded_site.address, locale="zh-CN", viewport=PHONE, is_mobile=True)
    with closing(made), sound(made) as opened:
        yield opened


def test_two_checkpoints_are_chosen_and_swapped(seeded_page: Page) -> None:
    seeded_page.goto("/compare")
    seeded_page.get_by_label("Checkpoint or run A").select_option("demo@250")
    expect(seeded_page).to_have_url(re.compile("a=demo%40250|a=demo@250"))
    expect(seeded_page.get_by_text("Choose two checkpoints")).to_be_visible()
    seeded_page.get_by_label("Checkpoint or run B").select_option("demo@1000")
    expect(seeded_page.locator("#outcome")).to_contain_text("8 better at B")
    seeded_page.get_by_role("link", name="Swap A and B").click()
    expect(seeded_page.locator("#outcome")).to_contain_text("8 better at A")
    expect(seeded_page.get_by_label("Checkpoint or run A")).to_have_value("demo@1000")
    seeded_page.go_back()
    expect(seeded_page.locator("#outcome")).to_contain_text("8 better at B")


def test_the_forest_plot_is_drawn_and_leads_to_its_table(seeded_page: Page) -> None:
    seeded_page.goto(TWO)
    forest = seeded_page.locator("#forest-up-share")
    expect(forest).to_have_attribute("data-drawn", "5")
    plot = forest.locator(".forest-plot")
    expect(plot.locator("canvas")).to_be_visible()
    expect(seeded_page.locator(".compared tr[id^=task-]")).to_have_count(8)
    plot.scroll_into_view_if_needed()
    # The mark of the last task lies in the last row, at its share of the axis.
    place = plot.evaluate(
        """plot => {
          const view = echarts.getInstanceByDom(plot), series = view.getOption().series[0];
          return view.convertToPixel({ seriesIndex: 0 }, series.data.at(-1).value);
        }"""
    )
    plot.hover(position={"x": place[0], "y": place[1]})
    expect(plot.locator(".chart-tip")).to_contain_text("+17.5 points")
    plot.click(position={"x": place[0], "y": place[1]})
    expect(seeded_page).to_have_url(re.compile("#task-code_next_line$"))
    expect(seeded_page.locator("#task-code_next_line")).to_be_focused()


def test_it_is_drawn_again_in_the_other_theme(seeded_page: Page) -> None:
    seeded_page.goto(TWO)
    expect(seeded_page.locator("#forest-up-share")).to_have_attribute("data-drawn", "5")
    seeded_page.get_by_role("button", name="Light or dark").click()
    expect(seeded_page.locator("#forest-up-share canvas")).to_be_visible()


def test_the_flipped_items_unfold_by_keyboard(seeded_page: Page) -> None:
    seeded_page.goto(TWO)
    flips = seeded_page.locator("#flips-code_next_line")
    flips.locator("summary").first.focus()
    seeded_page.keyboard.press("Enter")
    expect(flips.locator(".flip-items > li")).to_have_count(20)
    expect(flips.locator(".flip-list").first).to_contain_text("21 items learned")
    flips.get_by_role("link", name="Show all 21").click()
    expect(flips.locator(".flip-items > li")).to_have_count(21)
    expect(flips.locator(".flip-head a").first).to_have_attribute("href", re.compile(r"/tasks/code_next_line/items/"))


def test_two_runs_are_moved_along_their_training(seeded_page: Page) -> None:
    seeded_page.goto("/compare?a=demo&b=second")
    expect(seeded_page.locator(".sides")).to_contain_text("demo@1000")
    expect(seeded_page.locator(".age")).to_contain_text("apart (2.5%)")
    slider = seeded_page.get_by_label("At the same age")
    slider.focus()
    seeded_page.keyboard.press("ArrowLeft")
    expect(seeded_page.locator(".sides")).to_contain_text("demo@500")
    expect(seeded_page).to_have_url(re.compile(r"x=2048000"))
    expect(slider).to_be_focused()
    seeded_page.get_by_role("link", name="Older").click()
    expect(seeded_page.locator(".sides")).to_contain_text("demo@1000")
    expect(seeded_page.get_by_text("no task in common")).to_be_visible()


def test_what_was_measured_differently_is_compared_on_demand(seeded_page: Page) -> None:
    seeded_page.goto("/compare?a=demo@64&b=demo@500")
    expect(seeded_page.locator("#apart")).to_contain_text("number format float32")
    seeded_page.get_by_role("link", name="Compare these all the same").click()
    expect(seeded_page.locator("#task-zh_pairs")).to_contain_text("Measured differently:")


def test_without_scripts_everything_can_be_read(browser: Browser, seeded_site: Site) -> None:
    made = browser.new_context(base_url=seeded_site.address, locale="en-GB", java_script_enabled=False)
    with closing(made), sound(made) as page:
        page.goto("/compare?a=demo@250")
        page.get_by_label("Checkpoint or run B").select_option("demo@1000")
        page.get_by_role("button", name="Compare", exact=True).click()
        expect(page.locator("#task-code_next_line")).to_contain_text("+17.5 points")
        page.locator("#flips-code_next_line summary").click()
        page.locator("#flips-code_next_line").get_by_role("link", name="Show these items").click()
        expect(page.locator(".flip-items > li").first).to_be_visible()


def test_on_a_phone_in_chinese(phone: Page) -> None:
    for address in (TWO, "/compare?a=demo&b=second", "/compare?a=demo@64&b=demo@500", "/compare"):
        phone.goto(address)
        phone.wait_for_timeout(300)
        wide = phone.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
        assert wide <= 0, address
    phone.goto(TWO)
    expect(phone.locator("#outcome")).to_contain_text("共 8 项任务")
    phone.locator("#flips-code_next_line summary").click()
    expect(phone.locator("#flips-code_next_line .flip-list").first).to_contain_text("学会 21 题")
    wide = phone.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
    assert wide <= 0
    header = phone.locator(".nav").evaluate("nav => nav.scrollWidth - nav.clientWidth")
    assert header <= 0
