"""Names, the dry run of a rule and lineages in a real browser."""

import re
import uuid
from contextlib import closing

import pytest
from playwright.sync_api import Browser, Page, expect

from registry import checkpoints, db, evaluations, lineage, runs, suites
from tests.browser.conftest import PHONE, Site, log_in, sound
from tests.factories import finish_evaluation, make_checkpoint, make_run

pytestmark = pytest.mark.browser


@pytest.fixture
def admin(seeded_page: Page) -> Page:
    log_in(seeded_page, "admin", "correct horse battery")
    return seeded_page


def test_a_name_is_given_shown_and_taken_back(admin: Page) -> None:
    admin.goto("/admin/care")
    admin.get_by_role("link", name="demo", exact=True).click()
    admin.get_by_label("Name", exact=True).fill("stable")
    admin.get_by_label("Checkpoint", exact=True).fill("500")
    admin.get_by_role("button", name="Point it there").click()
    expect(admin.locator(".flash[role=status]")).to_contain_text("The name stable points there now.")
    admin.goto("/runs/demo/checkpoints")
    row = admin.locator("#checkpoints tr").filter(has=admin.locator(".pill.alias", has_text="stable"))
    expect(row).to_contain_text("500")
    admin.goto("/chat?checkpoint=demo@stable")
    assert "demo@500" in admin.content()
    admin.goto("/admin/care/demo")
    admin.get_by_role("button", name="Remove stable").click()
    admin.get_by_role("button", name="Undo: back to demo@500").click()
    expect(admin.locator("#names")).to_contain_text("stable demo@500")
    admin.get_by_role("button", name="Remove stable").click()
    expect(admin.locator("#names .pill.alias", has_text="stable")).to_have_count(0)


def _orchard() -> str:
    """A run of its own, from outside so that the front page stays as it is, evaluated, and to which nobody spoke."""
    with db.transaction() as session:
        run = make_run(session, f"orchard-{uuid.uuid4().hex[:6]}", kind="upload")
        for step, score in ((64, 0.5), (128, 0.6), (256, 0.9), (512, 0.8)):
            checkpoint = make_checkpoint(session, run, step)
            for planned in evaluations.plan(session, checkpoint):
                finish_evaluation(session, checkpoint, suites.get_by_id(session, planned.task_id), score)
        session.info.pop("deferred_jobs", None)  # nobody works here
        return run.name


def test_a_dry_run_shows_what_would_go_and_deletes_nothing(admin: Page, seeded_site: Site) -> None:
    run = seeded_site.use(_orchard)
    admin.goto(f"/admin/care/{run}")
    admin.get_by_label("Keep the newest").fill("1")
    admin.get_by_label("Keep milestones").uncheck()
    admin.get_by_role("button", name="Try it").click()
    trial = admin.locator("#dry-run")
    expect(trial).to_contain_text("Tried only: this rule is not saved.")
    assert "csrf" not in admin.url
    expect(trial).to_contain_text("1 checkpoint would lose its files")
    expect(trial.get_by_role("row", name=re.compile(f"{run}@128"))).to_be_visible()
    expect(trial).to_contain_text("among the newest")
    expect(admin.get_by_label("Keep the newest")).to_have_value("1")
    expect(admin.get_by_role("button", name="Delete these files")).to_have_count(0)
    admin.get_by_role("button", name="Save the rule").click()
    expect(admin.locator(".flash[role=status]")).to_contain_text("Nothing was deleted by that.")
    admin.get_by_role("button", name="Delete these files").click()  # without the tick the browser sends nothing
    expect(admin).to_have_url(re.compile("done=saved"))
    admin.get_by_role("button", name="Remove the rule").click()
    expect(admin.locator(".flash[role=status]")).to_contain_text("everything stays")
    admin.goto(f"/runs/{run}/checkpoints/128")
    expect(admin.locator(".status-line")).to_contain_text("ready")


def _derive() -> None:
    with db.transaction() as session:
        demo = runs.get_run(session, "demo")
        average = make_checkpoint(session, demo, 1250, kind="avg2")
        parents = [checkpoints.get_checkpoint(session, demo, step) for step in (1000, 1250)]
        checkpoints.add_parents(session, average, parents, "average")
        tuned = make_checkpoint(session, make_run(session, "tuned", kind="upload"), 10, kind="chat")
        lineage.set_base(session, tuned, "demo@500")


def test_a_lineage_leads_from_one_to_the_next_also_by_keyboard_and_on_a_phone(
    browser: Browser, seeded_site: Site
) -> None:
    seeded_site.use(_derive)
    with (
        closing(browser.new_context(base_url=seeded_site.address, locale="en-GB", viewport=PHONE)) as made,
        sound(made) as page,
    ):
        page.goto("/runs/demo/lineage")
        assert page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]
        box = page.locator(".pedigree a").filter(has_text="tuned@10-chat")
        box.focus()
        page.keyboard.press("Enter")
        expect(page).to_have_url(re.compile(r"/runs/tuned/checkpoints/10\?kind=chat$"))
        page.locator("#lineage .pedigree-list summary").click()
        page.locator("#lineage .pedigree-list").get_by_role("link", name="demo@500").first.click()
        expect(page).to_have_url(re.compile("/runs/demo/checkpoints/500$"))
        page.goto("/runs/demo/checkpoints/1250?kind=avg2")
        expect(page.locator("#lineage .pedigree .here")).to_contain_text("demo@1250-avg2")
        assert page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]
