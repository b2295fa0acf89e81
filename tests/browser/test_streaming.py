"""An answer while it is written: the test stands in for the worker, so that every moment can be looked at."""

import pytest
from playwright.sync_api import Page, expect

from registry import accounts, chats, checkpoints, db, events, tickets
from registry.models.base import FINISHED
from registry.tickets import Claim
from tests.browser.conftest import Site, log_in

pytestmark = pytest.mark.browser

PASSWORD = "watching grass grow"


@pytest.fixture
def held(site: Site) -> tuple[str, Claim]:
    """A conversation whose turn this test has claimed before any worker could see it."""

    def prepare() -> tuple[str, Claim]:
        with db.transaction() as session:
            known, _ = accounts.find_users(session, "watcher")
            user = known[0] if known else accounts.register(session, "watcher", PASSWORD)
            chat = chats.open_chat(session, user, checkpoints.newest(session)[0])
            turn = chats.open_turn(session, chat, "<b>Once</b> upon")
            claim = tickets.claim(session, "test", lanes=[tickets.CHAT], lease_seconds=300)
            assert claim is not None
            assert claim.turn_id == turn.id
            return chat.public_id, claim

    opened: tuple[str, Claim] = site.use(prepare)
    return opened


def test_it_grows_survives_a_reload_and_ends_whole(page: Page, site: Site, held: tuple[str, Claim]) -> None:
    public_id, claim = held
    turn_id = claim.turn_id or 0
    answer, place = page.locator(".turn .answer"), page.locator(".turn .place")

    def send(kind: str, **data: object) -> None:
        site.use(lambda: events.append(f"turn:{turn_id}", kind, data))

    log_in(page, "watcher", PASSWORD)
    page.goto(f"/chat/{public_id}")
    expect(place).to_have_text("It is your turn: the model is getting ready.")
    expect(page.locator(".turn .prompt")).to_have_text("<b>Once</b> upon")

    send("start", attempt=1)
    send("delta", text=" a <i>time</i>,\n")
    expect(answer).to_have_text("a <i>time</i>,")
    expect(place).to_have_text("writing")
    expect(page.locator(".cursor")).to_be_visible()

    page.reload()
    expect(answer).to_have_text("a <i>time</i>,")
    send("delta", text="there was 一棵树")
    expect(answer).to_contain_text("there was 一棵树")
    expect(page.locator("[data-copy]")).to_have_count(0)

    # A second attempt after a lost worker starts over.
    send("start", attempt=2)
    send("delta", text=" again")
    expect(answer).to_have_text("again")

    def finish() -> None:
        with db.transaction() as session:
            tickets.finish(session, claim.ticket_id, claim.fence)
            chats.close_turn(session, turn_id, status=FINISHED, answer=" again, whole", finish_reason="stop")

    site.use(finish)
    send("done", status="finished", finish_reason="stop", error="")
    expect(answer).to_have_text("again, whole")
    expect(page.locator("[data-copy]")).to_be_visible()
    expect(page.locator(".cursor")).to_have_count(0)


def test_a_very_long_answer_does_not_freeze_the_page(page: Page, site: Site, held: tuple[str, Claim]) -> None:
    public_id, claim = held
    log_in(page, "watcher", PASSWORD)
    page.goto(f"/chat/{public_id}")
    page.evaluate(
        "() => { window.longest = 0; new PerformanceObserver(list => list.getEntries().forEach(task => {"
        " window.longest = Math.max(window.longest, task.duration); })).observe({ type: 'longtask' }); }"
    )

    def write() -> None:
        events.append(f"turn:{claim.turn_id}", "start", {"attempt": 1})
        for number in range(1000):
            events.append(f"turn:{claim.turn_id}", "delta", {"text": f"{number:04d} " + "words and " * 9 + "more.\n"})

    site.use(write)
    expect(page.locator(".turn .answer")).to_contain_text("0999 words", timeout=60_000)
    assert page.locator(".turn .answer").evaluate("element => element.textContent.length") == 1000 * 101
    # Two busy processors take their time; what matters is that no single step holds the page for long.
    assert page.evaluate("window.longest") < 1000


def test_escape_stops_the_answer(page: Page, site: Site, held: tuple[str, Claim]) -> None:
    public_id, claim = held
    log_in(page, "watcher", PASSWORD)
    page.goto(f"/chat/{public_id}")
    expect(page.locator("[data-stop]")).to_be_visible()
    with page.expect_request(f"**/chat/turns/{claim.turn_id}/stop"):
        page.keyboard.press("Escape")
