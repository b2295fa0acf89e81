"""Cookies, and which doors open to whom."""

from pathlib import Path

import pytest

from registry.settings import get_settings
from server.auth import own_path
from tests.server.visitors import PASSWORD, Visitor, member


class TestOwnPath:
    @pytest.mark.parametrize("address", ["/", "/chat?checkpoint=demo@5", "/runs/demo", "/chat?next=//x"])
    def test_a_path_of_this_site_is_kept(self, address: str) -> None:
        assert own_path(address) == address

    @pytest.mark.parametrize(
        "address",
        ["https://evil.example", "//evil.example", "/\\evil.example", "evil", "", "javascript:alert(1)", "/a\nb"],
    )
    def test_anything_else_is_not(self, address: str) -> None:
        assert own_path(address) == "/"


@pytest.mark.usefixtures("database")
class TestCookie:
    def test_it_is_closed_to_scripts_and_to_other_sites(self) -> None:
        cookie = _login_cookie()
        assert "HttpOnly" in cookie
        assert "SameSite=lax" in cookie
        assert "Secure" not in cookie

    def test_it_is_secure_where_the_setting_says_so(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("GROW_SECURE_COOKIES", "1")
        get_settings.cache_clear()
        visitor = Visitor()
        visitor.client.base_url = "https://testserver"
        answer = visitor.post("/register", {"name": "mei", "password": PASSWORD}, page="/register")
        assert "Secure" in answer.headers["set-cookie"]

    def test_a_made_up_one_is_nobody(self) -> None:
        visitor = Visitor()
        visitor.client.cookies.set("session", "made-up")
        assert visitor.get("/account").status_code == 303


@pytest.mark.usefixtures("database")
class TestDoors:
    def test_a_page_leads_to_the_login_and_back(self) -> None:
        answer = Visitor().get("/chat/some-chat?x=1")
        assert answer.status_code == 303
        assert answer.headers["location"] == "/login?next=/chat/some-chat%3Fx%3D1"

    def test_a_script_gets_401(self) -> None:
        assert Visitor().get("/chat/turns/1", **{"hx-request": "true"}).status_code == 401
        assert Visitor().get("/chat/turns/1", accept="application/json").status_code == 401

    @pytest.mark.parametrize("address", ["/admin", "/admin/news", "/admin/upload", "/admin/uploads/1"])
    def test_administration_is_for_administrators(self, address: str) -> None:
        assert Visitor().get(address).status_code == 303
        assert member().get(address).status_code == 403


def _login_cookie() -> str:
    answer = Visitor().post("/register", {"name": "mei", "password": PASSWORD}, page="/register")
    [cookie] = [value for value in answer.headers.get_list("set-cookie") if value.startswith("session=")]
    return cookie


def test_the_key_is_kept_between_processes(grow_home: Path) -> None:
    first = get_settings().secret
    get_settings.cache_clear()
    assert get_settings().secret == first
