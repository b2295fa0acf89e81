"""Registering, asking and reading the answer, in a real browser."""

import re
import uuid
from contextlib import closing
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from registry import accounts, chats, checkpoints, db
from tests.browser.conftest import Site, log_in

pytestmark = pytest.mark.browser

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
    box = page.get_by_label("Message", exact=True)
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
    box = page.get_by_label("Message", exact=True)
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
    box = page.get_by_label("Message", exact=True)
    box.fill("x" * 9000)
    box.press("Enter")
    expect(page.get_by_role("alert")).to_contain_text("9,000 characters; at most 8,000")
    expect(box).to_have_value("x" * 9000)
    box.fill("   ")
    box.press("Enter")
    expect(page.get_by_role("alert")).to_contain_text("empty")


def enter(page: Page, site: Site, name: str) -> str:
    """Registered before, so that only the login's limit counts; then to the chat. Returns the whole name.

    Nobody else has it, neither an earlier test nor an earlier try of this one.
    """
    name = f"{name}-{uuid.uuid4().hex[:6]}"

    def prepare() -> None:
        with db.transaction() as session:
            accounts.register(session, name, "a long enough word")

    site.use(prepare)
    log_in(page, name, "a long enough word")
    page.goto("/chat")
    return name


def say(page: Page, text: str) -> None:
    """Send a first message and wait for its answer."""
    page.get_by_label("Message", exact=True).fill(text)
    page.get_by_role("button", name="Send", exact=True).last.click()
    page.wait_for_url(re.compile(r"/chat/[\w-]{15,}$"))
    expect(page.get_by_role("button", name="Good answer")).to_be_visible()


def test_a_deleted_conversation_can_be_brought_back(page: Page, site: Site) -> None:
    enter(page, site, "sushi")
    say(page, QUESTION)
    address = page.url
    page.locator(".chat-head").get_by_role("button", name="Delete").click()
    page.wait_for_url(re.compile(r"cleared="))
    expect(page.locator(".turn")).to_have_count(0)
    page.get_by_role("button", name="Undo").click()
    page.wait_for_url(address)
    expect(page.locator(".turn .answer")).to_have_text(QUESTION)


def test_an_edited_question_and_another_answer_are_kept_beside_the_first(page: Page, site: Site) -> None:
    enter(page, site, "libai2")
    say(page, "the first way")
    page.get_by_label("Message", exact=True).press("ArrowUp")
    area = page.locator(".edit textarea")
    expect(area).to_be_focused()
    area.fill("the second way")
    area.press("Enter")
    expect(page.locator(".siblings")).to_contain_text("2/2")
    expect(page.locator(".turn .answer")).to_have_text("the second way")
    expect(page.get_by_role("button", name="Good answer")).to_be_visible()
    page.get_by_role("button", name="The version before").focus()
    page.keyboard.press("Enter")
    expect(page.locator(".siblings")).to_contain_text("1/2")
    expect(page.get_by_role("button", name="The next version")).to_be_focused()
    page.reload()
    expect(page.locator(".turn .prompt")).to_have_text("the first way")
    page.get_by_role("button", name="Another answer").click()
    expect(page.locator(".siblings")).to_contain_text("3/3")
    expect(page.get_by_role("button", name="Good answer")).to_be_visible()


def test_the_history_finds_renames_and_pages(page: Page, site: Site) -> None:
    enter(page, site, "wangbo")
    say(page, "about the palace of Teng")
    page.get_by_placeholder("Search").fill("nothing like it")
    expect(page.locator("#entries")).to_contain_text("Nothing you wrote or read")
    page.get_by_placeholder("Search").fill("PALACE")
    expect(page.locator("#entries .entry")).to_have_count(1)
    page.locator(".entry-menu summary").click()
    page.locator(".entry-menu").get_by_label("Title").fill("Teng Wang Ge")
    page.locator(".entry-menu").get_by_role("button", name="Rename").click()
    expect(page.locator("#entries .chat-title")).to_have_text("Teng Wang Ge")


def test_settings_are_reset_and_kept(page: Page, site: Site) -> None:
    enter(page, site, "menghaoran")
    page.locator(".knobs summary").click()
    page.get_by_label("Seed").fill("12")
    page.locator("[name=top_p]").fill("0.5")
    expect(page.locator(".knobs output").nth(1)).to_have_text("0.5")
    page.locator(".knobs summary").click()
    say(page, QUESTION)
    expect(page.locator("[name=top_p]")).to_have_value("0.5")
    expect(page.locator("[name=seed]")).to_have_value("12")
    page.locator(".knobs summary").click()
    page.get_by_role("button", name="Reset to defaults").click()
    expect(page.locator("[name=top_p]")).to_have_value("0.95")
    expect(page.locator("[name=seed]")).to_have_value("")


def test_a_thumb_asks_for_a_reason(page: Page, site: Site) -> None:
    enter(page, site, "censhen")
    say(page, QUESTION)
    page.get_by_role("button", name="Bad answer").click()
    page.get_by_label("repeats itself").check()
    page.get_by_label("In your own words").fill("word for word")
    page.locator(".reason").get_by_role("button", name="Save").click()
    expect(page.locator(".reason summary")).to_have_text("Why you rated it so")
    page.reload()
    page.locator(".reason summary").click()
    expect(page.get_by_label("repeats itself")).to_be_checked()
    expect(page.get_by_label("In your own words")).to_have_value("word for word")


def test_a_link_is_shared_read_and_ended(page: Page, site: Site) -> None:
    enter(page, site, "gaoshi")
    say(page, QUESTION)
    page.locator(".chat-menu summary").click()
    page.get_by_role("button", name="Share by link").click()
    link = page.locator("#share-link").input_value()
    stranger = page.context.browser
    assert stranger is not None
    with closing(stranger.new_context(locale="en-GB")) as context:
        reader = context.new_page()
        reader.goto(link)
        expect(reader.locator(".turn .answer")).to_have_text(QUESTION)
        page.get_by_role("button", name="End the link").click()
        expect(page.locator("#share-link")).to_have_count(0)
        ended = reader.reload()
        assert ended is not None
        assert ended.status == 404


def test_an_export_is_imported_again(page: Page, site: Site, tmp_path: Path) -> None:
    enter(page, site, "liuzongyuan")
    say(page, QUESTION)
    address = page.url
    for form in ("JSON", "Markdown"):
        page.locator(".chat-menu summary").click()
        with page.expect_download() as download:
            page.get_by_role("link", name=f"Export as {form}").click()
        file = tmp_path / download.value.suggested_filename
        download.value.save_as(file)
        page.locator(".chat-import summary").click()
        page.locator(".chat-import input[type=file]").set_input_files(file)
        page.get_by_role("button", name="Import", exact=True).click()
        page.wait_for_url(lambda url: "/chat/" in url and url != address)
        expect(page.locator(".turn .answer")).to_have_text(QUESTION)
        page.goto(address)


def test_another_age_is_asked_the_same(page: Page, site: Site) -> None:
    enter(page, site, "hanyu")
    say(page, QUESTION)
    address = page.url
    page.locator(".ask-age summary").click()
    page.locator(".ask-age select").select_option("garden@10")
    page.get_by_role("button", name="Ask it this").click()
    page.wait_for_url(lambda url: "/chat/" in url and url != address)
    expect(page.locator(".turn .answer")).to_have_text(QUESTION)


def test_a_menu_closes_with_escape(page: Page, site: Site) -> None:
    enter(page, site, "yuanzhen")
    say(page, QUESTION)
    page.locator(".chat-menu summary").click()
    page.locator("#share button").focus()
    page.keyboard.press("Escape")
    expect(page.locator(".chat-menu summary")).to_be_focused()
    expect(page.locator(".chat-menu .menu-panel")).to_be_hidden()


def test_the_wait_is_told_before_anything_is_sent(page: Page, site: Site) -> None:
    enter(page, site, "jiadao")
    expect(page.locator(".wait-note")).to_be_visible()
    expect(page.locator(".wait-note")).not_to_be_empty()


def test_a_wait_that_cannot_be_told_is_not_told(page: Page, site: Site) -> None:
    page.route("**/chat/wait?*", lambda route: route.abort())
    enter(page, site, "mengjiao")
    page.wait_for_load_state("networkidle")
    expect(page.locator(".wait-note")).to_be_hidden()


def test_more_conversations_than_fit_are_fetched(page: Page, site: Site) -> None:
    name = enter(page, site, "baijuyi")

    def fill() -> None:
        with db.transaction() as session:
            [user], _ = accounts.find_users(session, name)
            for number in range(43):
                chats.open_chat(session, user, checkpoints.newest(session)[0]).title = f"talk {number}"

    site.use(fill)
    page.reload()
    expect(page.locator("#entries .entry")).to_have_count(40)
    page.get_by_role("link", name="Older conversations").click()
    expect(page.locator("#entries .entry")).to_have_count(43)
    expect(page.get_by_role("link", name="Older conversations")).to_have_count(0)
