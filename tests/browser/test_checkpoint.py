"""A checkpoint's page in a real browser: held against another, its flipped items, its words, its family."""

import re
from contextlib import closing

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.browser.conftest import PHONE, Site, sound

pytestmark = pytest.mark.browser


def test_it_is_held_against_another_checkpoint(seeded_page: Page) -> None:
    seeded_page.goto("/runs/demo/checkpoints/500")
    seeded_page.evaluate("window.notReloaded = true")
    row = seeded_page.locator("#scores tr").filter(has=seeded_page.get_by_text("Bits per byte, Chinese statutes"))
    expect(row).to_contain_text("−0.298")
    seeded_page.get_by_label("against").focus()
    seeded_page.get_by_label("against").select_option("demo@64")
    expect(row).to_contain_text("−0.726")
    expect(seeded_page).to_have_url(re.compile(r"against=demo(%40|@)64"))
    expect(seeded_page.get_by_label("against")).to_be_focused()
    assert seeded_page.evaluate("window.notReloaded") is True
    seeded_page.reload()
    expect(row).to_contain_text("−0.726")


def test_flipped_items_come_into_view_and_unfold(seeded_page: Page) -> None:
    seeded_page.goto("/runs/demo/checkpoints/1000")
    seeded_page.locator("#flips").scroll_into_view_if_needed()
    expect(seeded_page.locator(".flip-group").first).to_contain_text("17 items learned")
    first = seeded_page.locator(".flip-group details").first
    first.locator("summary").click()
    expect(first.locator(".flip-items > li").first).to_be_visible()
    expect(first.locator(".flip-head a").first).to_have_attribute("href", re.compile("/runs/demo/tasks/.*/items/"))


def test_new_words_are_marked_by_more_than_a_colour(seeded_page: Page) -> None:
    seeded_page.goto("/runs/demo/checkpoints/1000?against=64")
    new, gone = seeded_page.locator("#sayings ins").first, seeded_page.locator("#sayings del").first
    assert "underline" in new.evaluate("mark => getComputedStyle(mark).textDecorationLine")
    assert "line-through" in gone.evaluate("mark => getComputedStyle(mark).textDecorationLine")


def test_the_family_leads_from_one_to_the_next(seeded_page: Page) -> None:
    seeded_page.goto("/runs/demo/checkpoints/1750?kind=chat")
    seeded_page.locator("#lineage").get_by_role("link", name="step 1,750").click()
    expect(seeded_page).to_have_url(re.compile("/runs/demo/checkpoints/1750$"))
    seeded_page.locator("#lineage").get_by_role("link", name="step 1,500").click()
    expect(seeded_page.get_by_role("heading", name=re.compile("Step 1,500"))).to_be_visible()


def test_it_leads_to_the_comparison(seeded_page: Page) -> None:
    seeded_page.goto("/runs/demo/checkpoints/500")
    seeded_page.get_by_role("link", name="Compare with…").click()
    expect(seeded_page.get_by_label("Checkpoint or run A")).to_have_value("demo@250")
    expect(seeded_page.get_by_label("Checkpoint or run B")).to_have_value("demo@500")


def test_on_a_phone_nothing_sticks_out(browser: Browser, seeded_site: Site) -> None:
    made = browser.new_context(base_url=seeded_site.address, locale="zh-CN", viewport=PHONE, is_mobile=True)
    with closing(made), sound(made) as page:
        page.goto("/runs/demo/checkpoints/500?against=64")
        page.locator("#flips").scroll_into_view_if_needed()
        expect(page.locator(".flip-group").first).to_contain_text("学会")
        page.locator(".flip-group details summary").first.click()
        expect(page.locator(".flip-items > li").first).to_be_visible()
        wide = page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
        assert wide <= 0
