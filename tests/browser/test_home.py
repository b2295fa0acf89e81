"""The front page: the story in one screen, and a curve shown large by a click."""

import re

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.browser.conftest import PHONE, Site

pytestmark = pytest.mark.browser

SCREEN = 800


def test_the_story_is_told_in_one_screen(seeded_page: Page) -> None:
    seeded_page.set_viewport_size({"width": 1280, "height": SCREEN})
    seeded_page.goto("/")
    expect(seeded_page.locator("#hero-chart [data-drawn]")).to_be_visible()
    banners = sum(box["height"] for one in seeded_page.locator(".banner").all() if (box := one.bounding_box()))
    for part in (
        seeded_page.get_by_role("heading", level=1),
        seeded_page.get_by_text("about 57 novels"),
        seeded_page.get_by_role("link", name="Talk to it"),
        seeded_page.locator(".abilities li").last,
        seeded_page.locator(".told > div").last,
    ):
        box = part.bounding_box()
        assert box
        assert box["y"] + box["height"] - banners <= SCREEN, part


def test_an_ability_leads_to_its_curve(seeded_page: Page) -> None:
    seeded_page.goto("/")
    ability = seeded_page.locator(".abilities a").first
    title = ability.inner_text()
    ability.click()
    expect(seeded_page).to_have_url(re.compile(r"/runs/demo#chart-"))
    expect(seeded_page.locator(":target")).to_contain_text(title)


def test_a_small_curve_is_shown_large(seeded_page: Page) -> None:
    seeded_page.goto("/")
    curve = seeded_page.locator('[data-curve="code_next_line"]')
    curve.click()
    expect(seeded_page.locator("#hero-chart .chart-title")).to_have_text("Which line follows, Python")
    expect(curve).to_have_attribute("aria-current", "")


def test_a_phone_has_the_age_and_the_way_to_talk_on_its_first_screen(browser: Browser, seeded_site: Site) -> None:
    context = browser.new_context(base_url=seeded_site.address, locale="zh-CN", viewport=PHONE, is_mobile=True)
    page = context.new_page()
    page.goto("/")
    talk = page.locator(".hero .button").first.bounding_box()
    assert talk
    assert talk["y"] < PHONE["height"]
    assert page.evaluate("document.documentElement.scrollWidth <= document.documentElement.clientWidth")
    context.close()
