"""Text that would act on the page, beyond conversations: while it is written, in notebooks, battles and for keepers."""

from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import Any

import pytest
from playwright.sync_api import Browser, Locator, Page, expect
from sqlalchemy import select

from registry import accounts, arena, bans, blocklist, chats, checkpoints, db, events, reports, tickets
from registry.models import Ticket, User
from registry.models.base import FINISHED, RETIRED
from tests.browser.conftest import DESKTOP, PHONE, Site, log_in, sound
from tests.browser.test_hostile import HOSTILE
from tests.factories import make_checkpoint, make_run
from tests.registry.arena_battles import answer

pytestmark = pytest.mark.browser

NAME, PASSWORD = "trudy", "watching grass grow"
SHORT = HOSTILE[:7_900]
"""What a question may have at most."""
SHOWN = "␛[31m⟨U+202E⟩exe.gpj"
SIZES = pytest.mark.parametrize("size", [PHONE, DESKTOP], ids=["phone", "desktop"])


@contextmanager
def visit(browser: Browser, site: Site, size: Any, name: str = NAME, password: str = PASSWORD) -> Iterator[Page]:
    """A page of this person's, before which no dialog may open."""
    dialogs: list[str] = []
    with (
        closing(browser.new_context(base_url=site.address, locale="en-GB", viewport=size)) as own,
        sound(own) as page,
    ):
        page.on("dialog", lambda dialog: (dialogs.append(dialog.message), dialog.dismiss()))
        log_in(page, name, password)
        yield page
        page.wait_for_timeout(200)
    assert dialogs == []


def check(page: Page, shown: Locator, size: Any) -> None:
    """It is read where it stands, does nothing, and stays within the screen."""
    expect(shown.first).to_contain_text(SHOWN)
    assert page.evaluate("document.documentElement.scrollWidth") <= size["width"]
    assert page.locator("main img, main script:not([type='application/json']), main svg[onload]").count() == 0
    assert page.locator("main a[href^='javascript']").count() == 0
    assert not any(sign in page.locator("main").inner_text() for sign in "\u202e\u2066\x1b")


@pytest.fixture(scope="module")
def mallory(site: Site) -> int:
    """The person's id."""

    def make() -> int:
        with db.transaction() as session:
            return accounts.register(session, NAME, PASSWORD).id

    made: int = site.use(make)
    return made


@pytest.fixture
def live(site: Site, mallory: int) -> str:
    """The address of a question whose answer comes in pieces that are hostile, cut where it hurts."""

    def prepare() -> tuple[str, int]:
        with db.transaction() as session:
            chat = chats.open_chat(session, session.get_one(User, mallory), checkpoints.by_label(session, "garden@10"))
            turn = chats.open_turn(session, chat, SHORT)
            ticket = session.scalars(select(Ticket).where(Ticket.turn_id == turn.id)).one()
            claim = tickets.claim(session, "test", lanes=[tickets.CHAT], lease_seconds=300)
            assert claim is not None
            assert claim.ticket_id == ticket.id
            return f"/chat/{chat.public_id}", turn.id

    address, turn_id = site.use(prepare)

    def write() -> None:
        events.append(f"turn:{turn_id}", "start", {"attempt": 1})
        for at in range(0, len(HOSTILE), 7):
            events.append(f"turn:{turn_id}", "delta", {"text": HOSTILE[at : at + 7]})

    site.use(write)
    return str(address)


@SIZES
def test_an_answer_that_is_being_written(browser: Browser, site: Site, live: str, size: dict[str, int]) -> None:
    with visit(browser, site, size) as page:
        page.goto(live)
        expect(page.locator(".turn .answer")).to_contain_text("w" * 10_000, timeout=30_000)
        check(page, page.locator(".turn .answer"), size)
        page.get_by_role("button", name="Stop").click()


@pytest.fixture(scope="module")
def notebook(site: Site, mallory: int) -> str:
    """A sheet whose every token is hostile, and what might have stood there too."""

    def prepare() -> str:
        with db.transaction() as session:
            chat = chats.open_chat(session, session.get_one(User, mallory), checkpoints.by_label(session, "garden@10"))
            pieces = [HOSTILE[at : at + 40] for at in range(0, 240, 40)] + [HOSTILE[240:]]
            rest = [["<img src=x onerror=alert(9)>\u202e\x1b[31m", -1.0]]
            fields: dict[str, Any] = {"prompt": SHORT, "answer": HOSTILE, "status": FINISHED, "params": {"logprobs": 2}}
            turn = chats.add_written(session, chat, fields, after=None)
            turn.tokens = [[piece, -0.5, [[piece, -0.5], *rest]] for piece in pieces]
            return f"/chat/notebook/{chat.public_id}"

    made: str = site.use(prepare)
    return made


@SIZES
def test_a_notebook_and_what_else_it_might_have_written(
    browser: Browser, site: Site, notebook: str, size: dict[str, int]
) -> None:
    with visit(browser, site, size) as page:
        page.goto(notebook)
        check(page, page.locator(".sheet .own"), size)
        check(page, page.locator(".sheet .model"), size)
        token = page.locator(".sheet .token").first
        token.scroll_into_view_if_needed()
        page.wait_for_timeout(300)  # scrolling closes what is open
        token.hover()
        tip = page.get_by_role("tooltip")
        expect(tip).to_contain_text("⟨U+202E⟩␛[31m")
        assert tip.locator("img").count() == 0
        box = tip.bounding_box()
        assert box is not None
        assert box["x"] >= 0
        assert box["x"] + box["width"] <= size["width"]


@pytest.fixture(scope="module")
def battles(site: Site, mallory: int) -> dict[str, str]:
    """One to vote on and one that was decided, for a base and for a chat model."""

    def prepare() -> dict[str, str]:
        found = {}
        with db.transaction() as session:
            user = session.get_one(User, mallory)
            for kind in ("pretrained", "chat"):
                run = make_run(session, f"bramble-{kind}")
                pair = [make_checkpoint(session, run, step, kind=kind) for step in (1, 2)]
                for name in ("decided", "open"):
                    group = arena.open_battle(session, user, run, kind, SHORT, {"max_tokens": 16})
                    session.flush()
                    session.expire_all()
                    battle = answer(session, user, arena.get_battle(session, user, group.public_id), [HOSTILE, HOSTILE])
                    if name == "decided":
                        arena.vote(session, user, battle, "left", "10.0.0.9")
                    found[f"{kind} {name}"] = f"/arena/{group.public_id}"
                for one in pair:
                    one.state = RETIRED  # nobody else shall meet them
            session.info.pop("deferred_jobs", None)
        return found

    made: dict[str, str] = site.use(prepare)
    return made


@SIZES
def test_battles(browser: Browser, site: Site, battles: dict[str, str], size: dict[str, int]) -> None:
    with visit(browser, site, size) as page:
        for address in battles.values():
            page.goto(address)
            check(page, page.locator(".battle-asked"), size)
            assert page.locator(".battle-side .answer").count() == 2
            expect(page.locator(".battle-side .answer").last).to_contain_text(SHOWN)
        page.goto("/arena")
        assert page.evaluate("document.documentElement.scrollWidth") <= size["width"]
        assert page.locator("main img").count() == 0


@pytest.fixture(scope="module")
def complaints(site: Site, mallory: int) -> None:
    """A report, a blocked text, a ban and a refused question, all of them hostile."""

    def prepare() -> None:
        with db.transaction() as session:
            user, keeper = session.get_one(User, mallory), accounts.find_users(session, "keeper")[0][0]
            chat = chats.open_chat(session, user, checkpoints.by_label(session, "garden@10"))
            for _ in range(2):
                fields = {"prompt": HOSTILE, "answer": HOSTILE, "status": FINISHED, "params": {"system": HOSTILE[:500]}}
                turn = chats.add_written(session, chat, fields, after=chat.leaf_id)
                session.flush()
                chat.leaf_id = turn.id
            session.expire(chat)
            found = chats.get_turn(session, turn.id)
            reports.report(session, user, found, "other", HOSTILE[:900])
            blocklist.add(session, keeper, HOSTILE[:150], direction="out", note=HOSTILE[:150])
            banned = accounts.register(session, "banned-hostile", PASSWORD)
            bans.ban(session, keeper, banned, HOSTILE[:150])

    site.use(prepare)


@SIZES
@pytest.mark.usefixtures("complaints")
def test_what_administrators_read(browser: Browser, site: Site, size: dict[str, int]) -> None:
    with visit(browser, site, size, "keeper", "keeper of the garden") as page:
        page.goto("/admin/reports")
        case = page.locator(".case").filter(has_text=f"asked by {NAME}")
        for part in (".case-asked", ".reported", ".case-said"):
            check(page, case.locator(part), size)
        for closed in case.locator("details").all():
            closed.locator("summary").click()
            check(page, closed.locator("p"), size)
        page.goto("/admin/blocklist")
        check(page, page.locator(".row").filter(has_text=SHOWN).locator(".pattern"), size)
        page.goto("/admin/people?search=banned-hostile")
        check(page, page.locator(".people .row"), size)
        page.goto("/admin/audit")
        check(page, page.locator(".trail").filter(has_text=SHOWN), size)
    with visit(browser, site, size, "banned-hostile") as page:
        page.goto("/chat")
        expect(page.locator(".banner").filter(has_text="You can ask the models nothing any more")).to_contain_text(
            SHOWN
        )
