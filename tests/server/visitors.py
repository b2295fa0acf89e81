"""People with a browser, for tests of pages: they keep cookies and send the token of the form they filled in."""

import re
from functools import lru_cache
from typing import Any

import httpx
from starlette.testclient import TestClient

from registry import accounts, db
from server.app import create_app

PASSWORD = "correct horse battery"
TOKEN = re.compile(r'name="csrf_token" value="([^"]+)"')


application = lru_cache(create_app)
"""One for all tests: whatever differs between them is read from the settings at each request."""


class Visitor:
    """A browser without scripts; pass `htmx=True` for what a script would send."""

    def __init__(self, language: str = "en") -> None:
        self.client = TestClient(application(), base_url="http://testserver", follow_redirects=False)
        self.client.headers.update({"accept": "text/html", "accept-language": language, "user-agent": "Test browser"})

    def get(self, address: str, **headers: str) -> httpx.Response:
        """Open a page."""
        return self.client.get(address, headers=headers)

    def token(self, page: str = "/login") -> str:
        """The token of the forms on a page."""
        found = TOKEN.search(self.get(page).text)
        assert found, f"{page} has no form"
        return found.group(1)

    def post(
        self, address: str, fields: dict[str, Any], *, page: str = "/account", htmx: bool = False, **headers: str
    ) -> httpx.Response:
        """Send a form with the token of `page`."""
        sent = {"csrf_token": self.token(page), **fields}
        if htmx:
            headers["hx-request"] = "true"
        return self.client.post(address, data=sent, headers=headers)

    def log_in(self, name: str, password: str = PASSWORD, **fields: str) -> httpx.Response:
        """Fill in the login form."""
        return self.post("/login", {"name": name, "password": password, **fields}, page="/login")


def member(name: str = "mei", role: str = "member") -> Visitor:
    """A registered person who is logged in."""
    with db.transaction() as session:
        accounts.register(session, name, PASSWORD, role=role)
    visitor = Visitor()
    assert visitor.log_in(name).status_code == 303
    return visitor
