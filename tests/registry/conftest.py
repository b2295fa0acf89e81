"""Fixtures of the registry's tests."""

import pytest

from registry import events


@pytest.fixture
def no_broker(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody is asked what workers say of themselves: without a broker each question would wait for its retries."""
    monkeypatch.setattr(events, "worker_facts", dict)
