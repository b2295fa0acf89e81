"""The notebook: a text that a base model goes on with, taken back, gone on with another way."""

import math

import pytest

from registry import chats, db, tickets
from registry.models.base import FINISHED
from server import limits
from tests.factories import make_checkpoint, make_run
from tests.server.test_chats import last_turn
from tests.server.visitors import Visitor, member

pytestmark = pytest.mark.usefixtures("database")


@pytest.fixture(autouse=True)
def _checkpoints(database: object) -> None:
    limits._memory.reset()
    with db.transaction() as session:
        run = make_run(session)
        make_checkpoint(session, run, 500)
        make_checkpoint(session, run, 500, kind="chat")


def write(visitor: Visitor, text: str, address: str = "/chat/notebook") -> str:
    """Lets the model go on with the text; the notebook's address."""
    answer = visitor.post(address, {"prompt": text, "checkpoint": "demo@500"}, page="/chat/notebook")
    assert answer.status_code == 303, answer.text
    return str(answer.headers["location"])


def answer_with(tokens: list[tuple[str, float]]) -> None:
    """What a worker leaves of the newest turn."""
    turn = last_turn()
    rows = [[text, math.log(p), [[text, math.log(p)], ["<x>", math.log(0.01)]]] for text, p in tokens]
    with db.transaction() as session:
        claim = tickets.claim(session, "worker")
        assert claim is not None
        chats.start_turn(session, turn.id)
        tickets.finish(session, claim.ticket_id, claim.fence)
        text = "".join(text for text, _ in tokens)
        chats.close_turn(session, turn.id, status=FINISHED, answer=text, finish_reason="length", tokens=rows)


def test_the_whole_text_is_the_prompt_and_probabilities_are_asked_for() -> None:
    visitor = member()
    address = write(visitor, "To be,\r\n or")
    assert (last_turn().prompt, last_turn().params["logprobs"]) == ("To be,\n or", 5)
    answer_with([(" not", 0.95), (" <to>", 0.01)])
    page = visitor.get(address).text
    assert 'class="token p0" tabindex="-1" data-p="0.95"' in page
    assert 'class="token p4"' in page
    assert " &lt;to&gt;</span>" in page
    assert "To be,\n or not &lt;to&gt;</textarea>" in page
    write(visitor, "To be,\n or not <to> be", address)
    assert last_turn().prompt == "To be,\n or not <to> be"
    page = visitor.get(address).text
    assert page.count('class="token p') == 2 + 5, "earlier words keep their colours, beside the legend's"


def test_undo_gives_back_the_text_before() -> None:
    visitor = member()
    address = write(visitor, "To be,")
    answer_with([(" or", 0.5)])
    write(visitor, "To be, or not", address)
    answer_with([(" now", 0.5)])
    sheet = visitor.post(f"{address}/undo", {}, htmx=True).text
    assert "To be, or not</textarea>" in sheet
    assert "is-editing" in sheet
    visitor.post(f"{address}/undo", {}, htmx=True)
    assert "is-editing" in visitor.get(address).text
    assert visitor.post(f"{address}/undo", {}, htmx=True).status_code == 200


def test_another_way_stands_beside_the_first() -> None:
    visitor = member()
    address = write(visitor, "To be,")
    first = last_turn().id
    answer_with([(" or", 0.5)])
    visitor.post(f"{address}/again/{first}", {}, htmx=True)
    answer_with([(" and", 0.3)])
    assert "2/2" in visitor.get(address).text
    back = visitor.post(f"{address}/show/{first}", {}, htmx=True).text
    assert "1/2" in back
    assert "To be, or</textarea>" in back


def test_text_changed_before_the_models_words_is_the_persons_again() -> None:
    visitor = member()
    address = write(visitor, "To be,")
    answer_with([(" or", 0.5)])
    write(visitor, "To see,", address)
    answer_with([(" now", 0.5)])
    sheet = visitor.get(address).text
    assert '<span class="own">To see,</span>' in sheet


def test_a_chat_model_has_no_notebook() -> None:
    visitor = member()
    assert visitor.get("/chat/notebook?checkpoint=demo@500-chat").status_code == 422
    refused = visitor.post("/chat/notebook", {"prompt": "x", "checkpoint": "demo@500-chat"}, page="/chat", htmx=True)
    assert refused.status_code == 422


def test_it_opens_from_the_history_as_what_it_is_and_as_a_conversation_where_asked() -> None:
    visitor = member()
    address = write(visitor, "To be,")
    plain = address.replace("/notebook", "")
    assert visitor.get(plain).headers["location"] == address
    assert visitor.get(f"{plain}?view=turns").status_code == 200


def test_a_refused_text_is_not_lost() -> None:
    visitor = member()
    answer = visitor.post("/chat/notebook", {"prompt": "keep me", "top_p": "7"}, page="/chat")
    assert answer.status_code == 422
    assert "keep me" in answer.text
    assert "Top-p" in answer.text


def test_another_persons_is_not_found() -> None:
    mei, lin = member("mei"), member("lin")
    address = write(mei, "To be,")
    turn = last_turn().id
    assert lin.get(address).status_code == 404
    for act in ("", "/undo", f"/again/{turn}", f"/show/{turn}"):
        assert lin.post(address + act, {"prompt": "x"}).status_code == 404
