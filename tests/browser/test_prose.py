"""What a chat model writes, in a real browser: Markdown, tables, code in colours, formulas, and copying them."""

from collections.abc import Iterator
from contextlib import closing

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, expect

from registry import accounts, chats, conversations, db
from registry.models.base import FINISHED, RETIRED
from server import answers
from tests.browser.conftest import DESKTOP, Site, log_in, sound
from tests.factories import make_checkpoint, make_run

pytestmark = pytest.mark.browser

PASSWORD = "well set and printed"
CODE = 'def greet(name):\n    """Say hello."""\n    return "Hello, " + name\n'
ANSWER = f"""## A short lesson

Some **bold**, some *italic*, ~~none~~ and a [link](https://example.org/).

1. first
2. second

| age | loss |
|-----|-----:|
| 100 | 5.25 |
| 200 | 4.75 |

```python
{CODE}```

Inline $\\frac{{a}}{{b}}$ and displayed:

$$\\sum_{{i=1}}^{{n}} i = \\frac{{n(n+1)}}{{2}}$$
"""
REPEATS = min(answers.MAX_CHARS // len(ANSWER), answers.MAX_DELIMITERS // sum(map(ANSWER.count, answers.DELIMITERS)))


@pytest.fixture(scope="module")
def addresses(site: Site) -> tuple[str, str, str]:
    """Of the conversation, of the link to it, and of one with an answer as long as is laid out at all."""

    def prepare() -> tuple[str, str, str]:
        with db.transaction() as session:
            user = accounts.register(session, "printer", PASSWORD)
            checkpoint = make_checkpoint(session, make_run(session, "press"), 1, kind="chat")
            chat, long = (chats.open_chat(session, user, checkpoint) for _ in range(2))
            chats.add_written(session, chat, {"prompt": "Teach me", "answer": ANSWER, "status": FINISHED}, after=None)
            whole = {"prompt": "All of it", "answer": ANSWER * REPEATS, "status": FINISHED}
            chats.add_written(session, long, whole, after=None)
            session.flush()
            session.expire(chat)
            token = conversations.share(session, chats.get_chat(session, user, chat.public_id))
            checkpoint.state = RETIRED  # the tests beside this one ask a base model
            session.info.pop("deferred_jobs", None)
            return f"/chat/{chat.public_id}", f"/shared/{token}", f"/chat/{long.public_id}"

    made: tuple[str, str, str] = site.use(prepare)
    return made


@pytest.fixture
def reader(browser: Browser, site: Site) -> Iterator[Page]:
    """The owner, whose browser lets pages use the clipboard."""
    with closing(browser.new_context(base_url=site.address, locale="en-GB", viewport=DESKTOP)) as own:
        allow_clipboard(own, site)
        with sound(own) as page:
            log_in(page, "printer", PASSWORD)
            yield page


def allow_clipboard(context: BrowserContext, site: Site) -> None:
    """As people do when they are asked."""
    context.grant_permissions(["clipboard-read", "clipboard-write"], origin=site.address)


def clipboard(page: Page) -> str:
    """What was copied last."""
    return str(page.evaluate("navigator.clipboard.readText()"))


def test_it_is_laid_out(reader: Page, addresses: tuple[str, str, str]) -> None:
    reader.goto(addresses[0])
    answer = reader.locator(".turn .answer")
    expect(answer.get_by_role("heading", name="A short lesson")).to_be_visible()
    expect(answer.locator("strong")).to_have_text("bold")
    expect(answer.locator("em")).to_have_text("italic")
    expect(answer.locator("ol li")).to_have_text(["first", "second"])
    expect(answer.get_by_role("link", name="link")).to_have_attribute("rel", "nofollow noopener noreferrer")
    expect(answer.get_by_role("columnheader")).to_have_text(["age", "loss"])
    expect(answer.get_by_role("cell")).to_have_text(["100", "5.25", "200", "4.75"])
    # Hidden marks of the source are nowhere.
    assert not any(mark in answer.inner_text() for mark in ("**", "##", "|--", "```", "\\frac", "$$"))


def test_code_has_colours_and_formulas_are_drawn(reader: Page, addresses: tuple[str, str, str]) -> None:
    reader.goto(addresses[0])
    block = reader.locator(".turn .answer .code-block")
    expect(block.locator(".code-language")).to_have_text("python")
    colours = block.locator("code span").evaluate_all("spans => spans.map(one => getComputedStyle(one).color)")
    assert len(set(colours)) >= 3
    formulas = reader.locator(".turn .answer math")
    expect(formulas).to_have_count(2)
    fraction = formulas.first.locator("mfrac")
    above, below = (fraction.locator("mi").nth(at).bounding_box() for at in (0, 1))
    assert above is not None
    assert below is not None
    assert above["y"] + above["height"] / 2 < below["y"] + below["height"] / 2
    whole, word = formulas.last.bounding_box(), formulas.first.bounding_box()
    assert whole is not None
    assert word is not None
    assert whole["y"] > word["y"]


def test_code_and_answers_are_copied_as_they_were_written(reader: Page, addresses: tuple[str, str, str]) -> None:
    reader.goto(addresses[0])
    button = reader.locator(".code-block button")
    button.click()
    expect(button).to_have_text("Copied")
    assert clipboard(reader) == CODE
    expect(button).to_have_text("Copy")
    reader.locator(".turn-foot").get_by_role("button", name="Copy", exact=True).click()
    reader.wait_for_function("() => document.querySelector('.turn-foot .is-done')")
    assert clipboard(reader).strip() == ANSWER.strip()


def test_the_longest_answer_that_is_laid_out_does_not_freeze_the_page(
    reader: Page, addresses: tuple[str, str, str]
) -> None:
    reader.add_init_script(
        "window.longest = 0; new PerformanceObserver(list => list.getEntries().forEach(task => {"
        " window.longest = Math.max(window.longest, task.duration); })).observe({ type: 'longtask', buffered: true });"
    )
    reader.goto(addresses[2])
    expect(reader.locator(".turn .answer table")).to_have_count(REPEATS)
    expect(reader.locator(".code-block button")).to_have_count(REPEATS)
    # Two busy processors take their time; what matters is that no single step holds the page for long.
    assert reader.evaluate("window.longest") < 1000


def test_who_reads_by_the_link_copies_code_but_cannot_write(
    browser: Browser, site: Site, addresses: tuple[str, str, str]
) -> None:
    with closing(browser.new_context(base_url=site.address, locale="en-GB", viewport=DESKTOP)) as own:
        allow_clipboard(own, site)
        with sound(own) as page:
            page.goto(addresses[1])
            expect(page.locator(".turn .answer math")).to_have_count(2)
            page.locator(".code-block button").click()
            expect(page.locator(".code-block button")).to_have_text("Copied")
            assert clipboard(page) == CODE
            assert page.locator("#composer, .turn form, [data-stop], .edit").count() == 0
