"""Verbs of webhooks: who is told what, and what is on its way.

A delivery is a row of the transaction that it tells of, so nothing is told that did not happen and nothing that
happened is forgotten. `worker.webhooks` sends it afterwards, at least once; a receiver that answers badly is asked
again later and later, and paused in the end.
"""

import datetime as dt
import ipaddress
import secrets
import uuid
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from sqlalchemy import ColumnElement, delete, func, or_, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from registry import audit, jobs, sealing
from registry.errors import Conflict, Invalid, NotFound
from registry.models import Checkpoint, User, Webhook, WebhookDelivery
from registry.models.base import FAILED, FINISHED, QUEUED, RUNNING, utcnow
from registry.settings import get_settings

CHECKPOINT_READY, SUITE_FINISHED, VERDICT_LOSS, JOB_FAILED = (
    "checkpoint.ready",
    "suite.finished",
    "verdict.loss",
    "job.failed",
)
EVENTS = (CHECKPOINT_READY, SUITE_FINISHED, VERDICT_LOSS, JOB_FAILED)
PING = "ping"
"""Sent by hand, to see whether a receiver answers; it is tried once, also where the webhook is paused."""
JSON, SLACK, FEISHU, WECOM = "json", "slack", "feishu", "wecom"
FORMATS = (JSON, SLACK, FEISHU, WECOM)
SIGNED = (JSON, FEISHU)
LANGUAGES = ("en", "zh")

MAX_WEBHOOKS = 20
MAX_NAME_CHARS = 60
MAX_URL_CHARS = 2_000
MAX_SECRET_CHARS = 200
MAX_RESPONSE_CHARS = 2_000
MAX_ATTEMPTS = 12
"""With the pauses between them about four hours; then a delivery is given up."""
MAX_FAILURES = 24
"""So many attempts in a row without one that was taken, about sixteen hours, and the webhook is paused."""
FIRST_PAUSE, LONGEST_PAUSE = dt.timedelta(seconds=10), dt.timedelta(hours=1)
LEASE = dt.timedelta(seconds=60)
NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
KEPT = 200
"""Deliveries of a webhook that stay in its log."""


class NewWebhook(NamedTuple):
    """A webhook that was made; its `secret` is told now and never again, and empty where there is none."""

    webhook: Webhook
    secret: str


class Sending(NamedTuple):
    """A delivery in a sender's hands; `fence` proves it when reporting."""

    delivery_id: int
    fence: int
    key: str
    event: str
    data: dict[str, Any]
    created_at: dt.datetime
    url: str
    secret: str
    format: str
    language: str


class Outcome(NamedTuple):
    """What became of an attempt; an empty `error` means that it was taken."""

    error: str = ""
    status: int | None = None
    response: str = ""
    seconds: float | None = None


def make(
    session: Session,
    admin: User,
    *,
    name: str,
    url: str,
    format: str,
    events: Iterable[str],
    language: str = "en",
    secret: str = "",
) -> NewWebhook:
    """Tell an address what happens here. JSON is signed with a secret of ours, Feishu's with the one that Feishu gave.

    Raises:
        Invalid: a field, named, that cannot be used.
        Conflict: there are too many.
    """
    if (session.scalar(select(func.count(Webhook.id))) or 0) >= MAX_WEBHOOKS:
        raise Conflict("There are %(limit)s webhooks, as many as there can be. Delete one first.", limit=MAX_WEBHOOKS)
    if format not in FORMATS:
        raise Invalid("There is no format '%(name)s'. Formats: %(known)s.", name=format[:40], known=", ".join(FORMATS))
    told = secrets.token_urlsafe(32) if format == JSON else ""
    webhook = Webhook(format=format, user_id=admin.id, host="", sealed_url="")
    _fill(webhook, name, events, language)
    _set_url(webhook, url)
    if format in SIGNED:
        webhook.sealed_secret = sealing.seal(told or _given_secret(secret))
    session.add(webhook)
    session.flush()  # the page and the audit trail name it by its id
    _note(session, admin, "webhook_made", webhook)
    return NewWebhook(webhook, told)


def change(
    session: Session,
    admin: User,
    webhook: Webhook,
    *,
    name: str,
    events: Iterable[str],
    language: str,
    url: str = "",
    secret: str = "",
) -> None:
    """Change what a webhook is told; an empty address or secret leaves the old one.

    Raises:
        Invalid: a field, named, that cannot be used.
    """
    _fill(webhook, name, events, language)
    if url.strip():
        _set_url(webhook, url)
    if secret.strip() and webhook.format == FEISHU:
        webhook.sealed_secret = sealing.seal(_given_secret(secret))
    _note(session, admin, "webhook_changed", webhook)


def renew_secret(session: Session, admin: User, webhook: Webhook) -> str:
    """Sign with a new secret from now on; returns it, once.

    Raises:
        Conflict: the format has no secret of ours.
    """
    if webhook.format != JSON:
        raise Conflict("Only webhooks in the JSON format are signed with a secret that this site makes.")
    secret = secrets.token_urlsafe(32)
    webhook.sealed_secret = sealing.seal(secret)
    _note(session, admin, "webhook_secret", webhook)
    return secret


def pause(session: Session, admin: User, webhook: Webhook) -> None:
    """Tell it nothing until `resume`; what waits stays in line."""
    webhook.is_active, webhook.pause_reason = False, ""
    _note(session, admin, "webhook_paused", webhook)


def resume(session: Session, admin: User, webhook: Webhook) -> None:
    """Go on, with what waited first."""
    webhook.is_active, webhook.pause_reason, webhook.num_failures, webhook.retry_at = True, "", 0, None
    _note(session, admin, "webhook_resumed", webhook)
    jobs.defer(session, jobs.DELIVER, webhook.id)


def remove(session: Session, admin: User, webhook: Webhook) -> None:
    """Delete a webhook with its log."""
    _note(session, admin, "webhook_deleted", webhook)
    session.execute(delete(WebhookDelivery).where(WebhookDelivery.webhook_id == webhook.id))
    session.delete(webhook)


def get_webhook(session: Session, webhook_id: int) -> Webhook:
    """The webhook of that id.

    Raises:
        NotFound: there is none.
    """
    webhook = session.get(Webhook, webhook_id)
    if webhook is None:
        raise NotFound("There is no such webhook.")
    return webhook


def list_webhooks(session: Session) -> Sequence[Webhook]:
    """All of them, the oldest first."""
    return session.scalars(select(Webhook).order_by(Webhook.id)).all()


def list_deliveries(session: Session, webhook: Webhook, limit: int = 50) -> Sequence[WebhookDelivery]:
    """The log of a webhook, the newest first."""
    query = select(WebhookDelivery).where(WebhookDelivery.webhook_id == webhook.id)
    return session.scalars(query.order_by(WebhookDelivery.id.desc()).limit(limit)).all()


def count_deliveries(session: Session) -> dict[int, dict[str, int]]:
    """How many deliveries of each webhook are in each status, of those that the logs hold."""
    query = select(WebhookDelivery.webhook_id, WebhookDelivery.status, func.count())
    counts: dict[int, dict[str, int]] = {}
    for webhook_id, status, number in session.execute(
        query.group_by(WebhookDelivery.webhook_id, WebhookDelivery.status)
    ):
        counts.setdefault(webhook_id, {})[status] = number
    return counts


def paused_by_site(session: Session) -> Sequence[Webhook]:
    """Those that the site itself has paused, for a notice."""
    query = select(Webhook).where(Webhook.is_active.is_(False), Webhook.pause_reason != "")
    return session.scalars(query.order_by(Webhook.id)).all()


def wants(session: Session, event: str) -> bool:
    """Whether anybody would be told of such an event: what it says need not be put together otherwise."""
    return bool(_listening(session, event))


def tell(session: Session, event: str, data: Mapping[str, Any], *, once: str | None = None) -> int:
    """Put an event in line for every webhook that wants it; returns for how many.

    Args:
        session: the transaction in which it happens.
        event: one of `EVENTS`.
        data: what is told, as JSON.
        once: what it tells of: a webhook that was told of the same before is not told again.
    """
    told = 0
    for webhook in _listening(session, event):
        delivery = _delivery(webhook, event, data, once)
        if once is None:
            session.add(delivery)
        elif not _add_once(session, delivery):
            continue
        jobs.defer(session, jobs.DELIVER, webhook.id)
        told += 1
    return told


def ping(session: Session, webhook: Webhook) -> WebhookDelivery:
    """Send something now, whatever state the webhook is in."""
    delivery = _delivery(webhook, PING, {"webhook": webhook.name}, None)
    session.add(delivery)
    session.flush()  # the page shows it
    jobs.defer(session, jobs.DELIVER, webhook.id)
    return delivery


def resend(session: Session, admin: User, webhook: Webhook, delivery_id: int) -> None:
    """Send a delivery again, under the same key, without waiting for the pause after a failure.

    Raises:
        NotFound: this webhook has no such delivery.
        Conflict: it is waiting or being sent.
    """
    delivery = session.get(WebhookDelivery, delivery_id)
    if delivery is None or delivery.webhook_id != webhook.id:
        raise NotFound("There is no such delivery.")
    if delivery.status not in (FINISHED, FAILED):
        raise Conflict("This delivery is on its way.")
    delivery.status, delivery.attempts, delivery.error = QUEUED, 0, ""
    webhook.retry_at = None
    audit.note(session, admin, "webhook_resent", f"webhook:{webhook.id}", {"delivery": delivery.key})
    jobs.defer(session, jobs.DELIVER, webhook.id)


def due(session: Session) -> Sequence[int]:
    """Webhooks that have something to send now; takes back what silent senders held."""
    expired = (WebhookDelivery.status == RUNNING) & (WebhookDelivery.lease_until < utcnow())
    session.execute(update(WebhookDelivery).where(expired).values(status=QUEUED, lease_until=None))
    query = select(WebhookDelivery.webhook_id).join(Webhook).where(WebhookDelivery.status == QUEUED, _may_go())
    return session.scalars(query.distinct()).all()


def claim(session: Session, webhook_id: int) -> Sending | None:
    """Take the next delivery of a webhook; None where nothing is to be sent, or somebody else is sending."""
    busy = (WebhookDelivery.status == RUNNING) & (WebhookDelivery.lease_until > utcnow())
    if session.scalar(select(WebhookDelivery.id).where(WebhookDelivery.webhook_id == webhook_id, busy).limit(1)):
        return None
    query = select(WebhookDelivery).join(Webhook).where(WebhookDelivery.webhook_id == webhook_id)
    query = query.where(WebhookDelivery.status == QUEUED, _may_go()).order_by(WebhookDelivery.id)
    found = session.scalars(query.limit(1)).first()
    if found is None:
        return None
    now = utcnow()
    taken = session.execute(
        update(WebhookDelivery)
        .where(WebhookDelivery.id == found.id, WebhookDelivery.status == QUEUED)
        .values(
            status=RUNNING,
            fence=WebhookDelivery.fence + 1,
            attempts=WebhookDelivery.attempts + 1,
            attempted_at=now,
            lease_until=now + LEASE,
        )
        .returning(WebhookDelivery.fence)
    ).scalar_one_or_none()
    return None if taken is None else _sending(session, found, taken)


def settle(session: Session, delivery_id: int, fence: int, outcome: Outcome) -> bool:
    """Record an attempt. False: it was given up for lost meanwhile, and another sender has it."""
    held = select(WebhookDelivery).where(
        WebhookDelivery.id == delivery_id, WebhookDelivery.fence == fence, WebhookDelivery.status == RUNNING
    )
    delivery = session.scalar(held.execution_options(populate_existing=True))
    if delivery is None:
        return False
    delivery.lease_until, delivery.error = None, outcome.error
    delivery.response_status, delivery.seconds = outcome.status, outcome.seconds
    delivery.response_start = outcome.response[:MAX_RESPONSE_CHARS]
    webhook = delivery.webhook
    if not outcome.error:
        delivery.status = FINISHED
        webhook.num_failures, webhook.retry_at = 0, None
        _prune(session, webhook)
    elif delivery.event == PING:
        delivery.status = FAILED
    else:
        delivery.status = FAILED if delivery.attempts >= MAX_ATTEMPTS else QUEUED
        _count_failure(session, webhook, outcome)
    return True


def about_checkpoint(checkpoint: Checkpoint) -> dict[str, Any]:
    """What every event about a checkpoint says of it."""
    extra = [f"kind={checkpoint.kind}"] if checkpoint.kind != "pretrained" else []
    extra += [f"precision={checkpoint.precision}"] if checkpoint.precision != 16 else []
    query = f"?{'&'.join(extra)}" if extra else ""
    return {
        "checkpoint": checkpoint.label,
        "checkpoint_id": checkpoint.id,
        "run": checkpoint.run.name,
        "step": checkpoint.step,
        "kind": checkpoint.kind,
        "precision": checkpoint.precision,
        "tokens_seen": checkpoint.tokens_seen,
        "path": f"/runs/{checkpoint.run.name}/checkpoints/{checkpoint.step}{query}",
    }


def check_url(url: str) -> str:
    """The address, as far as it can be judged without looking its name up; returns its host.

    Raises:
        Invalid: in a sentence, why nothing is sent there.
    """
    if not 1 <= len(url) <= MAX_URL_CHARS or not url.isascii() or not url.isprintable() or " " in url:
        raise Invalid("An address has 1 to %(limit)s ASCII characters, without spaces.", limit=MAX_URL_CHARS)
    try:
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port
    except ValueError:
        raise Invalid("This is not an address.") from None
    private = get_settings().webhook_private_addresses
    if parts.scheme != "https" and not (private and parts.scheme == "http"):
        raise Invalid("The address must begin with https://.")
    if not host or port == 0 or parts.username is not None or parts.password is not None or parts.fragment:
        raise Invalid("The address needs a host, and holds no name, password or # part.")
    check_address(host)
    return host


def check_address(host: str) -> None:
    """Refuse an IP address of this machine or of a network behind it; a name passes, to be judged by what it means.

    Raises:
        Invalid: nothing is sent there unless `GROW_WEBHOOK_PRIVATE_ADDRESSES` allows it.
    """
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return
    if isinstance(address, ipaddress.IPv6Address):
        address = _inner(address) or address
    if (not address.is_global or address.is_multicast) and not get_settings().webhook_private_addresses:
        raise Invalid(
            "%(host)s belongs to this machine or a private network; GROW_WEBHOOK_PRIVATE_ADDRESSES=true allows that.",
            host=host,
        )


def _inner(address: ipaddress.IPv6Address) -> ipaddress.IPv4Address | None:
    """The IPv4 address that an IPv6 one stands for."""
    if address in NAT64:
        return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    return address.ipv4_mapped or address.sixtofour


def _fill(webhook: Webhook, name: str, events: Iterable[str], language: str) -> None:
    name, wanted = " ".join(name.split()), set(events)
    if not 1 <= len(name) <= MAX_NAME_CHARS:
        raise Invalid("A webhook has a name of 1 to %(limit)s characters.", limit=MAX_NAME_CHARS)
    chosen = [event for event in EVENTS if event in wanted]
    if not chosen or wanted - set(EVENTS):
        raise Invalid("Choose what the webhook is told.")
    if language not in LANGUAGES:
        raise Invalid("There is no language '%(name)s'.", name=language[:10])
    webhook.name, webhook.events, webhook.language = name, ",".join(chosen), language


def _set_url(webhook: Webhook, url: str) -> None:
    url = url.strip()
    webhook.host, webhook.sealed_url = check_url(url), sealing.seal(url)


def _given_secret(secret: str) -> str:
    secret = secret.strip()
    if len(secret) > MAX_SECRET_CHARS or not secret.isascii() or not secret.isprintable():
        raise Invalid("A secret has at most %(limit)s ASCII characters.", limit=MAX_SECRET_CHARS)
    return secret


def _note(session: Session, admin: User, deed: str, webhook: Webhook) -> None:
    detail = {"name": webhook.name, "host": webhook.host, "format": webhook.format, "events": webhook.events}
    audit.note(session, admin, deed, f"webhook:{webhook.id}", detail)


def _listening(session: Session, event: str) -> list[Webhook]:
    active = session.scalars(select(Webhook).where(Webhook.is_active).order_by(Webhook.id))
    return [webhook for webhook in active if event in webhook.events.split(",")]


def _delivery(webhook: Webhook, event: str, data: Mapping[str, Any], once: str | None) -> WebhookDelivery:
    return WebhookDelivery(webhook=webhook, key=str(uuid.uuid4()), event=event, data=dict(data), once=once)


def _add_once(session: Session, delivery: WebhookDelivery) -> bool:
    known = select(WebhookDelivery.id).where(
        WebhookDelivery.webhook_id == delivery.webhook.id, WebhookDelivery.once == delivery.once
    )
    if session.scalar(known) is not None:
        return False
    try:
        with session.begin_nested():
            session.add(delivery)
    except IntegrityError:  # somebody else told of it since we looked
        return False
    return True


def _may_go() -> ColumnElement[bool]:
    rested = or_(Webhook.retry_at.is_(None), Webhook.retry_at <= utcnow())
    return or_(WebhookDelivery.event == PING, Webhook.is_active & rested)


def _sending(session: Session, delivery: WebhookDelivery, fence: int) -> Sending | None:
    webhook = delivery.webhook
    try:
        url = sealing.unseal(webhook.sealed_url)
        secret = sealing.unseal(webhook.sealed_secret) if webhook.sealed_secret else ""
    except Invalid as error:
        session.refresh(delivery)
        delivery.status, delivery.error, delivery.lease_until = FAILED, str(error), None
        _pause(session, webhook, str(error))
        return None
    return Sending(
        delivery_id=delivery.id,
        fence=fence,
        key=delivery.key,
        event=delivery.event,
        data=delivery.data,
        created_at=delivery.created_at,
        url=url,
        secret=secret,
        format=webhook.format,
        language=webhook.language,
    )


def _count_failure(session: Session, webhook: Webhook, outcome: Outcome) -> None:
    webhook.num_failures += 1
    doubled = FIRST_PAUSE * 2 ** min(webhook.num_failures - 1, 20)
    webhook.retry_at = utcnow() + min(doubled, LONGEST_PAUSE)
    if outcome.status == 410:  # the receiver's own word for "never again"
        _pause(session, webhook, "The receiver says that it is gone (410).")
    elif webhook.num_failures >= MAX_FAILURES:
        _pause(session, webhook, f"{MAX_FAILURES} attempts in a row failed. The last one: {outcome.error}")


def _pause(session: Session, webhook: Webhook, reason: str) -> None:
    webhook.is_active, webhook.pause_reason = False, reason
    audit.note(session, None, "webhook_paused", f"webhook:{webhook.id}", {"name": webhook.name, "reason": reason})


def _prune(session: Session, webhook: Webhook) -> None:
    own = WebhookDelivery.webhook_id == webhook.id
    kept = select(WebhookDelivery.id).where(own).order_by(WebhookDelivery.id.desc()).limit(1).offset(KEPT)
    if (oldest := session.scalar(kept)) is not None:
        ended = WebhookDelivery.status.in_((FINISHED, FAILED))
        session.execute(delete(WebhookDelivery).where(own, WebhookDelivery.id <= oldest, ended))
