"""Takes the pictures of the user guide from a running site, with the browser of the tests.

`.venv/bin/python docs/pictures/take.py http://127.0.0.1:8000 admin PASSWORD RUN [playground|registry]`; the last word
takes the pages of that part alone.
"""

import re
import sys
from pathlib import Path

from playwright.sync_api import Browser, Page, sync_playwright

HERE = Path(__file__).parent
CHROMIUM = "/usr/bin/chromium"
ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"]
ANSWERED_MS = 20_000
PROMPTS = {"en": "To be, or not to be", "zh": "第一条　为了"}


def main(address: str, name: str, password: str, run: str, part: str = "") -> None:
    """Every picture in both languages, or those of a part."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        for language, suffix in (("en", ""), ("zh", ".zh")):
            take = {"playground": _take_playground, "registry": _take_registry}.get(part, _take)
            take(_logged_in(browser, address, language, name, password), address, run, language, suffix)
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
    whole = [c for c in steps if c["state"] == "ready" and c["step"] < newest][-1]
    for picture, path in (
        ("home", "/"),
        ("run", f"/runs/{run}"),
        ("checkpoint", f"/runs/{run}/checkpoints/{whole['step']}"),
        ("evaluation", _evaluation(page, address, whole["id"])),
        ("large", f"/runs/{run}?tasks={_choice_task(page, address, whole['id'])}#focus"),
        ("ledger", f"/runs/{run}/tasks/{_choice_task(page, address, whole['id'])}"),
        ("timelapse", f"/runs/{run}/timelapse"),
        ("compare", f"/compare?a={run}@{steps[0]['step']}&b={run}@{whole['step']}"),
        ("tasks", f"/runs/{run}/tasks"),
        ("training", f"/runs/{run}/training"),
        ("forecast", f"/runs/{run}/forecast"),
        ("admin", "/admin"),
    ):
        page.goto(address + path)
        page.wait_for_timeout(2500)
        page.screenshot(path=HERE / f"{picture}{suffix}.png")
    _take_registry(page, address, run, language, suffix)
    _take_playground(page, address, run, language, suffix)
    page.goto(f"{address}/chat?checkpoint={run}@{newest}")
    page.fill("textarea", PROMPTS[language])
    page.press("textarea", "Enter")
    page.wait_for_selector(".turn [data-copy]", timeout=120_000)
    page.wait_for_timeout(1000)
    page.screenshot(path=HERE / f"chat{suffix}.png")


def _take_registry(page: Page, address: str, run: str, _language: str, suffix: str) -> None:
    """Models, their memory and descent, what quantizing costs, an upload's form, and what administrators care for."""
    known = page.request.get(f"{address}/api/v1/runs/{run}/checkpoints").json()
    released = max(c["step"] for c in known if c["state"] == "ready" and c["is_milestone"])
    for picture, path in (
        ("models", "/models"),
        ("model", f"/models/{run}/step-{released}"),
        ("memory", f"/models/{run}/step-{released}#hardware"),
        ("quantization", f"/runs/{run}/quantization"),
        ("lineage", f"/runs/{run}/lineage"),
        ("upload", "/admin/upload"),
        ("care", f"/admin/care/{run}?keep_newest=2&keep_best=1&keep_milestones=true#dry-run"),
        ("jobs", "/admin/jobs"),
        ("disk", "/admin/disk"),
    ):
        page.goto(address + path)
        page.wait_for_timeout(2500)
        page.screenshot(path=HERE / f"{picture}{suffix}.png")


def _take_playground(page: Page, address: str, run: str, language: str, suffix: str) -> None:
    """Columns, a film, a notebook's probabilities, a battle and the keys, with answers of the model that runs there."""
    prompt = PROMPTS[language]
    for picture, path, box, send in (
        ("side", "/chat/side", "#prompt", ".ages-new button[type=submit]"),
        ("film", f"/chat/film?run={run}", "#prompt", ".ages-new button[type=submit]"),
        ("notebook", "/chat/notebook", "#prompt", "[data-continue]"),
        ("arena", f"/arena?pool={run}", "#arena-prompt", "main form button[type=submit]"),
    ):
        page.goto(address + path)
        page.fill(box, prompt)
        page.locator(send).last.click()
        page.wait_for_timeout(ANSWERED_MS)
        if picture == "notebook":
            page.locator(".token").filter(has_text=re.compile(r"\w\w")).first.hover()
        page.screenshot(path=HERE / f"{picture}{suffix}.png")
    page.goto(f"{address}/account/api")
    page.screenshot(path=HERE / f"api{suffix}.png")


def _choice_task(page: Page, address: str, checkpoint_id: int) -> str:
    """A task with right and wrong answers."""
    found = page.request.get(f"{address}/api/v1/checkpoints/{checkpoint_id}/evaluations").json()
    return str(next(one["task"] for one in found if one["metric"].startswith("acc") and one["status"] == "finished"))


def _evaluation(page: Page, address: str, checkpoint_id: int) -> str:
    """Address of an evaluation that has choices to show and a change to tell of."""
    found = page.request.get(f"{address}/api/v1/checkpoints/{checkpoint_id}/evaluations").json()
    told = [one for one in found if one["change"] and one["metric"].startswith("acc")]
    return f"/evaluations/{told[0]['id']}"


if __name__ == "__main__":
    main(*sys.argv[1:6])
