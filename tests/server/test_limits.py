"""Counting in the broker and without it."""

import time

import pytest

from registry import events
from registry.settings import get_settings
from server import limits


@pytest.fixture(autouse=True)
def _no_earlier_outage(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "_outage", limits._Outage())


@pytest.fixture(params=["broker", "memory"])
def _counted(request: pytest.FixtureRequest) -> None:
    request.getfixturevalue("redis_url" if request.param == "broker" else "grow_home")


@pytest.mark.usefixtures("_counted")
class TestHit:
    def test_one_too_many_is_refused_with_the_time_to_wait(self) -> None:
        for _ in range(3):
            limits.hit("test-hit", "3/minute", "mei")
        with pytest.raises(limits.TooMany) as refused:
            limits.hit("test-hit", "3/minute", "mei")
        assert refused.value.status_code == 429
        assert 1 <= refused.value.retry_seconds <= 60
        assert refused.value.headers == {"Retry-After": str(refused.value.retry_seconds)}

    def test_people_are_counted_apart(self) -> None:
        limits.hit("test-apart", "1/minute", "mei")
        limits.hit("test-apart", "1/minute", "lin")
        with pytest.raises(limits.TooMany):
            limits.hit("test-apart", "1/minute", "mei")

    def test_the_count_ends_with_its_time(self) -> None:
        limits.hit("test-time", "1/second", "mei")
        with pytest.raises(limits.TooMany) as refused:
            limits.hit("test-time", "1/second", "mei")
        time.sleep(refused.value.retry_seconds + 0.1)
        limits.hit("test-time", "1/second", "mei")

    def test_what_is_cleared_counts_from_nothing(self) -> None:
        limits.hit("test-clear", "1/minute", "mei")
        limits.clear("test-clear", "1/minute", "mei")
        limits.hit("test-clear", "1/minute", "mei")
        with pytest.raises(limits.TooMany):
            limits.hit("test-clear", "1/minute", "mei")

    def test_checking_counts_nothing(self) -> None:
        limits.check("test-check", "1/minute", "mei")
        limits.check("test-check", "1/minute", "mei")
        limits.hit("test-check", "1/minute", "mei")
        with pytest.raises(limits.TooMany):
            limits.check("test-check", "1/minute", "mei")


def test_counts_live_in_the_broker_without_names(redis_url: str) -> None:
    limits.hit("login", "5/minute", "mei")
    keys = [str(key) for key in events.client().keys("*login*")]
    assert len(keys) == 1
    assert "mei" not in keys[0]


def test_counting_goes_on_while_the_broker_is_away(redis_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    limits.hit("test-away", "1/minute", "mei")
    monkeypatch.setenv("GROW_REDIS_URL", "redis://127.0.0.1:1/0")
    get_settings.cache_clear()
    limits.hit("test-away", "1/minute", "mei")
    with pytest.raises(limits.TooMany):
        limits.hit("test-away", "1/minute", "mei")
