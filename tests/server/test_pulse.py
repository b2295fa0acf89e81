"""Whether the services behind the site are there."""

import pytest

from registry import events
from server import pulse


@pytest.mark.usefixtures("grow_home")
def test_no_broker() -> None:
    assert pulse.take(fresh=True) == pulse.Pulse(broker=False)


@pytest.mark.usefixtures("redis_url")
def test_the_broker_is_asked_once_in_a_few_seconds() -> None:
    pulse.forget()
    assert pulse.take().workers == {}
    events.worker_beat("gpu@here", "waiting")
    assert pulse.take().workers == {}
    assert pulse.take(fresh=True).workers == {"gpu@here": "waiting"}
