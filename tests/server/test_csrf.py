"""Forms that other sites or other browsers sent are refused."""

from pathlib import Path

import pytest

from tests.server.visitors import PASSWORD, Visitor, member

pytestmark = pytest.mark.usefixtures("database")


def test_a_form_without_token_is_refused() -> None:
    answer = Visitor().client.post("/login", data={"name": "mei", "password": PASSWORD})
    assert answer.status_code == 403
    assert "expired" in answer.text


def test_a_token_of_another_browser_is_refused() -> None:
    foreign = Visitor().token("/login")
    visitor = Visitor()
    visitor.get("/login")
    answer = visitor.client.post("/login", data={"name": "mei", "password": PASSWORD, "csrf_token": foreign})
    assert answer.status_code == 403


def test_a_token_from_before_the_login_is_refused_after_it() -> None:
    visitor = Visitor()
    before = visitor.token("/login")
    visitor.post("/register", {"name": "mei", "password": PASSWORD}, page="/register")
    answer = visitor.client.post("/logout", data={"csrf_token": before})
    assert answer.status_code == 403
    assert visitor.get("/account").status_code == 200


def test_a_changed_token_is_refused(database: Path) -> None:
    visitor = member()
    token = visitor.token("/account")
    changed = ("x" if token[0] != "x" else "y") + token[1:]
    assert visitor.client.post("/logout", data={"csrf_token": changed}).status_code == 403


@pytest.mark.parametrize(
    "headers",
    [
        {"origin": "http://evil.example"},
        {"origin": "null"},
        {"sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "same-site"},
    ],
)
def test_another_site_is_refused_even_with_a_token(headers: dict[str, str]) -> None:
    answer = member().post("/logout", {}, **headers)
    assert answer.status_code == 403
    assert "another site" in answer.text


def test_the_site_itself_passes() -> None:
    answer = member().post("/logout", {}, **{"origin": "http://testserver", "sec-fetch-site": "same-origin"})
    assert answer.status_code == 303


def test_the_token_may_come_as_a_header() -> None:
    visitor = member()
    answer = visitor.client.post("/logout", headers={"x-csrf-token": visitor.token("/account"), "content-length": "0"})
    assert answer.status_code == 303


def test_more_text_than_any_form_takes_is_refused_before_it_is_read() -> None:
    visitor = member()
    answer = visitor.client.post("/logout", data={"csrf_token": visitor.token("/account"), "x": "y" * 1_100_000})
    assert answer.status_code == 413


def test_a_request_of_unknown_length_is_refused() -> None:
    visitor = member()
    token = visitor.token("/account")
    answer = visitor.client.post("/logout", content=iter([b"csrf_token=" + token.encode()]))
    assert answer.status_code == 411
