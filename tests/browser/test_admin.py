"""The console in a browser: every page at a desk and on a phone, and what administrators do most, to its effect."""

import datetime as dt
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from registry import db, joblog, webhooks
from registry.models import Checkpoint, User
from registry.models.base import utcnow
from registry.settings import get_settings
from tests.browser.conftest import DESKTOP, PHONE, Site, log_in, sound
from tests.conftest import ROOT, free_port
from worker.webhooks import deliver

pytestmark = pytest.mark.browser

PAGES = (
    "",
    "/checkpoints",
    "/jobs",
    "/workers",
    "/suites",
    "/news",
    "/limits",
    "/disk",
    "/webhooks",
    "/people",
    "/audit",
)
ADMIN, PASSWORD = "admin", "correct horse battery"


@pytest.fixture
def keeper(browser: Browser, seeded_site: Site) -> Iterator[Page]:
    """An administrator before a site full of rows, without a worker."""
    with (
        closing(browser.new_context(base_url=seeded_site.address, locale="en-GB", viewport=DESKTOP)) as own,
        sound(own) as page,
    ):
        log_in(page, ADMIN, PASSWORD)
        yield page


def test_every_page_fits_a_desk_and_a_phone_and_leads_to_the_others(keeper: Page) -> None:
    for size in (DESKTOP, PHONE):
        keeper.set_viewport_size(size)
        for address in PAGES:
            keeper.goto(f"/admin{address}", wait_until="domcontentloaded")
            expect(keeper.locator("main h1")).to_be_visible()
            wide = keeper.evaluate("document.documentElement.scrollWidth")
            assert wide <= size["width"], f"{address} scrolls sideways: {wide}"
            tabs = keeper.get_by_role("navigation", name="Administration")
            for group in ("Overview", "Models", "Work", "People", "Site"):
                expect(tabs.get_by_role("link", name=group, exact=True).first).to_be_in_viewport()


def test_checkpoints_are_chosen_and_released_and_a_rejected_one_is_deleted_after_a_question(keeper: Page) -> None:
    keeper.goto("/admin/checkpoints?state=ready&run=demo")
    do = keeper.get_by_role("button", name="Do it")
    expect(do).to_be_disabled()
    keeper.get_by_label("Choose demo@1500", exact=True).check()
    keeper.get_by_label("Choose demo@1250", exact=True).check()
    expect(keeper.get_by_text("2 chosen")).to_be_visible()
    keeper.get_by_label("With the chosen ones").select_option("release")
    do.click()
    expect(keeper.get_by_role("status").filter(has_text="done with 2 checkpoints")).to_be_visible()
    expect(keeper.locator("tr").filter(has_text="demo@1500").get_by_text("released", exact=True)).to_be_visible()

    keeper.goto("/admin/checkpoints?state=rejected")
    row = keeper.locator("tbody tr").first
    name = row.locator("th a").inner_text()
    row.get_by_role("checkbox").check()
    keeper.get_by_label("With the chosen ones").select_option("delete")
    do.click()
    expect(keeper.get_by_role("heading", name="Delete for good?")).to_be_visible()
    keeper.get_by_role("button", name="Delete 1 checkpoint").click()
    expect(keeper.get_by_role("status").filter(has_text="done with 1 checkpoint")).to_be_visible()
    expect(keeper.locator("main")).not_to_contain_text(name)
    keeper.goto("/admin/audit")
    for deed in ("Checkpoint released", "Rejected checkpoint deleted"):
        expect(keeper.locator(".trail")).to_contain_text(deed)


def test_a_job_is_watched_live_and_cancelled(keeper: Page, seeded_site: Site) -> None:
    def plan() -> tuple[int, int]:
        with db.transaction() as session:
            checkpoint = session.query(Checkpoint).filter_by(state="ready").order_by(Checkpoint.id).first()
            job = joblog.plan(
                session, joblog.AVERAGE, checkpoint=checkpoint, args={"last": 3, "until": checkpoint.step}
            )
            return job.id, joblog.claim(session, job.id, "desk:1") or 0

    def report(fence: int, job_id: int) -> None:
        with db.transaction() as session:
            joblog.report(session, job_id, fence, progress=0.6, line="Two of three are read.")

    job_id, fence = seeded_site.use(plan)
    keeper.goto("/admin/jobs")
    keeper.locator("tr").filter(has_text="desk:1").get_by_role("link").first.click()
    expect(keeper.locator("#job")).to_contain_text("0%")
    seeded_site.use(lambda: report(fence, job_id))
    # By itself: at once where the page listens already, else with its next look, which it takes every five seconds.
    expect(keeper.locator("#job")).to_contain_text("Two of three are read.", timeout=15_000)
    expect(keeper.locator("#job")).to_contain_text("60%")
    keeper.get_by_role("button", name="Cancel the job").click()
    expect(keeper.locator("#job")).to_contain_text("is being cancelled")


def test_a_role_and_a_limit_are_changed(keeper: Page, seeded_site: Site) -> None:
    def register() -> None:
        with db.transaction() as session:
            session.add(User(name="lab of leo", name_key="lab of leo", password_hash="none"))

    seeded_site.use(register)
    keeper.goto("/admin/people?search=leo")
    keeper.get_by_label("Role of lab of leo", exact=True).select_option("publisher")
    keeper.get_by_role("button", name="Change the role of lab of leo").click()
    expect(keeper.get_by_role("status").filter(has_text="The role is changed.")).to_be_visible()
    keeper.goto("/admin/people?search=admin")
    keeper.get_by_label("Role of admin", exact=True).select_option("member")
    keeper.get_by_role("button", name="Change the role of admin").click()
    expect(keeper.get_by_role("alert")).to_contain_text("last administrator")

    keeper.goto("/admin/limits")
    field = keeper.get_by_label("Checkpoints that one film asks at most", exact=True)
    field.fill("one")
    field.press("Enter")
    expect(keeper.get_by_role("alert")).to_contain_text("whole number from 2")
    field.fill("12")
    field.press("Enter")
    expect(keeper.get_by_role("status").filter(has_text="It holds now.")).to_be_visible()
    expect(keeper.locator("#film_frames")).to_contain_text("Now 12 · default 40")
    keeper.locator("#film_frames").get_by_role("button", name="Back to the default").click()
    expect(keeper.locator("#film_frames")).to_contain_text("Now 40")


def test_a_post_is_previewed_and_planned_and_an_incident_is_on_every_page_until_it_is_over(keeper: Page) -> None:
    keeper.goto("/admin/news")
    keeper.get_by_label("Title").fill("A chat model on Saturday")
    keeper.get_by_label("Text, in Markdown").fill("**Soon**")
    keeper.get_by_role("button", name="Preview").click()
    expect(keeper.locator("#preview strong")).to_have_text("Soon")
    at = (utcnow() + dt.timedelta(days=2)).strftime("%Y-%m-%dT%H:%M")
    keeper.get_by_label("Publish at (UTC)").fill(at)
    keeper.get_by_role("button", name="Publish", exact=True).click()
    expect(keeper.get_by_role("status").filter(has_text="it appears by itself")).to_be_visible()
    keeper.goto("/news")
    expect(keeper.locator("main")).not_to_contain_text("A chat model on Saturday")

    keeper.goto("/admin/news")
    keeper.get_by_label("Title").fill("The second disk failed")
    keeper.get_by_label("Kind").select_option("incident")
    keeper.get_by_label("An incident that goes on").check()
    keeper.get_by_role("button", name="Publish", exact=True).click()
    keeper.goto("/models")
    expect(keeper.locator(".banner").filter(has_text="The second disk failed")).to_be_visible()
    keeper.goto("/admin/news")
    keeper.get_by_role("button", name="It is over: The second disk failed").click()
    expect(keeper.locator(".banner").filter(has_text="The second disk failed")).to_have_count(0)


def test_a_webhook_is_added_its_secret_shown_once_and_its_delivery_seen(
    keeper: Page, seeded_site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The web server refuses this machine's own address; the worker that sends, here this process, may go there."""
    port, received = free_port(), tmp_path / "received.jsonl"
    receiver = subprocess.Popen(
        [sys.executable, str(ROOT / "tests/worker/receiver.py"), str(port), str(received)], stdout=subprocess.PIPE
    )
    try:
        assert receiver.stdout is not None
        assert receiver.stdout.readline() == b"ready\n"
        keeper.goto("/admin/webhooks")
        keeper.get_by_label("Name").fill("Ops")
        keeper.get_by_label("Address").fill(f"https://127.0.0.1:{port}/ok")
        keeper.get_by_role("button", name="Add", exact=True).click()
        expect(keeper.get_by_role("alert")).to_contain_text("private network")
        keeper.get_by_label("Address").fill("https://hooks.example.com/ok")
        keeper.get_by_role("button", name="Add", exact=True).click()
        secret = keeper.locator("#secret-text").inner_text()
        assert len(secret) > 30
        keeper.goto("/admin/webhooks")
        keeper.get_by_role("link", name="Ops").click()
        expect(keeper.locator("main")).not_to_contain_text(secret)
        keeper.get_by_role("button", name="Send a test").click()
        expect(keeper.locator("#log")).to_contain_text("queued")

        def send() -> None:
            monkeypatch.setenv("GROW_WEBHOOK_PRIVATE_ADDRESSES", "true")
            get_settings.cache_clear()
            with db.transaction() as session:
                [webhook] = webhooks.list_webhooks(session)
                webhook.sealed_url = webhooks.sealing.seal(f"http://127.0.0.1:{port}/ok")
            deliver(webhook.id)

        seeded_site.use(send)
        expect(keeper.locator("#log")).to_contain_text("finished")  # by itself
        assert "x-grow-signature-256" in received.read_text()
        keeper.locator("#log").get_by_text("Its answer").click()
        expect(keeper.locator("#log .answer")).to_have_text("ok")
        keeper.get_by_text("Delete this webhook").click()
        keeper.get_by_role("button", name="Delete it").click()
        expect(keeper.get_by_role("status").filter(has_text="Deleted.")).to_be_visible()
    finally:
        receiver.terminate()
        receiver.wait(timeout=10)
        receiver.stdout and receiver.stdout.close()
