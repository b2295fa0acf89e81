"""Text that would act on the page, wherever a conversation shows text: it is read, and does nothing."""

from typing import Any

import pytest
from playwright.sync_api import Page

from registry import accounts, chats, checkpoints, conversations, db
from registry.models.base import FINISHED
from tests.browser.conftest import DESKTOP, PHONE, Site, log_in
from tests.factories import make_checkpoint

pytestmark = pytest.mark.browser

PASSWORD = "watching grass grow"
HOSTILE = (
    "<script>alert(1)</script><img src=x onerror=alert(2)>\x1b[31m\u202eexe.gpj\u2066 "
    "$\\text{<img src=x onerror=alert(3)>}$ [x](javascript:alert(4))\n\n|" + "c|" * 60 + "\n|" + "-|" * 60 + "\n\n"
    "```python\n" + "x" * 3_000 + "</code><script>alert(5)</script>\n```\n\n$$" + "x+" * 300 + "y$$\n\n" + "w" * 10_000
)


@pytest.fixture(scope="module")
def told(site: Site) -> dict[str, str]:
    """A conversation with a base model and one with a chat model, both hostile; their addresses, the shared one too."""

    def prepare() -> dict[str, str]:
        with db.transaction() as session:
            user = accounts.register(session, "mallory", PASSWORD)
            base = checkpoints.newest(session)[0]
            chat_model = make_checkpoint(session, base.run, base.step, kind="chat")
            addresses: dict[str, str] = {}
            for name, checkpoint in (("base", base), ("chat", chat_model)):
                chat = chats.open_chat(session, user, checkpoint)
                chat.title = HOSTILE[:110]
                fields: dict[str, Any] = {"prompt": HOSTILE, "answer": HOSTILE, "status": FINISHED}
                chats.add_written(session, chat, fields, after=None)
                session.flush()
                session.expire(chat)
                whole = chats.get_chat(session, user, chat.public_id)
                addresses[name] = f"/chat/{chat.public_id}"
                addresses[f"{name} shared"] = f"/shared/{conversations.share(session, whole)}"
            chat_model.state = "retired"  # the tests beside this one ask the base model
        return addresses

    made: dict[str, str] = site.use(prepare)
    return made


@pytest.mark.parametrize("size", [PHONE, DESKTOP], ids=["phone", "desktop"])
def test_it_renders_harmlessly_and_within_the_screen(page: Page, told: dict[str, str], size: dict[str, int]) -> None:
    dialogs: list[str] = []
    page.on("dialog", lambda dialog: (dialogs.append(dialog.message), dialog.dismiss()))
    page.set_viewport_size({"width": size["width"], "height": size["height"]})
    log_in(page, "mallory", PASSWORD)
    for name, address in told.items():
        page.goto(address)
        page.wait_for_timeout(200)
        assert page.locator(".turn").count() == 1, name
        assert page.evaluate("document.documentElement.scrollWidth") <= size["width"], name
        assert page.locator("main img, main script").count() == 0, name
        assert page.locator("main a[href^='javascript']").count() == 0, name
        assert "␛[31m⟨U+202E⟩exe.gpj" in page.locator(".turn .prompt").inner_text(), name
    assert dialogs == []
