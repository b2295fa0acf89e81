"""API keys in a real browser, with openai's client as what they are for: shown once, scoped, counted, revoked."""

import re
from collections.abc import Iterator
from contextlib import closing
from itertools import count

import openai
import pytest
from playwright.sync_api import Browser, Page, expect

from registry import accounts, checkpoints, db
from registry.models import ApiCall, User
from registry.models.base import FINISHED, utcnow
from registry.settings import get_settings
from tests.browser.conftest import DESKTOP, Site, log_in, sound

pytestmark = pytest.mark.browser

MODEL = "garden@10"
PASSWORD = "a key to the garden"
_serial = count(1)
HOSTILE = "<img src=x onerror=alert(1)>\u202egnp.yek"


@pytest.fixture
def owner(browser: Browser, site: Site) -> Iterator[Page]:
    """Somebody on the page of their keys, who lets pages use the clipboard; each test has its own person."""
    name = f"owner{next(_serial)}"
    site.use(lambda: _register(name))
    with closing(browser.new_context(base_url=site.address, locale="en-GB", viewport=DESKTOP)) as own:
        own.grant_permissions(["clipboard-read", "clipboard-write"], origin=site.address)
        with sound(own) as page:
            log_in(page, name, PASSWORD)
            page.goto("/account")
            page.get_by_role("link", name="Keys and usage").click()
            page.wait_for_url("/account/api")
            yield page


def _register(name: str) -> None:
    with db.transaction() as session:
        accounts.register(session, name, PASSWORD)


def make(page: Page, name: str) -> str:
    """Through the form; gives the key, taken with the button to copy it."""
    page.get_by_label("Name").fill(name)
    page.get_by_role("button", name="Make the key").click()
    expect(page.get_by_role("heading", name="Your new key")).to_be_visible()
    page.locator(".api-new").get_by_role("button", name="Copy").click()
    expect(page.locator(".api-new").get_by_role("button")).to_have_text("Copied")
    token = str(page.evaluate("navigator.clipboard.readText()"))
    expect(page.locator("#new-token")).to_have_text(token)
    return token


def client(site: Site, token: str) -> openai.OpenAI:
    """The program that uses it."""
    return openai.OpenAI(base_url=f"{site.address}/v1", api_key=token, max_retries=0, timeout=60)


def test_a_key_is_shown_once_counts_what_it_does_and_is_revoked(owner: Page, site: Site) -> None:
    expect(owner.get_by_text("You have no key yet.")).to_be_visible()
    expect(owner.get_by_text("Nothing was asked in the last 30 days.")).to_be_visible()
    token = make(owner, "my notebook")
    assert owner.locator("#base-url").inner_text() == f"{site.address}/v1"
    owner.goto("/account/api")
    assert token not in owner.content()
    expect(owner.locator(".row")).to_contain_text("my notebook")
    expect(owner.locator(".row")).to_contain_text("never used")

    with client(site, token) as program:
        usage = program.completions.create(model=MODEL, prompt="A seed", max_tokens=20).usage
        assert usage is not None
        owner.reload()
        expect(owner.locator(".api-today-line")).to_contain_text(f"{usage.total_tokens} of 1,000,000 tokens today")
        meter = owner.get_by_role("meter", name="Tokens today")
        expect(meter).to_have_attribute("aria-valuenow", str(usage.total_tokens))
        expect(owner.get_by_role("row").filter(has_text="my notebook").get_by_role("cell")).to_have_text(
            ["1", str(usage.prompt_tokens), str(usage.completion_tokens)]
        )
        expect(owner.locator(".row")).to_contain_text(re.compile(r"last used .*(now|second|minute)"))

        owner.get_by_role("button", name="Revoke my notebook").click()
        expect(owner.get_by_role("status")).to_contain_text("the key opens nothing any more")
        expect(owner.get_by_text("You have no key yet.")).to_be_visible()
        with pytest.raises(openai.AuthenticationError):
            program.models.list()


def test_a_key_may_only_what_was_ticked(owner: Page, site: Site) -> None:
    owner.get_by_label("ask them: chat and completions").uncheck()
    with client(site, make(owner, "a list")) as program:
        assert MODEL in [model.id for model in program.models.list()]
        with pytest.raises(openai.PermissionDeniedError) as refused:
            program.completions.create(model=MODEL, prompt="A seed")
        assert refused.value.code == "insufficient_scope"
    owner.goto("/account/api")
    for scope in ("list the models", "ask them: chat and completions"):
        owner.get_by_label(scope).uncheck()
    owner.get_by_label("Name").fill("nothing")
    owner.get_by_role("button", name="Make the key").click()
    expect(owner.get_by_role("alert")).to_contain_text("Choose what the key may be used for")
    expect(owner.get_by_label("Name")).to_have_value("nothing")


def test_who_has_used_up_the_day_sees_it_and_is_told_when_to_come_back(owner: Page, site: Site) -> None:
    token = make(owner, "busy")
    name = owner.locator("a.who").inner_text()

    def spend() -> None:
        with db.transaction() as session:
            user = session.query(User).filter_by(name=name).one()
            call = ApiCall(public_id=f"cmpl-{user.id}", user_id=user.id, status=FINISHED)
            call.checkpoint = checkpoints.by_label(session, MODEL)
            call.prompt_tokens, call.completion_tokens, call.created_at = 0, get_settings().api_tokens_per_day, utcnow()
            session.add(call)

    site.use(spend)
    owner.goto("/account/api")
    expect(owner.locator(".api-today-line")).to_contain_text("1,000,000 of 1,000,000 tokens today")
    with client(site, token) as program, pytest.raises(openai.RateLimitError) as refused:
        program.completions.create(model=MODEL, prompt="One more", max_tokens=5)
    assert refused.value.code == "rate_limit_exceeded"
    assert 1 <= int(refused.value.response.headers["retry-after"]) <= 86_400
    assert "1,000,000 tokens a day" in refused.value.message


def test_a_hostile_name_is_only_read(owner: Page, site: Site) -> None:
    dialogs: list[str] = []
    owner.on("dialog", lambda dialog: (dialogs.append(dialog.message), dialog.dismiss()))
    with client(site, make(owner, HOSTILE)) as program:
        program.completions.create(model=MODEL, prompt="A seed", max_tokens=5)
    owner.goto("/account/api")
    assert owner.locator("main img").count() == 0
    assert dialogs == []
    assert "\u202e" not in owner.locator("main").inner_text()
