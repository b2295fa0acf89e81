"""New results and uploads show themselves, without loading a page again."""

from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from tests.browser.conftest import Site, log_in
from tests.browser.tiny import write_folder, write_zip

pytestmark = pytest.mark.browser


def upload(page: Page, file: Path, run: str, step: int) -> None:
    """Through the form, with its progress bar."""
    page.goto("/admin/upload")
    page.get_by_label("Name of a new run").fill(run)
    page.get_by_label("Step", exact=True).fill(str(step))
    page.get_by_label("Tokens seen").fill("4096")
    page.get_by_label("A zip, or the files").set_input_files(file)
    page.get_by_role("button", name="Upload and verify").click()


def test_a_new_result_appears_on_the_open_page(page: Page, site: Site) -> None:
    site.push("meadow", 1, seed=1)
    chart = page.locator("#chart-starter_pairs_en")
    for _ in range(60):
        page.goto("/runs/meadow")
        if chart.count() and chart.get_attribute("data-drawn") == "1":
            break
        page.wait_for_timeout(1000)
    page.evaluate("window.notReloaded = true")
    site.push("meadow", 2, seed=2)
    expect(chart).to_have_attribute("data-drawn", "2", timeout=60_000)
    assert page.evaluate("window.notReloaded") is True


def test_an_uploaded_zip_is_verified_and_becomes_ready(page: Page, site: Site, tmp_path: Path) -> None:
    packed = write_zip(tmp_path / "tiny.zip", write_folder(tmp_path / "tiny"))
    log_in(page)
    upload(page, packed, "from-browser", 7)
    expect(page.get_by_role("heading", name="from-browser@7")).to_be_visible()
    expect(page.locator("#uploaded")).to_have_attribute("data-state", "ready", timeout=60_000)
    expect(page.locator("#uploaded")).to_contain_text("2 of 2 evaluations are done", timeout=60_000)

    upload(page, packed, "from-browser", 7)
    expect(page.get_by_role("alert")).to_contain_text("has a checkpoint at step 7 already")


def test_an_upload_with_nan_weights_is_rejected_with_the_reason(page: Page, site: Site, tmp_path: Path) -> None:
    packed = write_zip(tmp_path / "nan.zip", write_folder(tmp_path / "nan", nan=True))
    log_in(page)
    upload(page, packed, "not-a-number", 1)
    expect(page.locator("#uploaded")).to_have_attribute("data-state", "rejected", timeout=60_000)
    expect(page.locator("#uploaded")).to_contain_text("NaN")


def test_pickle_files_are_refused_at_once(page: Page, site: Site, tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "bad")
    (folder / "pytorch_model.bin").write_bytes(b"x")
    log_in(page)
    upload(page, write_zip(tmp_path / "bad.zip", folder), "bad", 1)
    expect(page.get_by_role("alert")).to_contain_text("can run code")
    expect(page.get_by_label("Name of a new run")).to_have_value("bad")
    assert list((site.home / "uploads").iterdir()) == []
