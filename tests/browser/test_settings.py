"""How answers are drawn, and by whom: every setting down to the model, and going on with another checkpoint."""

from collections.abc import Iterator
from typing import Any

import pytest
from playwright.sync_api import Page, expect
from sqlalchemy import select

from registry import db
from registry.models import Chat, Turn, User
from tests.browser import talker
from tests.browser.conftest import Site
from tests.browser.test_chat import enter, say

pytestmark = pytest.mark.browser

QUESTION = "Quick brown foxes jump over lazy dogs, 12 times"
LONGEST = 16


@pytest.fixture(scope="module")
def chat_model(site: Site) -> Iterator[str]:
    """Its label."""
    talker.publish(site)
    yield talker.LABEL
    talker.retire(site)


def last_params(site: Site, name: str) -> dict[str, Any]:
    """With what this person asked last."""

    def find() -> dict[str, Any]:
        with db.read_session() as session:
            query = select(Turn).join(Chat).join(User).where(User.name == name).order_by(Turn.id.desc())
            turn = session.scalars(query.limit(1)).one()
            return dict(turn.params)

    found: dict[str, Any] = site.use(find)
    return found


def set_slider(page: Page, name: str, value: str) -> None:
    """In the open panel; its number follows."""
    slider = page.get_by_role("slider", name=name)
    slider.fill(value)
    expect(page.locator(".knob", has=slider).locator("output")).to_have_text(value)


def test_every_setting_reaches_the_model_and_another_answer_takes_those_of_now(page: Page, site: Site) -> None:
    tuner = enter(page, site, "tuner")
    page.goto("/chat?checkpoint=garden@10")
    page.locator(".knobs summary").click()
    expect(page.get_by_label("System prompt")).to_have_count(0)  # a base model would not understand it
    set_slider(page, "Temperature", "1.25")
    set_slider(page, "Top-p", "0.5")
    set_slider(page, "Repetition penalty", "1.4")
    set_slider(page, "Longest answer", str(LONGEST))
    page.get_by_label("Seed").fill("7")
    page.locator(".knobs summary").click()
    say(page, QUESTION)
    given = {"temperature": 1.25, "top_p": 0.5, "repetition_penalty": 1.4, "max_tokens": LONGEST, "seed": 7}
    assert last_params(site, tuner) == given
    expect(page.locator(".turn-foot")).to_contain_text(f"cut off at the longest answer · {LONGEST} tokens")
    cut = page.locator(".turn .answer").inner_text()
    assert QUESTION.startswith(cut)
    assert len(cut) < len(QUESTION)

    page.locator(".knobs summary").click()
    set_slider(page, "Longest answer", "128")
    set_slider(page, "Temperature", "0")
    page.locator(".knobs summary").click()
    page.get_by_role("button", name="Another answer").click()
    expect(page.locator(".siblings")).to_contain_text("2/2")
    expect(page.locator(".turn .answer")).to_have_text(QUESTION)
    expect(page.get_by_role("button", name="Good answer")).to_be_visible()
    # The same seed would write the same answer again.
    assert last_params(site, tuner) == {**given, "max_tokens": 128, "temperature": 0, "seed": 8}


def test_a_chat_model_begins_with_its_own_settings_and_is_told_a_system_prompt(
    page: Page, site: Site, chat_model: str
) -> None:
    director = enter(page, site, "director")
    page.goto("/chat?checkpoint=garden@10")
    expect(page.locator("[name=temperature]")).to_have_value("0.8")
    page.goto(f"/chat?checkpoint={chat_model}")
    expect(page.locator("[name=temperature]")).to_have_value("0.7")
    page.locator(".knobs summary").click()
    page.get_by_label("System prompt").fill("Be brief.")
    page.locator(".knobs summary").click()
    say(page, "Who wrote Hamlet?")
    answer = page.locator(".turn .answer")
    expect(answer).to_contain_text("system: Be brief.")
    expect(answer).to_contain_text("user: Who wrote Hamlet?")
    assert last_params(site, director)["system"] == "Be brief."
    page.reload()
    expect(page.locator("[name=system]")).to_have_value("Be brief.")


def test_a_past_conversation_goes_on_at_another_checkpoint(page: Page, site: Site, chat_model: str) -> None:
    enter(page, site, "wanderer")
    page.goto("/chat?checkpoint=garden@10")
    say(page, "My name is Mei")
    address = page.url
    page.locator(".ask-age summary").click()
    page.locator(".ask-age select").select_option(chat_model)
    page.get_by_role("button", name="Go on from here with it").click()
    page.wait_for_url(lambda url: "/chat/" in url and url != address)
    expect(page.locator(".turn.is-chat .answer")).to_have_text("My name is Mei")
    page.get_by_label("Message", exact=True).fill("What is my name?")
    page.get_by_label("Message", exact=True).press("Enter")
    # What was said before, to another age, is in what this one reads.
    expect(page.locator(".turn .answer").nth(1)).to_contain_text("user: My name is Mei")
    expect(page.locator(".turn .answer").nth(1)).to_contain_text("user: What is my name?")
    page.goto(address)
    expect(page.locator(".turn .answer")).to_have_text("My name is Mei")


def test_an_entry_of_the_history_is_deleted_from_its_menu(page: Page, site: Site) -> None:
    enter(page, site, "tidy")
    page.goto("/chat?checkpoint=garden@10")
    say(page, "Not worth keeping")
    page.locator(".entry-menu summary").click()
    page.locator(".entry-menu").get_by_role("button", name="Delete").click()
    expect(page.locator("#entries .entry")).to_have_count(0)
    page.get_by_role("button", name="Undo").click()
    expect(page.locator("#entries .entry .chat-title")).to_have_text("Not worth keeping")
