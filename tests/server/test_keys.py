"""The pages of API keys: made and shown once, listed, revoked, what they used, and how to use them."""

import re

import pytest

from registry import calls, db, keys
from registry.models import ApiCall, ApiKey, User
from registry.models.base import FINISHED, utcnow
from registry.settings import get_settings
from tests.factories import make_checkpoint, make_run
from tests.server.visitors import Visitor, member

pytestmark = pytest.mark.usefixtures("database")
PAGE = "/account/api"


def make(visitor: Visitor, name: str = "my script", **fields: object) -> str:
    """Fills in the form and gives the key that the page shows."""
    answer = visitor.post(f"{PAGE}/keys", {"name": name, "scope": ["models", "completions"], **fields}, page=PAGE)
    assert answer.status_code == 200, answer.text
    found = re.search(r'id="new-token">(grow_[\w-]+)<', answer.text)
    assert found
    assert answer.headers["cache-control"] == "no-store"
    return found.group(1)


def use(name: str, prompt_tokens: int, completion_tokens: int) -> None:
    """What answered requests with a person's first key leave behind."""
    with db.transaction() as session:
        user, key = session.query(User).filter_by(name=name).one(), session.query(ApiKey).first()
        assert key is not None
        checkpoint = make_checkpoint(session, make_run(session))
        call = ApiCall(public_id="cmpl-1", user_id=user.id, key_id=key.id, checkpoint=checkpoint, status=FINISHED)
        call.prompt_tokens, call.completion_tokens, call.created_at = prompt_tokens, completion_tokens, utcnow()
        session.add(call)


def test_the_account_page_leads_there() -> None:
    assert f'href="{PAGE}"' in member().get("/account").text


def test_who_is_not_logged_in_is_asked_to() -> None:
    assert Visitor().get(PAGE).headers["location"].startswith("/login")


def test_a_key_is_shown_once_and_works() -> None:
    visitor = member()
    assert "You have no key yet." in visitor.get(PAGE).text
    token = make(visitor, days="30")
    with db.read_session() as session:
        key = keys.find_key(session, token)
        assert key is not None
        assert key.expires_at is not None
    page = visitor.get(PAGE).text
    assert token not in page
    assert token[: keys.SHOWN_CHARS] in page
    assert "my script" in page


@pytest.mark.parametrize(("fields", "sentence"), [({"name": " "}, "has a name of"), ({"scope": []}, "Choose what")])
def test_a_form_that_lacks_something_says_what(fields: dict[str, object], sentence: str) -> None:
    sent = {"name": "mine", "scope": ["models"], **fields}
    answer = member().post(f"{PAGE}/keys", sent, page=PAGE)
    assert answer.status_code == 422
    assert sentence in answer.text
    with db.read_session() as session:
        assert session.query(ApiKey).count() == 0


def test_a_revoked_key_is_gone() -> None:
    visitor = member()
    token = make(visitor)
    with db.read_session() as session:
        [key] = session.query(ApiKey).all()
    assert visitor.post(f"{PAGE}/keys/{key.id}/revoke", {}, page=PAGE).headers["location"] == f"{PAGE}?done=revoked"
    assert "opens nothing any more" in visitor.get(f"{PAGE}?done=revoked").text
    with db.read_session() as session:
        assert keys.find_key(session, token) is None


def test_another_persons_key_stays() -> None:
    token = make(member())
    with db.read_session() as session:
        [key] = session.query(ApiKey).all()
    assert member("bo").post(f"{PAGE}/keys/{key.id}/revoke", {}, page=PAGE).status_code == 404
    with db.read_session() as session:
        assert keys.find_key(session, token) is not None


def test_usage_stands_against_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GROW_API_TOKENS_PER_DAY", "2000")
    get_settings.cache_clear()
    visitor = member()
    assert "Nothing was asked" in visitor.get(PAGE).text
    make(visitor, name="<b>bold</b>")
    use("mei", 1200, 300)
    page = visitor.get(PAGE).text
    assert "of 2,000 tokens today" in page
    assert "width: 75.0%" in page
    assert page.count('<span class="api-bar"') == 30
    assert "1,200" in page
    assert "&lt;b&gt;bold&lt;/b&gt;" in page
    with db.read_session() as session:
        assert calls.today(session, session.query(User).one()).used == 1500


def test_the_documentation_names_this_site_and_one_of_its_checkpoints() -> None:
    with db.transaction() as session:
        make_checkpoint(session, make_run(session), 500)
    page = Visitor().get("/docs/api").text
    assert "http://testserver/v1/chat/completions" in page
    assert "demo@500" in page
    assert "Register for a key" in page
    assert 'href="/account/api"' in member().get("/docs/api").text


def test_without_a_checkpoint_the_documentation_says_so() -> None:
    assert "There is no checkpoint yet" in Visitor().get("/docs/api").text
