"""Names of Celery jobs, the app that carries them, and sending after the commit.

A message only wakes a worker; what there is to do stands in rows. A message that is lost
costs time, never data: the worker's sweep sends it again.
"""

from typing import Any

import structlog
from celery import Celery
from kombu.exceptions import OperationalError
from sqlalchemy.orm import Session

from registry.settings import get_settings

VERIFY = "worker.verify"
"""Check a checkpoint's files; argument: checkpoint id."""
WORK = "worker.work"
"""Take tickets from the line until none can be claimed; no argument."""
SWEEP = "worker.sweep"
"""Take back expired leases and wake workers for what was forgotten."""
COMPARE = "worker.compare"
"""Compare a finished evaluation with the checkpoint before it, and the next one with it; argument: evaluation id."""
RUN = "worker.run"
"""Do a long job that people watch; argument: job id."""
DELIVER = "worker.deliver"
"""Send what waits for a webhook; argument: webhook id."""
ADMIT = "worker.admit"
"""Register the checkpoint of a pushed commit that has waited for its step; argument: commit id."""
QUEUES = {ADMIT: "cpu", DELIVER: "cpu", VERIFY: "cpu", SWEEP: "cpu", COMPARE: "cpu", RUN: "cpu", WORK: "gpu"}

log = structlog.get_logger(__name__)
_apps: dict[str, Celery] = {}


def celery_app() -> Celery:
    """The Celery app of the broker in the settings: JSON only, no result backend."""
    url = get_settings().redis
    if url not in _apps:
        _apps[url] = _make_app(url)
    return _apps[url]


def _make_app(url: str) -> Celery:
    app = Celery("grow", broker=url.replace("unix://", "redis+socket://", 1), set_as_current=False)
    app.conf.update(
        task_serializer="json",
        accept_content=["json"],
        task_ignore_result=True,
        task_routes={name: {"queue": queue} for name, queue in QUEUES.items()},
        worker_prefetch_multiplier=1,
        # Messages are wake-ups, acknowledged when received: kombu would deliver a long job a second
        # time after its visibility timeout, and leases already bring back what a dead worker held.
        task_acks_late=False,
        broker_connection_retry_on_startup=True,
        broker_connection_max_retries=None,
        broker_transport_options={
            "socket_connect_timeout": 2,
            "socket_keepalive": True,
            "health_check_interval": 10,
            # Of a sender only: without it each message to a broker that is away takes six seconds.
            "max_retries": 0,
        },
        timezone="UTC",
    )
    return app


def defer(session: Session, job: str, *args: int) -> None:
    """Send `job` once `session` has committed; the same job with the same arguments goes once."""
    waiting: dict[tuple[Any, ...], None] = session.info.setdefault("deferred_jobs", {})
    waiting[(job, *args)] = None


def send_deferred(session: Session) -> None:
    """Send what was deferred; called by `db.transaction` after the commit."""
    for job, *args in session.info.pop("deferred_jobs", {}):
        if not send(job, *args):
            break  # the broker is down: the sweep sends the rest when it is back


def send(job: str, *args: int) -> bool:
    """Send one wake-up now. False, with a warning in the log, when the broker cannot be reached."""
    app = celery_app()
    try:
        # retry=False: a page must not hang while the broker is away.
        app.send_task(job, args=args, queue=QUEUES[job], retry=False, ignore_result=True)
    except (OperationalError, OSError) as error:
        log.warning("The broker did not take a wake-up; the sweep will send it again.", job=job, error=str(error))
        return False
    return True
