"""The time-lapse in a real Chromium: slider, playing, keys, sharing; and a proposal's way to its answers."""

import re
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any

import httpx
import pytest
from playwright.sync_api import Browser, Page, expect

from registry import accounts, db
from tests.browser.conftest import DESKTOP, PHONE, Site, log_in, sound, wait_for

pytestmark = pytest.mark.browser

STEPS = (0, 16, 32, 64, 128, 250, 500, 750, 1000, 1250, 1500, 1750)
ENGLISH = "0000000000000001"
"""The key of "To be, or not to be" in the seeded run."""


def address(step: int) -> str:
    return f"/runs/demo/timelapse?prompt={ENGLISH}&step={step}"


def open_at(page: Page, step: int) -> None:
    """The page at that step, with its data loaded."""
    page.goto(address(step))
    expect(page.locator("#timelapse")).to_have_attribute("data-ready", str(len(STEPS)))


def is_at(page: Page, step: int) -> None:
    """Slider, address and words agree on the step."""
    expect(page.locator("#tl-slider")).to_have_value(str(STEPS.index(step)))
    expect(page.locator("#tl-step")).to_have_text(f"step {step:,}")
    expect(page).to_have_url(re.compile(rf"prompt={ENGLISH}&step={step}$"))


def slide(page: Page, index: int) -> None:
    page.locator("#tl-slider").evaluate(
        "(slider, to) => { slider.value = to; slider.dispatchEvent(new Event('input')); }", str(index)
    )


class TestMoving:
    def test_the_slider_shows_each_age_and_the_address_follows(self, seeded_page: Page) -> None:
        open_at(seeded_page, 0)
        expect(seeded_page.locator("#tl-answer")).to_contain_text("the the , , the")
        slide(seeded_page, 6)
        is_at(seeded_page, 500)
        expect(seeded_page.locator("#tl-answer")).to_have_text(", and the lord, and the world of the")
        expect(seeded_page.locator("#tl-age")).to_have_attribute("href", "/runs/demo/checkpoints/500")
        expect(seeded_page.locator("#tl-talk")).to_have_attribute("href", "/chat?checkpoint=demo@500")
        expect(seeded_page.locator("#tl-slider")).to_have_attribute("aria-valuetext", "2M tokens, step 500")
        seeded_page.reload()
        is_at(seeded_page, 500)

    def test_keys_move_it_from_anywhere_but_not_from_a_field(self, seeded_page: Page) -> None:
        open_at(seeded_page, 250)
        for key, step in (("ArrowRight", 500), ("ArrowLeft", 250), ("End", 1750), ("Home", 0), ("ArrowLeft", 0)):
            seeded_page.keyboard.press(key)
            expect(seeded_page.locator("#tl-slider")).to_have_value(str(STEPS.index(step)))
        seeded_page.locator("#tl-slider").focus()
        seeded_page.keyboard.press("ArrowRight")
        is_at(seeded_page, 16)
        seeded_page.locator("#tl-speed").focus()
        seeded_page.keyboard.press("End")
        is_at(seeded_page, 16)

    def test_the_links_move_it_without_loading_the_page(self, seeded_page: Page) -> None:
        open_at(seeded_page, 0)
        seeded_page.evaluate("window.notReloaded = true")
        seeded_page.get_by_role("link", name="Newest").click()
        is_at(seeded_page, 1750)
        seeded_page.get_by_role("link", name="Earlier").click()
        is_at(seeded_page, 1500)
        assert seeded_page.evaluate("window.notReloaded") is True
        assert seeded_page.locator("#tl-to-later").get_attribute("href") == address(1750)

    def test_new_words_are_insertions_and_words_that_stay_glide(self, seeded_page: Page) -> None:
        open_at(seeded_page, 500)
        slide(seeded_page, 7)
        assert seeded_page.evaluate("document.getAnimations().length") > 0
        expect(seeded_page.locator("#tl-answer")).to_contain_text("that is the matter")
        marked = "".join(seeded_page.locator("#tl-answer ins").all_text_contents())
        assert "matter" in marked
        assert marked != seeded_page.locator("#tl-answer").text_content()
        expect(seeded_page.locator(".tl-ghost")).to_have_count(0)

    def test_a_visitor_who_wants_no_motion_sees_none(self, browser: Browser, seeded_site: Site) -> None:
        made = browser.new_context(base_url=seeded_site.address, viewport=DESKTOP, reduced_motion="reduce")
        with closing(made), sound(made) as page:
            open_at(page, 500)
            slide(page, 7)
            assert page.evaluate("document.getAnimations().length") == 0
            expect(page.locator("#tl-answer")).to_contain_text("that is the matter")

    def test_a_finger_swipes_through_the_ages(self, browser: Browser, seeded_site: Site) -> None:
        made = browser.new_context(base_url=seeded_site.address, viewport=PHONE, has_touch=True, is_mobile=True)
        with closing(made), sound(made) as page:
            open_at(page, 0)
            swipe(page, 300, 100)
            is_at(page, 16)
            swipe(page, 100, 300)
            is_at(page, 0)
            swipe(page, 100, 120)
            is_at(page, 0)
            assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")

    def test_another_prompt_is_shown_at_the_same_age(self, seeded_page: Page) -> None:
        open_at(seeded_page, 0)
        slide(seeded_page, 6)
        seeded_page.get_by_label("Beginning").select_option("0000000000000002")
        expect(seeded_page).to_have_url(re.compile("prompt=0000000000000002&step=500"))
        expect(seeded_page.locator("#tl-answer")).to_contain_text("return self.self")


def swipe(page: Page, begin: int, end: int) -> None:
    page.locator(".tl-stage").evaluate(
        """(stage, [begin, end]) => {
          const at = (x) => ({ clientX: x, clientY: 300, pointerType: "touch", bubbles: true });
          stage.dispatchEvent(new PointerEvent("pointerdown", at(begin)));
          stage.dispatchEvent(new PointerEvent("pointerup", at(end)));
        }""",
        [begin, end],
    )


class TestPlaying:
    def test_it_plays_to_the_end_and_stops(self, seeded_page: Page) -> None:
        open_at(seeded_page, 750)
        seeded_page.get_by_label("Speed").select_option("4")
        seeded_page.get_by_role("button", name="Play").click()
        expect(seeded_page.get_by_role("button", name="Pause")).to_be_visible()
        is_at(seeded_page, 1750)
        expect(seeded_page.get_by_role("button", name="Play")).to_be_visible()

    def test_at_the_end_it_begins_again_and_space_pauses(self, seeded_page: Page) -> None:
        open_at(seeded_page, 1750)
        seeded_page.keyboard.press(" ")
        expect(seeded_page.locator("#timelapse")).to_have_attribute("data-playing", "true")
        expect(seeded_page.locator("#tl-slider")).to_have_value("1")
        seeded_page.keyboard.press(" ")
        expect(seeded_page.locator("#timelapse")).not_to_have_attribute("data-playing", "true")
        stopped = seeded_page.locator("#tl-slider").input_value()
        seeded_page.wait_for_timeout(1600)
        expect(seeded_page.locator("#tl-slider")).to_have_value(stopped)


class TestSharing:
    def test_the_link_is_copied_and_leads_to_the_same_age(self, browser: Browser, seeded_site: Site) -> None:
        made = browser.new_context(base_url=seeded_site.address, viewport=DESKTOP)
        made.grant_permissions(["clipboard-read", "clipboard-write"])
        with closing(made), sound(made) as page:
            open_at(page, 0)
            slide(page, 8)
            page.get_by_role("button", name="Copy a link to this age").click()
            expect(page.locator("#tl-said")).to_have_text("The link is in the clipboard.")
            copied = page.evaluate("navigator.clipboard.readText()")
            assert copied == f"{seeded_site.address}{address(1000)}"
            page.goto(copied)
            is_at(page, 1000)

    def test_without_a_clipboard_the_link_is_shown(self, seeded_page: Page) -> None:
        seeded_page.add_init_script("Object.defineProperty(navigator, 'clipboard', { value: undefined })")
        open_at(seeded_page, 16)
        seeded_page.get_by_role("button", name="Copy a link to this age").click()
        expect(seeded_page.get_by_label("Copy this link:")).to_have_value(re.compile(r"prompt=\d+&step=16$"))


class TestWithoutScripts:
    @pytest.fixture
    def plain(self, browser: Browser, seeded_site: Site) -> Iterator[Page]:
        made = browser.new_context(base_url=seeded_site.address, viewport=DESKTOP, java_script_enabled=False)
        with closing(made):
            yield made.new_page()

    def test_links_lead_from_age_to_age(self, plain: Page) -> None:
        plain.goto(address(500))
        plain.get_by_role("link", name="Later").click()
        expect(plain.locator("#tl-answer")).to_contain_text("that is the matter")
        expect(plain.locator("#tl-slider")).to_be_hidden()
        plain.get_by_label("Beginning").select_option("0000000000000003")
        plain.get_by_role("button", name="Show").click()
        expect(plain).to_have_url(re.compile("prompt=0000000000000003&step=750"))

    def test_the_list_has_every_age(self, plain: Page) -> None:
        plain.goto(address(500))
        plain.get_by_role("link", name="All ages as a list").click()
        expect(plain.locator("tbody tr")).to_have_count(len(STEPS))
        plain.get_by_role("link", name="Back to the slider").click()
        expect(plain.locator("#tl-answer")).to_have_text(", and the lord, and the world of the")


def answers(site: Site, run: str, prompt: str) -> dict[int, str | None]:
    """What each step of a run made of a prompt, through the API."""
    data: dict[str, Any] = httpx.get(f"{site.address}/api/v1/runs/{run}/timelapse").json()
    keys = [one["key"] for one in data["prompts"] if one["text"] == prompt]
    if not keys:
        return {}
    chosen = httpx.get(f"{site.address}/api/v1/runs/{run}/timelapse", params={"prompt": keys[0]}).json()
    return {age["step"]: age["text"] for age in chosen["ages"]}


def all_answered(site: Site, prompt: str, steps: set[int]) -> Callable[[], bool]:
    return lambda: {step for step, text in answers(site, "hedge", prompt).items() if text} == steps


def test_a_proposal_is_accepted_and_every_past_checkpoint_answers_it(page: Page, browser: Browser, site: Site) -> None:
    first = "中华人民共和国教育法 第一章 总则\n第一条 为了"
    for step in (1, 2):
        site.push("hedge", step, seed=step)
    wait_for(all_answered(site, first, {1, 2}), 120, "the answers to the site's own prompts", site.home)

    def register() -> None:
        with db.transaction() as session:
            accounts.register(session, "mei", "correct horse battery")

    site.use(register)
    log_in(page, "mei", "correct horse battery")
    page.goto("/runs/hedge/timelapse")
    text = "A hedgehog <b>{{ 7 * 7 }}</b> once"
    page.get_by_label("The first words of a text").fill(text)
    page.get_by_role("button", name="Propose").click()
    expect(page.locator("#own-proposals")).to_contain_text("waiting")

    made = browser.new_context(base_url=site.address, locale="en-GB", viewport=DESKTOP)
    with closing(made), sound(made) as admin:
        log_in(admin)
        admin.goto("/admin/prompts")
        row = admin.get_by_role("listitem").filter(has_text=text)
        row.get_by_role("button", name="Accept").click()
        expect(admin.get_by_role("status")).to_contain_text("in line for it")
        # the proposer's page hears of it by itself
        expect(page.locator("#own-proposals")).to_contain_text("accepted", timeout=30_000)
        wait_for(all_answered(site, text, {1, 2}), 120, "the answers to the proposal", site.home)

        page.locator("#own-proposals").get_by_role("link").click()
        expect(page.locator("#timelapse")).to_have_attribute("data-ready", "2")
        expect(page.locator("#tl-text")).to_contain_text(text)
        page.evaluate("window.notReloaded = true")
        site.push("hedge", 3, seed=3)
        expect(page.locator("#timelapse")).to_have_attribute("data-ready", "3", timeout=60_000)
        wait_for(all_answered(site, text, {1, 2, 3}), 120, "the answer of a new checkpoint", site.home)
        expect(page.locator("#tl-place")).to_have_text("3 / 3")
        expect(page.locator("#tl-marks")).not_to_be_empty(timeout=30_000)
        assert page.evaluate("window.notReloaded") is True

        admin.goto("/admin/prompts")
        admin.get_by_role("listitem").filter(has_text=text).get_by_role("button", name="Withdraw").click()
        expect(admin.get_by_role("status")).to_contain_text("Withdrawn")
    assert answers(site, "hedge", text) == {}
