"""The expected wait, before anything is sent."""

import pytest

from registry import db, estimates, events
from server import pulse
from tests.factories import make_checkpoint, make_run
from tests.server.visitors import Visitor, member

pytestmark = pytest.mark.usefixtures("database")


@pytest.fixture(autouse=True)
def _checkpoint(database: object) -> None:
    estimates.forget()
    pulse.forget()
    with db.transaction() as session:
        make_checkpoint(session, make_run(session), 500)


def test_it_says_how_long_it_would_take(redis_url: str) -> None:
    events.worker_beat("w", "idle", {"checkpoint_id": None, "max_answers": 1, "patience": 20.0, "load_seconds": 4.0})
    told = member().get("/chat/wait?checkpoint=demo@500").json()
    assert told["text"].startswith("You are next, about ") or "ahead of you" in told["text"]
    assert told["low"] < 4.0 < told["high"]


def test_without_a_worker_it_says_so(redis_url: str) -> None:
    told = member().get("/chat/wait?checkpoint=demo@500").json()
    assert told["text"].startswith("Nobody is there to answer")
    assert (told["low"], told["high"]) == (None, None)


def test_only_for_those_who_may_ask() -> None:
    assert Visitor().get("/chat/wait?checkpoint=demo@500", accept="application/json").status_code == 401


def test_an_unknown_checkpoint_is_not_found() -> None:
    assert member().get("/chat/wait?checkpoint=demo@7").status_code == 404
