"""Listens for who asks: a message of Celery's takes several milliseconds to become work, a bell a fraction of one."""

import threading

import redis.exceptions
import structlog

from registry import events

LISTEN_SECONDS = 1.0
"""So long at a time, then it is looked whether the worker stops."""
PAUSE_SECONDS = 1.0
"""After the broker went away."""

log = structlog.get_logger(__name__)


def listen(rung: threading.Event, stopping: threading.Event) -> None:
    """Set `rung` each time somebody may have asked, until the worker stops.

    Also at the beginning and after an outage of the broker: what was rung before nobody heard.
    """
    while not stopping.is_set():
        try:
            with events.subscribed(events.BELL) as channel:
                rung.set()
                while not stopping.is_set():
                    if channel.get_message(timeout=LISTEN_SECONDS) is not None:
                        rung.set()
        except redis.exceptions.RedisError as error:
            log.warning("The bell cannot be heard; the sweep wakes this worker meanwhile.", error=str(error))
            stopping.wait(PAUSE_SECONDS)
