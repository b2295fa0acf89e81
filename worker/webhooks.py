"""Sending what waits for a webhook."""

import time

import structlog

from registry import db, notices, webhooks
from registry.errors import Invalid
from registry.models.base import utcnow
from registry.webhooks import Outcome, Sending
from worker.outgoing import post

log = structlog.get_logger(__name__)


def deliver(webhook_id: int) -> None:
    """Send the deliveries of a webhook one after another, until none is left or one is not taken."""
    while (sending := _claim(webhook_id)) is not None:
        outcome = attempt(sending)
        with db.transaction() as session:
            webhooks.settle(session, sending.delivery_id, sending.fence, outcome)
        # Neither address nor secret is written down.
        log.info("Told a webhook.", webhook_id=webhook_id, delivery=sending.key, status=outcome.status)
        if outcome.error:
            log.warning("A webhook did not take what it was told.", webhook_id=webhook_id, error=outcome.error)
            if sending.event != webhooks.PING:
                return


def attempt(sending: Sending) -> Outcome:
    """Send one delivery once."""
    began = time.monotonic()
    made = notices.outgoing(sending, utcnow())
    try:
        answer = post(sending.url, made.body, made.headers)
    except Invalid as error:
        return Outcome(error=str(error), seconds=time.monotonic() - began)
    refusal = notices.refusal(sending.format, answer.status, answer.text)
    return Outcome(refusal, answer.status, answer.text, time.monotonic() - began)


def _claim(webhook_id: int) -> Sending | None:
    with db.transaction() as session:
        return webhooks.claim(session, webhook_id)
