"""Path B: a chat message, from the browser to the streamed answer, through the line and the real engine."""

import json
import os
import re
import signal
from collections.abc import Iterator

import httpx
import pytest
from sqlalchemy.orm import Session

from registry import db
from registry.models import Turn
from tests.flows.conftest import Site, wait_for

pytestmark = [pytest.mark.flow, pytest.mark.engine]

NEXT = {"GROW_ENGINE": "transformers"}
"""Of the workers that follow: the line is the same, and they are there in seconds where vLLM takes a minute to start.
That vLLM dies in the middle of its work is `test_kills`."""


@pytest.fixture(scope="module")
def visitor(trained: Site) -> Iterator[httpx.Client]:
    """A registered person's browser."""
    with httpx.Client(base_url=trained.address, follow_redirects=True, timeout=20) as client:
        form = {"csrf_token": csrf(client, "/register"), "name": "小明", "password": "correct horse battery"}
        answer = client.post("/register", data=form)
        assert answer.status_code == 200
        assert "session" in client.cookies
        yield client


def csrf(client: httpx.Client, page: str) -> str:
    """The token that a page's forms carry."""
    found = re.search(r'name="csrf_token" value="([^"]+)"', client.get(page).text)
    assert found is not None
    return found.group(1)


def ask(client: httpx.Client, checkpoint: str, prompt: str, **params: str) -> int:
    """Send a message from the chat page; returns the turn's number."""
    token = csrf(client, "/chat")
    form = {"csrf_token": token, "checkpoint": checkpoint, "prompt": prompt, **params}
    answer = client.post("/chat", data=form)
    assert answer.status_code == 200, answer.text[:2000]
    # Not by the address of its stream: the page of an answer that is finished by now has none.
    turns = re.findall(r'id="turn-(\d+)"', answer.text)
    assert turns, answer.text[:2000]
    return int(turns[-1])


def read_events(client: httpx.Client, turn: int, last_id: str = "") -> list[tuple[str, str, dict[str, object]]]:
    """(id, kind, data) until the answer is done."""
    found: list[tuple[str, str, dict[str, object]]] = []
    headers = {"Last-Event-ID": last_id} if last_id else {}
    with client.stream(
        "GET", f"/chat/turns/{turn}/events", headers=headers, timeout=httpx.Timeout(10, read=90)
    ) as stream:
        assert stream.status_code == 200
        identity = kind = ""
        for line in stream.iter_lines():
            name, _, value = line.partition(":")
            if name == "id":
                identity = value.strip()
            elif name == "event":
                kind = value.strip()
            elif name == "data":
                found.append((identity, kind, json.loads(value)))
                if kind == "done":
                    return found
    return found


def text_of(events: list[tuple[str, str, dict[str, object]]]) -> str:
    """The streamed answer."""
    return "".join(str(data["text"]) for _, kind, data in events if kind == "delta")


def stored_answer(site: Site, turn: int) -> str:
    """The answer in the database."""
    with Session(db.get_engine(site.environment["GROW_DATABASE_URL"])) as session:
        return session.get_one(Turn, turn).answer


def test_an_answer_streams_is_and_is_kept(visitor: httpx.Client, trained: Site) -> None:
    turn = ask(visitor, "flow@8", "第一条", max_tokens="40", temperature="1.0")
    events = read_events(visitor, turn)
    assert events[-1][1] == "done", trained.log("worker")
    assert events[-1][2]["status"] == "finished", events[-1]
    answer = text_of(events)
    assert answer
    # What was streamed is what is kept, and whoever comes later is told at once that it is done.
    assert stored_answer(trained, turn) == answer
    assert [kind for _, kind, _ in read_events(visitor, turn)] == ["done"]


def test_the_answer_is_the_worker_s_own_even_if_it_dies_in_between(visitor: httpx.Client, trained: Site) -> None:
    """kill -9 the worker: the message waits in its row, and the next worker answers it."""
    worker = trained.children["worker"]
    os.killpg(worker.pid, signal.SIGKILL)
    worker.wait()
    turn = ask(visitor, "flow@4", "def main", max_tokens="8", temperature="0")
    trained.start_worker(**NEXT)
    events = read_events(visitor, turn)
    assert events[-1][2]["status"] == "finished", trained.log("worker")


def test_another_worker_takes_an_answer_over_in_its_middle_and_nothing_appears_twice(
    visitor: httpx.Client, trained: Site
) -> None:
    turn = ask(visitor, "flow@8", "第二条", max_tokens="200", temperature="1.0")
    with visitor.stream("GET", f"/chat/turns/{turn}/events", timeout=httpx.Timeout(10, read=90)) as stream:
        for line in stream.iter_lines():
            if line == "event: delta":
                worker = trained.children["worker"]
                os.killpg(worker.pid, signal.SIGKILL)
                worker.wait()
                break
    trained.start_worker(**NEXT)
    events = read_events(visitor, turn)
    assert events[-1][2]["status"] == "finished", trained.log("worker")
    starts = [at for at, (_, kind, _) in enumerate(events) if kind == "start"]
    assert [events[at][2]["attempt"] for at in starts] == [1, 2]
    # The browser throws away what the first worker wrote, and has the whole of the second one's.
    assert text_of(events[starts[-1] :]) == stored_answer(trained, turn)


def test_a_stranger_cannot_read_it(trained: Site, visitor: httpx.Client) -> None:
    turn = ask(visitor, "flow@8", "x", max_tokens="2")
    read_events(visitor, turn)
    answer = httpx.get(f"{trained.address}/chat/turns/{turn}/events")
    assert answer.status_code in (401, 403, 404)


def test_the_pages_show_it_all(visitor: httpx.Client, trained: Site) -> None:
    wait_for(lambda: "第一条" in visitor.get("/chat").text, 30, "the conversation in the list")
    for page in ("/", "/runs", "/runs/flow", "/runs/flow/checkpoints/8", "/models", "/news", "/chat"):
        assert visitor.get(page).status_code == 200, page
