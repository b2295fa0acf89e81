"""Takes the pictures of the user guide from a running site, with the browser of the tests.

`.venv/bin/python docs/pictures/take.py http://127.0.0.1:8000 admin PASSWORD RUN`
"""

import sys
from pathlib import Path

from playwright.sync_api import Browser, Page, sync_playwright

HERE = Path(__file__).parent
CHROMIUM = "/usr/bin/chromium"
ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"]
PROMPTS = {"en": "To be, or not to be", "zh": "第一条　为了"}


def main(address: str, name: str, password: str, run: str) -> None:
    """Every picture in both languages."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        for language, suffix in (("en", ""), ("zh", ".zh")):
            _take(_logged_in(browser, address, language, name, password), address, run, language, suffix)
        browser.close()


def _logged_in(browser: Browser, address: str, language: str, name: str, password: str) -> Page:
    locale = "zh-CN" if language == "zh" else "en-US"
    page = browser.new_context(viewport={"width": 1280, "height": 860}, locale=locale).new_page()
    page.goto(f"{address}/login")
    page.fill("input[name=name]", name)
    page.fill("input[name=password]", password)
    page.press("input[name=password]", "Enter")
    page.wait_for_url(f"{address}/")
    return page


def _take(page: Page, address: str, run: str, language: str, suffix: str) -> None:
    steps = page.request.get(f"{address}/api/v1/runs/{run}/checkpoints").json()
    newest = max(c["step"] for c in steps if c["state"] == "ready")
    whole = [c for c in steps if c["state"] == "ready" and c["step"] < newest][-1]["step"]
    for picture, path in (
        ("home", "/"),
        ("run", f"/runs/{run}"),
        ("checkpoint", f"/runs/{run}/checkpoints/{whole}"),
        ("admin", "/admin"),
    ):
        page.goto(address + path)
        page.wait_for_timeout(2500)
        page.screenshot(path=HERE / f"{picture}{suffix}.png")
    page.goto(f"{address}/chat?checkpoint={run}@{newest}")
    page.fill("textarea", PROMPTS[language])
    page.press("textarea", "Enter")
    page.wait_for_selector(".turn [data-copy]", timeout=120_000)
    page.wait_for_timeout(1000)
    page.screenshot(path=HERE / f"chat{suffix}.png")


if __name__ == "__main__":
    main(*sys.argv[1:5])
