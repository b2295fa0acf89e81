"""Every page for everybody: what axe-core finds, in both themes and languages, and the way around with a keyboard."""

from collections.abc import Iterator
from contextlib import closing
from typing import Any, NamedTuple

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page

from registry import accounts, arena, blocklist, chats, checkpoints, db, reports, runs, tickets
from registry.models.base import FINISHED
from tests.browser.conftest import DESKTOP, Site
from tests.registry.arena_battles import answer, open_battle
from tests.server import grouped

pytestmark = pytest.mark.browser

ADMIN, PASSWORD = "admin", "correct horse battery"  # whom the seed registers
PUBLIC = (
    "/",
    "/runs",
    "/runs/demo",
    "/runs/elsewhere",
    "/runs/demo/training",
    "/runs/demo/checkpoints",
    "/runs/demo/checkpoints/1500",
    "/runs/demo/tasks",
    "/runs/demo/tasks/zh_pairs",
    "/runs/demo/tasks/zh_pairs/items/1",
    "/runs/demo/timelapse",
    "/runs/demo/forecast",
    "/runs/demo/lineage",
    "/runs/demo/quantization",
    "/runs/demo/checkpoints/1500/files",
    "/compare?a=demo@500&b=demo@1500",
    "/embed/runs/demo",
    "/evaluations/1",
    "/models",
    "/chat",
    "/arena",
    "/news",
    "/news/1",
    "/login",
    "/register",
    "/docs/api",
    "/about/models",
    "/nothing-here",
)
INSIDE = (
    "/",
    "/arena",
    "/chat",
    "/chat/notebook",
    "/chat/side",
    "/chat/film",
    "/account",
    "/account/api",
    "/admin",
    "/admin/checkpoints",
    "/admin/jobs",
    "/admin/workers",
    "/admin/suites",
    "/admin/limits",
    "/admin/disk",
    "/admin/webhooks",
    "/admin/upload",
    "/admin/uploads",
    "/admin/mirrors",
    "/admin/care",
    "/admin/care/demo?keep_newest=1",
    "/admin/news",
    "/admin/prompts",
    "/admin/reports",
    "/admin/votes",
    "/admin/blocklist",
    "/admin/people",
    "/admin/audit",
    "/runs/demo/checkpoints/1500",
)
SERIOUS = {"resultTypes": ["violations"]}
CONTRAST = {**SERIOUS, "runOnly": {"type": "rule", "values": ["color-contrast"]}}
"""All that another theme can change."""


class Visitors(NamedTuple):
    """A page of somebody passing by, one of the admin, and the admin's conversation, battles and groups."""

    stranger: Page
    admin: Page
    chat: str
    battles: dict[str, str]
    groups: dict[str, str]


@pytest.fixture(scope="session")
def conversation(seeded_site: Site) -> str:
    """The address of a conversation with one answer."""
    return str(seeded_site.use(_talk))


@pytest.fixture(scope="session")
def battles(seeded_site: Site) -> dict[str, str]:
    """The addresses of a battle in line, one to vote on, and one that was decided and looks odd."""
    found: dict[str, str] = seeded_site.use(_battle)
    return found


@pytest.fixture(scope="session")
def groups(seeded_site: Site) -> dict[str, str]:
    """The addresses of columns and films, in line, answered and shared."""
    found: dict[str, str] = seeded_site.use(_group)
    return found


@pytest.fixture(scope="module", params=["en", "zh"])
def visitors(
    request: pytest.FixtureRequest,
    browser: Browser,
    seeded_site: Site,
    conversation: str,
    battles: dict[str, str],
    groups: dict[str, str],
) -> Iterator[Visitors]:
    """Both with that language."""
    cookies = {"theme": "light", "lang": request.param}
    pages = []
    for _ in range(2):
        context = browser.new_context(base_url=seeded_site.address, viewport=DESKTOP, reduced_motion="reduce")
        context.add_cookies([{"name": k, "value": v, "url": seeded_site.address} for k, v in cookies.items()])
        pages.append(context.new_page())
    with closing(pages[0].context), closing(pages[1].context):
        _log_in(pages[1])
        yield Visitors(*pages, conversation, battles, groups)


def faults(page: Page, address: str) -> str:
    """What axe-core calls serious or critical there in either theme, element by element."""
    answer = page.goto(address)
    assert answer is not None
    assert answer.status == (404 if address == "/nothing-here" else 200)
    page.wait_for_timeout(400)  # charts draw themselves, and fragments arrive
    page.wait_for_function("() => !document.querySelector('.htmx-request')")
    light = _violations(page, SERIOUS)
    page.evaluate("document.documentElement.dataset.theme = 'dark'; document.dispatchEvent(new Event('themechange'))")
    return light + _violations(page, CONTRAST)


def _violations(page: Page, options: dict[str, Any]) -> str:
    found = Axe().run(page, options=options).response["violations"]
    return "".join(
        f"{one['id']}: {' '.join(map(str, node['target']))}\n    {node['html'][:200]}\n    {node['failureSummary']}\n"
        for one in found
        if one["impact"] in ("serious", "critical")
        for node in one["nodes"]
    )


@pytest.mark.parametrize("address", PUBLIC)
def test_no_page_shuts_anybody_out(visitors: Visitors, address: str) -> None:
    assert faults(visitors.stranger, address) == ""


@pytest.mark.parametrize("address", INSIDE)
def test_nor_does_what_the_admin_sees(visitors: Visitors, address: str) -> None:
    assert faults(visitors.admin, address) == ""


def test_nor_does_a_conversation(visitors: Visitors) -> None:
    assert faults(visitors.admin, visitors.chat) == ""


@pytest.mark.parametrize("stage", ["in line", "answered", "decided"])
def test_nor_does_a_battle(visitors: Visitors, stage: str) -> None:
    assert faults(visitors.admin, visitors.battles[stage]) == ""


@pytest.mark.parametrize("stage", ["columns in line", "columns", "film in line", "film"])
def test_nor_do_several_ages(visitors: Visitors, stage: str) -> None:
    assert faults(visitors.admin, visitors.groups[stage]) == ""


@pytest.mark.parametrize("stage", ["shared columns", "shared film"])
def test_nor_does_what_of_them_is_shared(visitors: Visitors, stage: str) -> None:
    assert faults(visitors.stranger, visitors.groups[stage]) == ""


@pytest.mark.parametrize("address", ["/", "/runs/demo", "/compare?a=demo@500&b=demo@1500", "/models", "/news"])
def test_the_keyboard_reaches_everything_in_order_and_shows_where_it_is(seeded_page: Page, address: str) -> None:
    seeded_page.goto(address)
    visited = list(_walk(seeded_page, 60))
    assert visited[0]["href"] == "#main"
    menu = seeded_page.eval_on_selector_all("header nav a", "links => links.map((one) => one.getAttribute('href'))")
    assert [stop["href"] for stop in visited if stop["place"] == "nav"] == menu
    assert any(stop["place"] == "main" for stop in visited)
    unseen = [stop["html"] for stop in visited if not stop["marked"]]
    assert not unseen, "these do not show that they have the focus"


def test_the_first_link_leads_past_the_menu(seeded_page: Page) -> None:
    seeded_page.goto("/runs")
    seeded_page.keyboard.press("Tab")
    seeded_page.keyboard.press("Enter")
    seeded_page.keyboard.press("Tab")
    assert seeded_page.evaluate("Boolean(document.activeElement.closest('main'))")


STOP = """() => {
  const at = document.activeElement;
  if (!at || at === document.body) return null;
  const style = getComputedStyle(at);
  const place = at.closest("main") ? "main" : at.closest("header nav") ? "nav" : "";
  const outlined = style.outlineStyle !== "none" && parseFloat(style.outlineWidth) > 0;
  return {
    html: at.outerHTML.slice(0, 200), href: at.getAttribute("href"), place,
    marked: outlined || style.boxShadow !== "none",
  };
}"""


def _walk(page: Page, most: int) -> Iterator[dict[str, str]]:
    """Where Tab stops, until it leaves the page or `most` stops."""
    for _ in range(most):
        page.keyboard.press("Tab")
        stop = page.evaluate(STOP)
        if stop is None:
            return
        yield stop


def _log_in(page: Page) -> None:
    """As `conftest.log_in`, whatever the language of the labels."""
    page.goto("/login")
    page.locator("input[name=name]").fill(ADMIN)
    page.locator("input[name=password]").fill(PASSWORD)
    page.locator("main button[type=submit]").click()
    page.wait_for_url("/")


def _talk() -> str:
    with db.transaction() as session:
        user = accounts.authenticate(session, ADMIN, PASSWORD)
        chat = chats.open_chat(session, user, checkpoints.newest(session)[0])
        turn = chats.open_turn(session, chat, "To be, or not to be")
        session.info.pop("deferred_jobs", None)
        chats.close_turn(session, turn.id, status=FINISHED, answer=", that is the matter.", finish_reason="stop")
        tickets.cancel(session, turn_id=turn.id)
        reports.report(session, user, turn, "wrong", "It is the question.")
        blocklist.add(session, user, "a text that nobody writes")
        return f"/chat/{chat.public_id}"


def _battle() -> dict[str, str]:
    with db.transaction() as session:
        user = accounts.authenticate(session, ADMIN, PASSWORD)
        run = runs.get_run(session, "demo")
        texts = {"in line": None, "answered": ("one thing", "and another"), "decided": ("the same", "the same")}
        found = {}
        for stage, written in texts.items():
            battle = open_battle(session, user, run, f"A battle {stage}")
            if written is not None:
                battle = answer(session, user, battle, written)
            if stage == "decided":
                arena.vote(session, user, battle, "tie", "10.0.0.1")
            found[stage] = f"/arena/{battle.group.public_id}"
        # One that counts, so that there is a rating to show.
        arena.vote(
            session, user, answer(session, user, open_battle(session, user, run, "Once more")), "left", "10.0.0.1"
        )
        session.info.pop("deferred_jobs", None)
        return found


def _group() -> dict[str, str]:
    with db.transaction() as session:
        return grouped.make(session, accounts.authenticate(session, ADMIN, PASSWORD))
