"""The models in a real browser: finding one, copying a program, the table of memory, the card, a phone; and Gradio."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import httpx
import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, expect

from tests.browser.conftest import DESKTOP, PHONE, Site, sound, wait_for
from tests.conftest import ROOT, free_port
from tests.worker.test_chat import chat_folder

pytestmark = pytest.mark.browser
MODEL = "/models/demo/step-1500"


def test_a_reader_finds_a_model_and_copies_its_program(seeded_page: Page) -> None:
    seeded_page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    seeded_page.goto("/models")
    seeded_page.get_by_label("Search").fill("1500")
    rows = seeded_page.locator("table.models tbody tr")
    expect(rows).to_have_count(1)
    assert "q=1500" in seeded_page.url
    rows.get_by_role("link", name="1,500").click()
    seeded_page.wait_for_url(f"**{MODEL}")
    seeded_page.get_by_role("button", name="Copy the program for transformers").click()
    expect(seeded_page.get_by_role("button", name="Copy the program for transformers")).to_have_text("Copied")
    copied = seeded_page.evaluate("navigator.clipboard.readText()")
    assert 'from_pretrained("demo", revision="step-1500")' in copied
    seeded_page.get_by_text("curl", exact=True).click()
    expect(seeded_page.locator("#snippet-curl")).to_be_visible()


def test_the_table_of_memory_changes_without_leaving_the_page(seeded_page: Page) -> None:
    seeded_page.goto(MODEL)
    seeded_page.evaluate("window.stayed = true")
    first = seeded_page.locator("table.hardware strong").last
    before = first.inner_text()
    seeded_page.get_by_label("answers at a time").select_option("64")
    expect(first).not_to_have_text(before)
    seeded_page.get_by_label("on", exact=True).select_option("processor")
    expect(seeded_page.locator("table.hardware")).to_contain_text("RAM 8 GB")
    assert seeded_page.evaluate("window.stayed")
    seeded_page.get_by_text("What the sums are made of").click()
    expect(seeded_page.locator(".sums")).to_contain_text("KV cache")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_in_chinese_on_a_phone_nothing_sticks_out_and_everybody_can_use_it(
    browser: Browser, seeded_site: Site, scheme: str
) -> None:
    options = {"base_url": seeded_site.address, "locale": "zh-CN", "viewport": PHONE, "color_scheme": scheme}
    with closing(browser.new_context(**options)) as context, sound(context) as page:  # type: ignore[arg-type]
        for path in ("/models", MODEL):
            page.goto(path)
            assert page.evaluate("document.documentElement.scrollWidth") == PHONE["width"]
            found = [one for one in Axe().run(page).response["violations"] if one["impact"] in ("serious", "critical")]
            assert [(one["id"], one["nodes"][0]["html"][:200]) for one in found] == []
        expect(page.get_by_role("heading", name="局限性")).to_be_visible()
        page.get_by_role("link", name="English").last.click()
        expect(page.get_by_role("heading", name="Limitations")).to_be_visible()


def test_the_card_is_downloaded_as_markdown(seeded_page: Page) -> None:
    seeded_page.goto(MODEL)
    with seeded_page.expect_download() as waiting:
        seeded_page.get_by_role("link", name="README.md").click()
    text = waiting.value.path().read_text()
    assert text.startswith("---\nlanguage:\n- zh\n- en\n")


@pytest.fixture
def gradio_page(tmp_path: Path) -> Iterator[str]:
    """`grow chat` with a tiny chat model and the scripted engine, as a process of its own."""
    port = free_port()
    command = [sys.executable, "-m", "worker.chat", "--engine", "scripted", "--no-browser", "--port", str(port)]
    environment = {**os.environ, "GROW_HOME": str(tmp_path), "GROW_SCRIPTED_SECONDS": "0.1", "LANG": "en_GB.UTF-8"}
    with (tmp_path / "chat.log").open("wb") as log:
        folder = str(chat_folder(tmp_path / "tiny"))
        process = subprocess.Popen([*command, folder], cwd=ROOT, env=environment, stdout=log, stderr=log)
    try:
        wait_for(lambda: _answers(f"http://127.0.0.1:{port}"), 90, "the page of grow chat", tmp_path)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.kill()
        process.wait()


def test_the_gradio_page_streams_an_answer_as_text_and_asks_nobody_else(browser: Browser, gradio_page: str) -> None:
    elsewhere: list[str] = []
    with closing(browser.new_context(viewport=DESKTOP)) as context:
        page = context.new_page()
        page.on("request", lambda sent: elsewhere.append(sent.url) if gradio_page not in sent.url else None)
        page.goto(gradio_page, wait_until="domcontentloaded")
        box = page.get_by_placeholder("Say something…")
        box.fill("Say <b>this</b>, please, and then a little more")
        box.press("Enter")
        answer = page.locator(".bot.message, .message.bot").last
        expect(answer).to_contain_text("user: Say")
        assert "assistant:" not in answer.inner_text()  # it is still being written
        expect(answer).to_contain_text("<b>this</b>", timeout=30_000)
        expect(answer).to_contain_text("assistant:", timeout=30_000)
    assert [url for url in elsewhere if not url.startswith(("data:", "blob:"))] == []


def _answers(address: str) -> bool:
    try:
        return httpx.get(address, timeout=5).status_code == 200
    except httpx.TransportError:
        return False
