"""The ledger by pointer, keyboard, finger and live; and the page of one question."""

import re
from contextlib import closing

import pytest
from playwright.sync_api import Browser, Page, expect

from registry import db, events
from registry.models import Run, Task
from tests.browser.conftest import PHONE, Site
from tests.factories import make_checkpoint
from tests.server import ledgers
from tests.server.ledgers import HISTORIES, NUM_CHECKPOINTS, key

pytestmark = pytest.mark.browser

PAGE = "/runs/grown/tasks/quiz"
ROWS = ("early", "back", "restless", "lost", "steady", "lucky")
"""The questions from top to bottom."""


@pytest.fixture(scope="module", autouse=True)
def _grown(seeded_site: Site) -> None:
    def add() -> None:
        with db.transaction() as session:
            ledgers.make_ledger(session)
            session.info.pop("deferred_jobs", None)  # no worker runs

    seeded_site.use(add)


def open_map(page: Page, address: str = PAGE, columns: int = NUM_CHECKPOINTS, rows: int = len(ROWS)) -> None:
    page.goto(address)
    expect(page.locator("#ledger-map")).to_have_attribute("data-drawn", f"{rows}x{columns}")


def middle_of(page: Page, row: int, column: int, columns: int = NUM_CHECKPOINTS) -> dict[str, float]:
    view = page.locator(".ledger-view")
    view.scroll_into_view_if_needed()
    size = view.evaluate("view => [view.clientWidth, view.clientHeight]")
    return {"x": (column + 0.5) * size[0] / columns, "y": (row + 0.5) * size[1] / len(ROWS)}


def test_every_cell_has_the_colour_of_its_answer(seeded_page: Page) -> None:
    open_map(seeded_page)
    seen = seeded_page.locator(".ledger-view canvas").evaluate(
        """(canvas, [rows, columns]) => {
          const context = canvas.getContext("2d");
          const at = (cell, cells, pixels) => Math.floor((cell + 0.5) * pixels / cells);
          return Array.from({ length: rows }, (_, row) => Array.from({ length: columns }, (_, column) =>
            context.getImageData(at(column, columns, canvas.width), at(row, rows, canvas.height), 1, 1).data.join()));
        }""",
        [len(ROWS), NUM_CHECKPOINTS],
    )
    right, wrong = seen[0][0], seen[-1][-1]
    assert right != wrong
    assert seen == [[right if mark == "✓" else wrong for mark in HISTORIES[name]] for name in ROWS]


def test_the_pointer_reads_a_cell_and_a_click_opens_the_question(seeded_page: Page) -> None:
    open_map(seeded_page)
    view = seeded_page.locator(".ledger-view")
    view.hover(position=middle_of(seeded_page, 3, 7))  # type: ignore[arg-type]
    readout = seeded_page.locator("[data-readout]")
    expect(readout).to_contain_text("wrong · step 700")
    expect(readout).to_contain_text("秦始皇统一了哪些国家？")
    expect(readout).to_contain_text("forgotten")
    view.click(position=middle_of(seeded_page, 3, 7))  # type: ignore[arg-type]
    expect(seeded_page).to_have_url(re.compile(f"/items/{key('lost')}$"))


def test_with_shift_it_opens_the_answers_of_the_checkpoint(seeded_page: Page) -> None:
    open_map(seeded_page)
    seeded_page.locator(".ledger-view").click(position=middle_of(seeded_page, 0, 2), modifiers=["Shift"])  # type: ignore[arg-type]
    expect(seeded_page).to_have_url(re.compile(r"/evaluations/\d+$"))
    expect(seeded_page.locator("main")).to_contain_text("step 200")


def test_the_arrow_keys_move_and_enter_opens(seeded_page: Page) -> None:
    open_map(seeded_page)
    view, readout = seeded_page.locator(".ledger-view"), seeded_page.locator("[data-readout]")
    view.focus()
    for name in ("ArrowRight", "ArrowRight", "ArrowDown"):
        seeded_page.keyboard.press(name)
    expect(readout).to_contain_text("right · step 100")
    seeded_page.keyboard.press("End")
    expect(readout).to_contain_text("step 1,100")
    seeded_page.keyboard.press("PageDown")
    expect(readout).to_contain_text("Who wrote <b>Hamlet</b>?")
    seeded_page.keyboard.press("Enter")
    expect(seeded_page).to_have_url(re.compile(f"/items/{key('lucky')}$"))


def test_zoom_makes_cells_larger_and_the_cell_stays_in_view(seeded_page: Page) -> None:
    open_map(seeded_page, "/runs/demo/tasks/zh_next_line", 12, 120)
    view = seeded_page.locator(".ledger-view")
    view.focus()
    assert view.evaluate("view => view.scrollHeight <= view.clientHeight + 1")
    for _ in range(3):
        seeded_page.keyboard.press("+")
    assert view.evaluate("view => view.scrollHeight > 2 * view.clientHeight")
    for _ in range(12):
        seeded_page.keyboard.press("PageDown")
    assert view.evaluate("view => view.scrollTop > view.clientHeight")
    assert view.locator("canvas").evaluate("canvas => canvas.height <= 1200")
    for _ in range(3):
        seeded_page.keyboard.press("-")
    assert view.evaluate("view => view.scrollHeight <= view.clientHeight + 1")
    expect(seeded_page.get_by_role("button", name="Smaller")).to_be_disabled()


def test_filters_stand_in_the_address_and_change_the_map(seeded_page: Page) -> None:
    open_map(seeded_page)
    seeded_page.get_by_label("Subject").select_option("law")
    expect(seeded_page).to_have_url(re.compile(r"\?subject=law$"))
    expect(seeded_page.locator("#ledger-map")).to_have_attribute("data-drawn", "3x12")
    seeded_page.locator(".state-card.flickering").click()
    expect(seeded_page).to_have_url(re.compile(r"\?state=flickering&subject=law$"))
    expect(seeded_page.locator("#ledger-map")).to_have_attribute("data-drawn", "1x12")
    seeded_page.get_by_role("link", name="Clear the filters").click()
    expect(seeded_page.locator("#ledger-map")).to_have_attribute("data-drawn", "6x12")
    seeded_page.get_by_label("Search").fill("statute")
    seeded_page.keyboard.press("Enter")
    expect(seeded_page).to_have_url(re.compile(r"\?q=statute$"))
    expect(seeded_page.locator(".ledger-table tbody tr")).to_have_count(1)


def test_probabilities_are_another_view(seeded_page: Page) -> None:
    open_map(seeded_page)
    seeded_page.get_by_role("link", name="probability", exact=True).click()
    expect(seeded_page).to_have_url(re.compile(r"\?view=likelihood$"))
    expect(seeded_page.locator("#ledger-map")).to_have_attribute("data-drawn", "6x12")
    seeded_page.locator(".ledger-view").hover(position=middle_of(seeded_page, 0, 0))  # type: ignore[arg-type]
    expect(seeded_page.locator("[data-readout]")).to_contain_text("probability 71.3%")


def test_the_other_theme_repaints_the_map(seeded_page: Page) -> None:
    open_map(seeded_page)
    read = "canvas => [...canvas.getContext('2d').getImageData(3, 3, 1, 1).data].join()"
    canvas = seeded_page.locator(".ledger-view canvas")
    before = canvas.evaluate(read)
    seeded_page.locator("#theme-button").click()
    assert canvas.evaluate(read) != before


def test_a_finger_reads_with_a_tap_and_opens_with_a_link(browser: Browser, seeded_site: Site) -> None:
    with closing(
        browser.new_context(base_url=seeded_site.address, viewport=PHONE, is_mobile=True, has_touch=True)
    ) as made:
        page = made.new_page()
        open_map(page)
        page.locator(".ledger-view").tap(position=middle_of(page, 1, 4))  # type: ignore[arg-type]
        readout = page.locator("[data-readout]")
        expect(readout).to_contain_text("wrong · step 400")
        assert page.url.endswith(PAGE)
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        readout.get_by_role("link", name="Open the question").tap()
        expect(page).to_have_url(re.compile(f"/items/{key('back')}$"))
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


def test_without_scripts_the_table_has_every_question(browser: Browser, seeded_site: Site) -> None:
    with closing(browser.new_context(base_url=seeded_site.address, java_script_enabled=False)) as made:
        page = made.new_page()
        page.goto(PAGE)
        assert "The heat map needs JavaScript" in page.content()
        expect(page.locator(".ledger-table tbody tr")).to_have_count(len(ROWS))
        page.get_by_label("Subject").select_option("history")
        page.get_by_role("button", name="Show").click()
        expect(page.locator(".ledger-table tbody tr")).to_have_count(3)


def test_a_question_shows_its_curves_and_leads_to_its_neighbours(seeded_page: Page) -> None:
    seeded_page.goto(f"{PAGE}/items/{key('early')}")
    expect(seeded_page.locator("[data-item-chart]")).to_have_attribute("data-drawn", str(NUM_CHECKPOINTS))
    expect(seeded_page.locator("[data-item-chart] canvas")).to_be_visible()
    seeded_page.locator("a[rel=next]").click()
    expect(seeded_page).to_have_url(re.compile(f"/items/{key('lucky')}$"))
    seeded_page.get_by_role("link", name="step 1,100").click()
    expect(seeded_page).to_have_url(re.compile(r"/evaluations/\d+$"))
    seeded_page.get_by_role("link", name="Learned and forgotten").click()
    expect(seeded_page).to_have_url(re.compile(f"{PAGE}$"))


def test_a_new_checkpoint_appears_by_itself_and_the_place_is_kept(seeded_page: Page, seeded_site: Site) -> None:
    open_map(seeded_page)
    seeded_page.evaluate("window.notReloaded = true")
    seeded_page.locator(".ledger-view").focus()
    for name in ("ArrowRight", "ArrowDown"):
        seeded_page.keyboard.press(name)

    def add() -> None:
        with db.transaction() as session:
            run, task = (
                session.query(Run).filter_by(name="grown").one(),
                session.query(Task).filter_by(name="quiz").one(),
            )
            checkpoint = make_checkpoint(session, run, 100 * NUM_CHECKPOINTS)
            ledgers.answer(session, checkpoint, task, ledgers.items(), ledgers.rows_at(0))
            place = {"run": "grown", "step": checkpoint.step, "task": "quiz", "checkpoint_id": checkpoint.id}
            session.info.pop("deferred_jobs", None)
        events.publish_board("evaluation", place)

    seeded_site.use(add)
    expect(seeded_page.locator("#ledger-map")).to_have_attribute("data-drawn", f"6x{NUM_CHECKPOINTS + 1}")
    seeded_page.locator(".ledger-view").focus()
    seeded_page.keyboard.press("ArrowRight")
    expect(seeded_page.locator("[data-readout]")).to_contain_text("step 100")
    assert seeded_page.evaluate("window.notReloaded") is True
