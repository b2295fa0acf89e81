"""Registering, logging in and out, logins and passwords."""

import html

import pytest

from registry import accounts, db
from server import limits
from server.routes.accounts import browser_name
from tests.server.visitors import PASSWORD, Visitor, member

pytestmark = pytest.mark.usefixtures("database")


@pytest.fixture(autouse=True)
def _nothing_counted_yet() -> None:
    limits._memory.reset()


class TestRegister:
    @pytest.mark.parametrize("name", ["mei", "李白", "Ada Lovelace"])
    def test_it_makes_an_account_and_logs_in(self, name: str) -> None:
        visitor = Visitor()
        answer = visitor.post("/register", {"name": name, "password": PASSWORD}, page="/register")
        assert answer.status_code == 303
        assert answer.headers["location"] == "/chat"
        assert name in visitor.get("/account").text

    @pytest.mark.parametrize(
        ("name", "password", "said"),
        [
            ("x", PASSWORD, "2 to 40 characters"),
            ("x" * 41, PASSWORD, "2 to 40 characters"),
            ("<script>", PASSWORD, "letters, digits"),
            ("mei", "too short", "at least 10"),
            ("mei", "x" * 300, "at most 256"),
        ],
    )
    def test_what_cannot_be_used_is_said_beside_the_typed_name(self, name: str, password: str, said: str) -> None:
        answer = Visitor().post("/register", {"name": name, "password": password}, page="/register")
        assert answer.status_code == 422
        assert said in answer.text
        assert f'value="{html.escape(name)}"' in answer.text
        assert password not in answer.text

    def test_a_taken_name_is_a_conflict(self) -> None:
        member("mei")
        answer = Visitor().post("/register", {"name": "Mei", "password": PASSWORD}, page="/register")
        assert answer.status_code == 409
        assert "taken" in answer.text

    def test_the_form_speaks_chinese(self) -> None:
        assert 'lang="zh-CN"' in Visitor("zh-CN,zh;q=0.9").get("/register").text


class TestLogIn:
    def test_it_goes_on_to_where_one_wanted(self) -> None:
        member("mei")
        answer = Visitor().log_in("mei", next="/chat?checkpoint=demo@5")
        assert (answer.status_code, answer.headers["location"]) == (303, "/chat?checkpoint=demo@5")

    def test_it_never_leads_to_another_site(self) -> None:
        member("mei")
        assert Visitor().log_in("mei", next="//evil.example/x").headers["location"] == "/"
        assert 'name="next" value="/"' in Visitor().get("/login?next=https://evil.example").text

    def test_a_wrong_name_and_a_wrong_password_read_alike(self) -> None:
        member("mei")
        wrong_password = Visitor().log_in("mei", "wrong password")
        wrong_name = Visitor().log_in("nobody", PASSWORD)
        assert wrong_password.status_code == wrong_name.status_code == 401
        sentence = "The name or the password is wrong."
        assert sentence in wrong_password.text
        assert sentence in wrong_name.text
        assert 'value="mei"' in wrong_password.text

    def test_the_sixth_wrong_try_must_wait_even_with_the_right_password(self) -> None:
        member("mei")
        for _ in range(5):
            assert Visitor().log_in("mei", "wrong password").status_code == 401
        answer = Visitor().log_in("mei")
        assert answer.status_code == 429
        assert "Wait" in answer.text
        assert int(answer.headers["retry-after"]) <= 60

    def test_an_unknown_name_is_slowed_down_just_the_same(self) -> None:
        answers = [Visitor().log_in("nobody").status_code for _ in range(6)]
        assert answers == [401] * 5 + [429]

    def test_one_address_cannot_try_many_names(self) -> None:
        answers = [Visitor().log_in(f"name{number}").status_code for number in range(26)]
        assert answers == [401] * 25 + [429]

    def test_a_right_password_forgets_the_wrong_ones(self) -> None:
        member("mei")
        for _ in range(4):
            Visitor().log_in("mei", "wrong password")
        assert Visitor().log_in("mei").status_code == 303
        assert Visitor().log_in("mei", "wrong password").status_code == 401

    def test_every_login_has_a_new_token_and_ends_the_one_before(self) -> None:
        visitor = member("mei")
        first = visitor.client.cookies["session"]
        answer = visitor.post("/login", {"name": "mei", "password": PASSWORD}, page="/account")
        assert answer.status_code == 303
        assert visitor.client.cookies["session"] != first
        with db.read_session() as session:
            assert accounts.find_session(session, first) is None


class TestLogOut:
    def test_the_cookie_is_worth_nothing_afterwards(self) -> None:
        visitor = member("mei")
        cookie = visitor.client.cookies["session"]
        assert visitor.post("/logout", {}).status_code == 303
        visitor.client.cookies.set("session", cookie)
        assert visitor.get("/account").status_code == 303


class TestAccount:
    def test_it_lists_logins_and_ends_another_one(self) -> None:
        here = member("mei")
        there = Visitor()
        there.log_in("mei")
        page = here.get("/account").text
        assert page.count('class="row-title"') == 2
        with db.read_session() as session:
            other = accounts.find_session(session, there.client.cookies["session"])
            assert other is not None
        assert here.post(f"/account/logins/{other.id}/revoke", {}).status_code == 303
        assert there.get("/account").status_code == 303
        assert here.get("/account").status_code == 200

    def test_every_other_login_can_be_ended_at_once(self) -> None:
        here = member("mei")
        there = Visitor()
        there.log_in("mei")
        here.post("/account/logins/revoke-others", {})
        assert there.get("/account").status_code == 303
        assert here.get("/account").status_code == 200

    def test_another_persons_login_cannot_be_ended(self) -> None:
        mei, lin = member("mei"), member("lin")
        with db.read_session() as session:
            login = accounts.find_session(session, mei.client.cookies["session"])
            assert login is not None
        assert lin.post(f"/account/logins/{login.id}/revoke", {}).status_code == 404
        assert mei.get("/account").status_code == 200


class TestChangePassword:
    def test_it_ends_every_login_with_the_old_one_but_keeps_this_browser(self) -> None:
        here = member("mei")
        there = Visitor()
        there.log_in("mei")
        answer = here.post("/account/password", {"old": PASSWORD, "new": "another horse battery"})
        assert answer.status_code == 303
        assert here.get("/account").status_code == 200
        assert there.get("/account").status_code == 303
        assert Visitor().log_in("mei").status_code == 401
        assert Visitor().log_in("mei", "another horse battery").status_code == 303

    def test_a_wrong_old_password_changes_nothing(self) -> None:
        here = member("mei")
        answer = here.post("/account/password", {"old": "wrong password", "new": "another horse battery"})
        assert answer.status_code == 401
        assert Visitor().log_in("mei").status_code == 303

    def test_a_short_new_password_is_refused(self) -> None:
        answer = member("mei").post("/account/password", {"old": PASSWORD, "new": "short"})
        assert answer.status_code == 422
        assert "at least 10" in answer.text


@pytest.mark.parametrize(
    ("user_agent", "name"),
    [
        ("Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0", "Firefox, Linux"),
        ("Mozilla/5.0 (Windows NT 10.0) AppleWebKit/537.36 Chrome/120 Safari/537.36 Edg/120", "Edge, Windows"),
        ("Mozilla/5.0 (iPhone; CPU iPhone OS 17 like Mac OS X) Version/17 Safari/604.1", "Safari, iPhone"),
        ("curl/8.5.0", "curl/8.5.0"),
        ("", ""),
    ],
)
def test_browser_name(user_agent: str, name: str) -> None:
    assert browser_name(user_agent) == name
