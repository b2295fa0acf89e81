"""Hearing that somebody asks, also after the broker was away."""

import threading
import time
from collections.abc import Iterator

import pytest

from registry import events
from worker import bell


@pytest.fixture
def rung(redis_url: str) -> Iterator[threading.Event]:
    """What a listening thread sets."""
    heard, stopping = threading.Event(), threading.Event()
    thread = threading.Thread(target=bell.listen, args=(heard, stopping))
    thread.start()
    yield heard
    stopping.set()
    thread.join(10)
    assert not thread.is_alive()


def test_it_rings_at_the_beginning_and_whenever_somebody_asks(rung: threading.Event) -> None:
    for _ in range(3):
        assert rung.wait(10)
        rung.clear()
        assert events.client().publish(events.BELL, "") == 1


def test_after_a_lost_connection_it_rings_because_nobody_knows_what_was_missed(
    rung: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bell, "PAUSE_SECONDS", 0.1)
    assert rung.wait(10)
    rung.clear()
    events.client().client_kill_filter(_type="pubsub")
    assert rung.wait(10)
    deadline = time.monotonic() + 30
    while not events.client().publish(events.BELL, "") and time.monotonic() < deadline:
        time.sleep(0.05)
    rung.clear()
    events.client().publish(events.BELL, "")
    assert rung.wait(10)
