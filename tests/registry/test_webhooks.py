"""Webhooks: who is told what, what is on its way, what happens to those who do not listen, and what is refused."""

import datetime as dt
import json

import pytest
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from registry import changes, checkpoints, evaluations, joblog, jobs, notices, sealing, tickets, webhooks
from registry.errors import Conflict, Invalid, NotFound
from registry.models import AuditEntry, Checkpoint, User, Webhook, WebhookDelivery
from registry.models.base import FAILED, FINISHED, QUEUED, READY, RUNNING, utcnow
from registry.settings import get_settings
from registry.webhooks import (
    CHECKPOINT_READY,
    EVENTS,
    FEISHU,
    FORMATS,
    JOB_FAILED,
    JSON,
    PING,
    SLACK,
    SUITE_FINISHED,
    VERDICT_LOSS,
    WECOM,
    Outcome,
)
from tests.factories import finish_evaluation, make_checkpoint, make_run, make_task

TAKEN = Outcome(status=200, response="ok", seconds=0.1)
REFUSED = Outcome("The receiver answered 500.", 500, "oh no", 0.2)
URL = "https://hooks.example.com/services/T0/B0/abcdef"


@pytest.fixture
def admin(session: Session) -> User:
    person = User(name="keeper", name_key="keeper", password_hash="none", role="admin")
    session.add(person)
    session.flush()
    return person


def make(session: Session, admin: User, format: str = JSON, **fields: object) -> Webhook:
    given = {"name": "Ops", "url": URL, "events": EVENTS, **fields}
    return webhooks.make(session, admin, format=format, **given).webhook  # type: ignore[arg-type]


def log_of(session: Session, webhook: Webhook) -> list[WebhookDelivery]:
    session.flush()
    return list(reversed(webhooks.list_deliveries(session, webhook)))


def settle(session: Session, webhook: Webhook, outcome: Outcome) -> WebhookDelivery:
    """Sends the next delivery, with what came of it."""
    sending = webhooks.claim(session, webhook.id)
    assert sending is not None
    assert webhooks.settle(session, sending.delivery_id, sending.fence, outcome)
    return session.get(WebhookDelivery, sending.delivery_id)  # type: ignore[return-value]  # it may be pruned


BAD_FIELDS: tuple[tuple[dict[str, object], str], ...] = (
    ({"name": " "}, "has a name"),
    ({"name": "x" * 61}, "has a name"),
    ({"events": []}, "Choose what"),
    ({"events": ["everything"]}, "Choose what"),
    ({"language": "fr"}, "no language"),
    ({"format": "carrier pigeon"}, "no format"),
    ({"url": ""}, "1 to"),
    ({"url": "https://example.com/" + "x" * 2000}, "1 to"),
    ({"url": "https://exämple.com/"}, "ASCII"),
    ({"url": "https://example.com/\r\nX: 1"}, "ASCII"),
    ({"url": "http://example.com/"}, "https"),
    ({"url": "ftp://example.com/"}, "https"),
    ({"url": "file:///etc/passwd"}, "https"),
    ({"url": "https://"}, "needs a host"),
    ({"url": "https://me:secret@example.com/"}, "needs a host"),
    ({"url": "https://example.com/#x"}, "needs a host"),
    ({"url": "https://example.com:99999/"}, "not an address"),
    ({"url": "https://[::1/"}, "not an address"),
    ({"url": "https://127.0.0.1/"}, "private network"),
    ({"url": "https://10.1.2.3/"}, "private network"),
    ({"url": "https://192.168.0.1:8443/"}, "private network"),
    ({"url": "https://169.254.169.254/latest/meta-data"}, "private network"),
    ({"url": "https://100.64.0.1/"}, "private network"),
    ({"url": "https://0.0.0.0/"}, "private network"),
    ({"url": "https://224.0.0.1/"}, "private network"),
    ({"url": "https://[::1]/"}, "private network"),
    ({"url": "https://[fe80::1]/"}, "private network"),
    ({"url": "https://[fd00::1]/"}, "private network"),
    ({"url": "https://[::ffff:127.0.0.1]/"}, "private network"),
    ({"url": "https://[64:ff9b::10.0.0.1]/"}, "private network"),
    ({"url": "https://[2002:7f00:1::]/"}, "private network"),
    ({"format": FEISHU, "secret": "密"}, "secret"),
)


class TestMaking:
    def test_a_secret_is_told_once_and_neither_it_nor_the_address_stands_in_the_table(
        self, session: Session, admin: User
    ) -> None:
        made = webhooks.make(session, admin, name="Ops", url=URL, format=JSON, events=[CHECKPOINT_READY])
        session.flush()
        row = session.execute(select(Webhook.__table__).where(Webhook.id == made.webhook.id)).one()
        assert len(made.secret) >= 32
        assert made.secret not in str(row)
        assert "abcdef" not in str(row)
        assert made.webhook.host == "hooks.example.com"
        webhooks.tell(session, CHECKPOINT_READY, {})
        sending = webhooks.claim(session, made.webhook.id)
        assert sending is not None
        assert (sending.url, sending.secret) == (URL, made.secret)
        entry = session.scalars(select(AuditEntry)).one()
        assert entry.action == "webhook_made"
        assert made.secret not in str(entry.detail)
        assert "abcdef" not in str(entry.detail)

    def test_a_bad_field_is_named(self, session: Session, admin: User) -> None:
        for fields, said in BAD_FIELDS:
            given = {"name": "Ops", "url": URL, "format": JSON, "events": EVENTS, **fields}
            with pytest.raises(Invalid, match=said):
                webhooks.make(session, admin, **given)  # type: ignore[arg-type]

    def test_a_setting_opens_the_own_network(
        self, session: Session, admin: User, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("GROW_WEBHOOK_PRIVATE_ADDRESSES", "true")
        get_settings.cache_clear()
        assert make(session, admin, url="http://127.0.0.1:9000/x").host == "127.0.0.1"

    def test_there_are_not_too_many(self, session: Session, admin: User, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(webhooks, "MAX_WEBHOOKS", 1)
        make(session, admin)
        with pytest.raises(Conflict, match="as many"):
            make(session, admin)

    def test_it_is_changed_renewed_and_deleted(self, session: Session, admin: User) -> None:
        webhook = make(session, admin)
        old = sealing.unseal(webhook.sealed_secret)
        webhooks.change(session, admin, webhook, name="Night", events=[JOB_FAILED], language="zh")
        assert (webhook.name, webhook.events, webhook.language) == ("Night", JOB_FAILED, "zh")
        assert sealing.unseal(webhook.sealed_url) == URL
        webhooks.change(session, admin, webhook, name="Night", events=EVENTS, language="zh", url=URL + "2")
        assert sealing.unseal(webhook.sealed_url) == URL + "2"
        assert webhooks.renew_secret(session, admin, webhook) != old
        with pytest.raises(Conflict):
            webhooks.renew_secret(session, admin, make(session, admin, SLACK))
        webhooks.tell(session, JOB_FAILED, {})
        webhooks.remove(session, admin, webhook)
        session.flush()
        assert session.scalars(select(WebhookDelivery).where(WebhookDelivery.webhook_id == webhook.id)).all() == []
        with pytest.raises(NotFound):
            webhooks.get_webhook(session, webhook.id)

    def test_what_was_sealed_with_another_key_pauses_it_with_a_sentence(
        self, session: Session, admin: User, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        webhook = make(session, admin)
        webhooks.tell(session, JOB_FAILED, {})
        monkeypatch.setenv("GROW_SECRET_KEY", "another one")
        get_settings.cache_clear()
        assert webhooks.claim(session, webhook.id) is None
        assert not webhook.is_active
        assert "GROW_SECRET_KEY" in webhook.pause_reason
        assert webhooks.paused_by_site(session) == [webhook]


class TestTelling:
    def test_only_those_who_want_it_are_told_and_a_worker_is_woken(self, session: Session, admin: User) -> None:
        ready, failed = make(session, admin, events=[CHECKPOINT_READY]), make(session, admin, events=[JOB_FAILED])
        session.info.pop("deferred_jobs", None)
        checkpoint = make_checkpoint(session, make_run(session), 10)
        [delivery] = log_of(session, ready)
        assert (delivery.event, delivery.status) == (CHECKPOINT_READY, QUEUED)
        assert delivery.data["checkpoint"] == "demo@10"
        assert delivery.data["path"] == "/runs/demo/checkpoints/10"
        assert log_of(session, failed) == []
        assert (jobs.DELIVER, ready.id) in session.info["deferred_jobs"]
        checkpoints.mark_ready(session, checkpoint, 5)
        assert len(log_of(session, ready)) == 1  # verified again, told once

    def test_a_paused_one_is_told_nothing(self, session: Session, admin: User) -> None:
        webhook = make(session, admin)
        webhooks.pause(session, admin, webhook)
        assert not webhooks.wants(session, JOB_FAILED)
        assert webhooks.tell(session, JOB_FAILED, {}) == 0

    def test_a_failed_job_and_a_failed_evaluation(self, session: Session, admin: User) -> None:
        webhook = make(session, admin, events=[JOB_FAILED])
        checkpoint = make_checkpoint(session, make_run(session), 10)
        job = joblog.plan(session, joblog.QUANTIZE, checkpoint=checkpoint)
        fence = joblog.claim(session, job.id, "w")
        assert fence is not None
        joblog.finish(session, job.id, fence, FAILED, "The disk is full.")
        make_task(session)
        [evaluation] = evaluations.plan(session, checkpoint)
        evaluations.fail(session, evaluation.id, "The engine went down.")
        first, second = log_of(session, webhook)
        assert (first.data["kind"], first.data["error"]) == ("quantize", "The disk is full.")
        assert first.data["path"] == f"/admin/jobs/{job.id}"
        assert (second.data["kind"], second.data["error"]) == ("evaluation", "The engine went down.")
        assert second.data["path"] == f"/evaluations/{evaluation.id}"

    def test_a_job_whose_worker_went_down_too_often(self, session: Session, admin: User) -> None:
        webhook = make(session, admin, events=[JOB_FAILED])
        job = joblog.plan(session, joblog.RETENTION)
        for _ in range(joblog.MAX_ATTEMPTS):
            joblog.claim(session, job.id, "w")
            session.refresh(job)
            job.lease_until = utcnow() - dt.timedelta(seconds=1)
            session.flush()
            joblog.reclaim_expired(session)
        assert [one.data["kind"] for one in log_of(session, webhook)] == ["retention"]

    def test_a_suite_is_finished_with_its_last_task(self, session: Session, admin: User) -> None:
        webhook = make(session, admin, events=[SUITE_FINISHED])
        first, second, third = (make_task(session, name) for name in ("a", "b", "c"))
        checkpoint = make_checkpoint(session, make_run(session), 10)
        finish_evaluation(session, checkpoint, first, 0.5)
        finish_evaluation(session, checkpoint, second, 0.25)
        assert log_of(session, webhook) == []
        last = next(one for one in evaluations.for_checkpoint(session, checkpoint) if one.task_id == third.id)
        tickets.cancel(session, evaluation_id=last.id)
        evaluations.fail(session, last.id, "No.")
        [delivery] = log_of(session, webhook)
        assert (delivery.data["suite"], delivery.data["num_finished"], delivery.data["num_failed"]) == ("test", 2, 1)
        assert [(one["task"], one["value"]) for one in delivery.data["results"]] == [("a", 0.5), ("b", 0.25)]

    def test_losses_are_told_once_the_verdicts_of_all_tasks_stand(self, session: Session, admin: User) -> None:
        webhook = make(session, admin, events=[VERDICT_LOSS])
        first, second = make_task(session, "a"), make_task(session, "b")
        run = make_run(session)
        before, after = make_checkpoint(session, run, 10), make_checkpoint(session, run, 20)
        old = [finish_evaluation(session, before, task, 0.8, 0.01) for task in (first, second)]
        new = [finish_evaluation(session, after, first, 0.3, 0.01)]
        for one in old:
            compare(session, one.id)
        compare(session, new[0].id)
        assert log_of(session, webhook) == []  # the other task may still change the verdict
        new.append(finish_evaluation(session, after, second, 0.8, 0.01))
        compare(session, new[1].id)
        [delivery] = log_of(session, webhook)
        assert (delivery.data["checkpoint"], delivery.data["against"]) == ("demo@20", "demo@10")
        [lost] = delivery.data["losses"]
        assert (lost["task"], round(lost["value"], 3)) == ("a", -0.5)
        compare(session, new[1].id)
        assert len(log_of(session, webhook)) == 1  # nothing is told twice


def compare(session: Session, evaluation_id: int) -> None:
    """As the worker does it, in a session of its own."""
    session.expire_all()
    evaluation = changes.load(session, evaluation_id)
    assert evaluation is not None
    for pair in changes.pairs(session, evaluation):
        changes.record(session, pair, changes.difference(pair))
    changes.mark_compared(session, evaluation_id)


class TestSending:
    def test_in_order_and_one_at_a_time(self, session: Session, admin: User) -> None:
        webhook = make(session, admin)
        for number in range(2):
            webhooks.tell(session, JOB_FAILED, {"number": number})
        first = webhooks.claim(session, webhook.id)
        assert first is not None
        assert first.data == {"number": 0}
        assert webhooks.claim(session, webhook.id) is None  # somebody is sending
        webhooks.settle(session, first.delivery_id, first.fence, TAKEN)
        second = webhooks.claim(session, webhook.id)
        assert second is not None
        assert second.data == {"number": 1}
        assert log_of(session, webhook)[0].status == FINISHED
        assert log_of(session, webhook)[0].response_start == "ok"

    def test_a_failure_makes_it_wait_longer_and_longer_under_one_key(self, session: Session, admin: User) -> None:
        webhook = make(session, admin)
        webhooks.tell(session, JOB_FAILED, {})
        keys, waits = set(), []
        for _ in range(4):
            delivery = settle(session, webhook, REFUSED)
            keys.add(delivery.key)
            assert (delivery.status, delivery.error) == (QUEUED, REFUSED.error)
            assert webhook.retry_at is not None
            waits.append(round((webhook.retry_at - utcnow()).total_seconds()))
            assert webhooks.due(session) == []
            assert webhooks.claim(session, webhook.id) is None
            webhook.retry_at = utcnow() - dt.timedelta(seconds=1)
            session.flush()
            assert webhooks.due(session) == [webhook.id]
        assert waits == [10, 20, 40, 80]
        assert len(keys) == 1
        assert settle(session, webhook, TAKEN).status == FINISHED
        assert (webhook.num_failures, webhook.retry_at) == (0, None)

    def test_one_that_is_never_taken_is_given_up_and_the_next_goes_on(self, session: Session, admin: User) -> None:
        webhook = make(session, admin)
        webhooks.tell(session, JOB_FAILED, {"number": 0})
        webhooks.tell(session, JOB_FAILED, {"number": 1})
        for _ in range(webhooks.MAX_ATTEMPTS):
            webhook.retry_at = None
            delivery = settle(session, webhook, REFUSED)
        assert delivery.status == FAILED
        webhook.retry_at = None
        assert settle(session, webhook, TAKEN).data == {"number": 1}

    def test_after_many_failures_it_is_paused_with_notice_until_somebody_resumes_it(
        self, session: Session, admin: User
    ) -> None:
        webhook = make(session, admin)
        for _ in range(3):
            webhooks.tell(session, JOB_FAILED, {})
        for _ in range(webhooks.MAX_FAILURES):
            assert webhook.is_active
            webhook.retry_at = None
            settle(session, webhook, REFUSED)
        assert not webhook.is_active
        assert "24 attempts in a row failed" in webhook.pause_reason
        assert webhooks.paused_by_site(session) == [webhook]
        paused = session.scalars(select(AuditEntry).where(AuditEntry.action == "webhook_paused")).one()
        assert paused.actor_id is None
        webhook.retry_at = None
        assert webhooks.due(session) == []
        webhooks.resume(session, admin, webhook)
        session.flush()
        assert webhooks.due(session) == [webhook.id]
        assert webhooks.paused_by_site(session) == []

    def test_gone_is_gone(self, session: Session, admin: User) -> None:
        webhook = make(session, admin)
        webhooks.tell(session, JOB_FAILED, {})
        settle(session, webhook, Outcome("The receiver answered 410.", 410))
        assert not webhook.is_active

    def test_a_ping_goes_to_a_paused_one_is_tried_once_and_counts_for_nothing(
        self, session: Session, admin: User
    ) -> None:
        webhook = make(session, admin)
        webhooks.pause(session, admin, webhook)
        webhooks.ping(session, webhook)
        assert webhooks.due(session) == [webhook.id]
        delivery = settle(session, webhook, REFUSED)
        assert (delivery.event, delivery.status, webhook.num_failures) == (PING, FAILED, 0)

    def test_what_a_dead_sender_held_is_sent_again_and_its_late_word_is_refused(
        self, session: Session, admin: User
    ) -> None:
        webhook = make(session, admin)
        webhooks.tell(session, JOB_FAILED, {})
        lost = webhooks.claim(session, webhook.id)
        assert lost is not None
        delivery = session.get_one(WebhookDelivery, lost.delivery_id, populate_existing=True)
        assert delivery.status == RUNNING
        delivery.lease_until = utcnow() - dt.timedelta(seconds=1)
        session.flush()
        assert webhooks.due(session) == [webhook.id]
        again = webhooks.claim(session, webhook.id)
        assert again is not None
        assert again.key == lost.key
        assert not webhooks.settle(session, lost.delivery_id, lost.fence, TAKEN)
        assert webhooks.settle(session, again.delivery_id, again.fence, TAKEN)

    def test_one_is_sent_again_by_hand(self, session: Session, admin: User) -> None:
        webhook = make(session, admin)
        webhooks.tell(session, JOB_FAILED, {})
        session.flush()
        delivery = log_of(session, webhook)[0]
        with pytest.raises(Conflict, match="on its way"):
            webhooks.resend(session, admin, webhook, delivery.id)
        settle(session, webhook, TAKEN)
        webhooks.resend(session, admin, webhook, delivery.id)
        assert settle(session, webhook, TAKEN).attempts == 1
        with pytest.raises(NotFound):
            webhooks.resend(session, admin, make(session, admin), delivery.id)

    def test_the_log_is_kept_short(self, session: Session, admin: User, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(webhooks, "KEPT", 3)
        webhook = make(session, admin)
        for _ in range(6):
            webhooks.tell(session, JOB_FAILED, {})
        for _ in range(6):
            settle(session, webhook, TAKEN)
        kept = select(func.count()).where(WebhookDelivery.webhook_id == webhook.id)
        assert session.scalar(kept) == 3
        assert webhooks.count_deliveries(session) == {webhook.id: {FINISHED: 3}}


HOSTILE = "<!channel> [x](https://evil.example) **b** <@all> @all `c` " + "x" * 400
DATA = {
    CHECKPOINT_READY: {
        "checkpoint": "demo@10",
        "tokens_seen": 40_960,
        "precision": 16,
        "kind": "chat",
        "path": "/runs/demo/checkpoints/10",
    },
    SUITE_FINISHED: {
        "checkpoint": "demo@10",
        "suite": "starter",
        "num_finished": 2,
        "num_failed": 1,
        "results": [{"task": "a", "metric": "acc", "value": 0.5, "low": 0.4, "high": 0.6}] * 30,
        "path": "/runs/demo/checkpoints/10",
    },
    VERDICT_LOSS: {
        "checkpoint": "demo@20",
        "against": "demo@10",
        "losses": [{"task": "a", "metric": "acc", "value": -0.125, "low": None, "high": None}],
        "path": "/runs/demo/checkpoints/20",
    },
    JOB_FAILED: {"kind": "quantize", "checkpoint": "demo@10", "error": HOSTILE, "path": "/admin/jobs/1"},
    PING: {"webhook": "Ops"},
}


def message(format: str, event: str, language: str) -> tuple[dict[str, object], str]:
    sending = webhooks.Sending(1, 1, "key", event, DATA[event], utcnow(), URL, "s3cret", format, language)
    body = json.loads(notices.outgoing(sending, utcnow()).body)
    return body, json.dumps(body, ensure_ascii=False)


class TestMessages:
    @pytest.mark.parametrize("event", DATA)
    @pytest.mark.parametrize("format", FORMATS)
    @pytest.mark.parametrize("language", webhooks.LANGUAGES)
    def test_every_event_has_a_message_that_mentions_nobody_and_links_to_us_alone(
        self, format: str, event: str, language: str, grow_home: object, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("GROW_PUBLIC_URL", "https://grow.example.org/")
        get_settings.cache_clear()
        body, text = message(format, event, language)
        if event in (CHECKPOINT_READY, VERDICT_LOSS):
            assert "demo@" in text or "demo＠" in text
        if format == JSON:
            return
        assert f"https://grow.example.org{DATA[event].get('path', '')}" in text
        if format == SLACK:
            assert "mrkdwn" not in text
            assert "<!" not in str(body["text"])
            assert max(len(part["text"]["text"]) for part in body["blocks"] if "text" in part) <= 3_000  # type: ignore
        if format == FEISHU:
            assert body["msg_type"] == "interactive"
            assert "lark_md" not in text
            assert "markdown" not in text
        if format == WECOM:
            content = body["markdown"]["content"]  # type: ignore[index]
            assert len(content.encode()) <= 4_096
            assert content.count("](") == 1
            assert "<@" not in content

    def test_a_message_is_in_the_webhooks_language(self, grow_home: object) -> None:
        assert "新检查点：demo@10" in message(SLACK, CHECKPOINT_READY, "zh")[1]
        assert "New checkpoint: demo@10" in message(FEISHU, CHECKPOINT_READY, "en")[1]
        assert "40,960" in message(SLACK, CHECKPOINT_READY, "zh")[1]
        assert "… and 19 more" in message(SLACK, SUITE_FINISHED, "en")[1]
        assert set(notices.WORDS["en"]) == set(notices.WORDS["zh"])

    @pytest.mark.parametrize(
        ("format", "status", "response", "is_taken"),
        [
            (JSON, 200, "", True),
            (JSON, 204, "", True),
            (JSON, 302, "", False),
            (JSON, 500, "ok", False),
            (SLACK, 200, "ok", True),
            (SLACK, 403, "invalid_token", False),
            (FEISHU, 200, '{"code": 0, "msg": "success"}', True),
            (FEISHU, 200, '{"code": 19021, "msg": "sign match fail"}', False),
            (FEISHU, 200, "<html>", False),
            (FEISHU, 200, "[]", False),
            (WECOM, 200, '{"errcode": 0, "errmsg": "ok"}', True),
            (WECOM, 200, '{"errcode": 45009, "errmsg": "api freq out of limit"}', False),
            (WECOM, 200, '{"errcode": "0"}', False),
        ],
    )
    def test_whether_it_was_taken_is_read_as_the_service_says_it(
        self, format: str, status: int, response: str, is_taken: bool
    ) -> None:
        assert (notices.refusal(format, status, response) == "") is is_taken


def test_nothing_is_told_of_what_did_not_happen(session: Session, admin: User) -> None:
    webhook = make(session, admin)
    run = make_run(session)
    nested = session.begin_nested()
    make_checkpoint(session, run, 10)
    nested.rollback()  # the disk went away
    assert session.scalars(select(Checkpoint).where(Checkpoint.state == READY)).all() == []
    assert log_of(session, webhook) == []
