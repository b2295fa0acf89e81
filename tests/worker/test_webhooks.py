"""Webhooks over a real line: a receiver that is another process and checks signatures by its own reckoning."""

import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select

from registry import db, events, jobs, webhooks
from registry.errors import Invalid
from registry.models import User, Webhook, WebhookDelivery
from registry.models.base import FAILED, FINISHED, QUEUED
from registry.settings import get_settings
from tests.conftest import free_port
from worker import jobs as worker_jobs
from worker import outgoing
from worker.webhooks import deliver

RECEIVER = Path(__file__).with_name("receiver.py")


class Receiver:
    """The other process: answers as it is told, and writes down what it was sent."""

    def __init__(self, folder: Path) -> None:
        self.port, self._file = free_port(), folder / "received.jsonl"
        self._process: subprocess.Popen[str] | None = None

    def start(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, str(RECEIVER), str(self.port), str(self._file)], stdout=subprocess.PIPE, text=True
        )
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == "ready\n"

    def stop(self) -> None:
        if self._process is not None:
            self._process.terminate()
            self._process.wait(timeout=10)
            assert self._process.stdout is not None
            self._process.stdout.close()
            self._process = None

    def address(self, behaviour: str, host: str = "127.0.0.1") -> str:
        return f"http://{host}:{self.port}/{behaviour}"

    def received(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self._file.read_text().splitlines()] if self._file.exists() else []


@pytest.fixture
def receiver(tmp_path: Path) -> Iterator[Receiver]:
    made = Receiver(tmp_path)
    made.start()
    yield made
    made.stop()


@pytest.fixture
def site(database: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A site whose webhooks may go to this machine."""
    monkeypatch.setenv("GROW_WEBHOOK_PRIVATE_ADDRESSES", "true")
    get_settings.cache_clear()
    with db.transaction() as session:
        session.add(User(name="keeper", name_key="keeper", password_hash="none", role="admin"))
    return database


def make(url: str, format: str = webhooks.JSON, secret: str = "") -> tuple[int, str]:
    """A webhook's id, and its secret."""
    with db.transaction() as session:
        admin = session.scalars(select(User)).one()
        made = webhooks.make(session, admin, name="Ops", url=url, format=format, events=webhooks.EVENTS, secret=secret)
        return made.webhook.id, made.secret


def tell(**data: Any) -> None:
    with db.transaction() as session:
        webhooks.tell(session, webhooks.JOB_FAILED, {"kind": "average", "error": "No.", **data})


def go_on(webhook_id: int) -> None:
    """The pause after a failure is over."""
    with db.transaction() as session:
        webhooks.get_webhook(session, webhook_id).retry_at = None
    deliver(webhook_id)


def log_of(webhook_id: int) -> list[WebhookDelivery]:
    with db.read_session() as session:
        return list(reversed(webhooks.list_deliveries(session, webhooks.get_webhook(session, webhook_id))))


def test_what_happens_arrives_signed_once_and_in_order(site: Path, receiver: Receiver) -> None:
    webhook_id, secret = make(receiver.address("ok"))
    for number in range(3):
        tell(number=number)
    deliver(webhook_id)
    got = receiver.received()
    assert [one["body"]["data"]["number"] for one in got] == [0, 1, 2]
    assert len({one["headers"]["x-grow-delivery"] for one in got}) == 3
    for one in got:
        assert one["headers"]["x-grow-event"] == "job.failed"
        assert one["headers"]["x-grow-delivery"] == one["body"]["id"]
    assert receiver_says_it_is_signed(receiver, secret) == [True, True, True]
    assert receiver_says_it_is_signed(receiver, "another secret") == [False, False, False]
    assert [(one.status, one.response_status) for one in log_of(webhook_id)] == [(FINISHED, 200)] * 3


def receiver_says_it_is_signed(receiver: Receiver, secret: str) -> list[bool]:
    """The receiver's own reckoning with openssl, which shares no code with ours."""
    found = []
    for one in receiver.received():
        text = f"{one['headers']['x-grow-timestamp']}.".encode() + one["raw"].encode()
        told = subprocess.run(
            ["openssl", "dgst", "-sha256", "-hmac", secret], input=text, capture_output=True, check=True
        ).stdout.decode()
        found.append(one["headers"]["x-grow-signature-256"] == "sha256=" + told.split()[-1])
    return found


def test_feishus_signature_is_the_one_of_its_manual(site: Path, receiver: Receiver) -> None:
    webhook_id, _ = make(receiver.address("feishu"), webhooks.FEISHU, "a secret of Feishu")
    tell()
    deliver(webhook_id)
    [one] = receiver.received()
    key = f"{one['body']['timestamp']}\na secret of Feishu"
    digest = subprocess.run(
        ["openssl", "dgst", "-sha256", "-hmac", key, "-binary"], input=b"", capture_output=True, check=True
    ).stdout
    in_base64 = subprocess.run(["openssl", "base64", "-A"], input=digest, capture_output=True, check=True).stdout
    assert one["body"]["sign"] == in_base64.decode()
    assert log_of(webhook_id)[0].status == FINISHED


def test_a_service_that_refuses_with_200_is_heard(site: Path, receiver: Receiver) -> None:
    webhook_id, _ = make(receiver.address("wecom-refuses"), webhooks.WECOM)
    tell()
    deliver(webhook_id)
    [delivery] = log_of(webhook_id)
    assert (delivery.status, delivery.response_status) == (QUEUED, 200)
    assert "93000" in delivery.error
    assert "invalid webhook url" in delivery.response_start


def test_a_receiver_that_was_down_gets_everything_when_it_is_back(site: Path, receiver: Receiver) -> None:
    webhook_id, secret = make(receiver.address("ok"))
    receiver.stop()
    tell(number=0)
    tell(number=1)
    deliver(webhook_id)
    first, second = log_of(webhook_id)
    assert (first.status, first.attempts, second.attempts) == (QUEUED, 1, 0)  # the second waits behind the first
    assert "cannot be reached" in first.error
    deliver(webhook_id)
    assert log_of(webhook_id)[0].attempts == 1  # not before its pause is over
    receiver.start()
    go_on(webhook_id)
    assert [one["body"]["data"]["number"] for one in receiver.received()] == [0, 1]
    assert receiver_says_it_is_signed(receiver, secret) == [True, True]
    assert [(one.status, one.error) for one in log_of(webhook_id)] == [(FINISHED, ""), (FINISHED, "")]


@pytest.mark.parametrize(
    ("behaviour", "status", "said"),
    [
        ("error", 500, "answered 500"),
        ("redirect", 302, "Redirects are not followed"),
        ("slow", None, "did not answer within"),
        ("drip", None, "did not answer within"),
        ("hang-up", None, "cannot be reached"),
        ("nonsense", None, "cannot be reached"),
    ],
)
def test_a_receiver_that_does_not_take_it_is_asked_again(
    site: Path, receiver: Receiver, behaviour: str, status: int | None, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outgoing.post, "__kwdefaults__", {"seconds": 1.0})
    webhook_id, _ = make(receiver.address(behaviour))
    tell()
    deliver(webhook_id)
    [delivery] = log_of(webhook_id)
    assert (delivery.status, delivery.response_status) == (QUEUED, status)
    assert said in delivery.error
    assert len(receiver.received()) == 1  # where it pointed to was not asked
    go_on(webhook_id)
    [again] = log_of(webhook_id)
    assert (again.attempts, again.key) == (2, delivery.key)


def test_a_long_answer_is_not_read_to_its_end(site: Path, receiver: Receiver) -> None:
    webhook_id, _ = make(receiver.address("endless"))
    tell()
    deliver(webhook_id)
    [delivery] = log_of(webhook_id)
    assert delivery.status == FINISHED
    assert len(delivery.response_start) == webhooks.MAX_RESPONSE_CHARS


class TestPlaces:
    @pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "127.1", "2130706433", "0x7f000001", "[::1]"])
    def test_this_machine_is_refused_however_it_is_written(
        self, database: Path, receiver: Receiver, host: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with pytest.raises(Invalid, match="private network"):
            outgoing.post(f"https://{host}:{receiver.port}/ok", b"{}", {})
        assert receiver.received() == []

    def test_a_name_is_looked_up_once_and_the_judged_address_is_the_one_that_is_used(
        self, database: Path, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A name server that says something public first, and this machine when asked again."""
        answers = iter(["203.0.113.7", "127.0.0.1"])
        asked, connected = [], []

        def look_up(host: str, port: int, **_: Any) -> list[Any]:
            asked.append(host)
            return [(2, 1, 6, "", (next(answers), port))]

        def connect(address: tuple[str, int], *_: Any, **__: Any) -> Any:
            connected.append(address[0])
            raise ConnectionRefusedError("nobody listens")

        monkeypatch.setattr(outgoing.socket, "getaddrinfo", look_up)
        monkeypatch.setattr(outgoing.socket, "create_connection", connect)
        monkeypatch.setattr(webhooks, "check_address", lambda address: None)  # 203.0.113.0/24 is for documents
        with pytest.raises(Invalid, match="cannot be reached"):
            outgoing.post("https://rebinding.example/ok", b"{}", {})
        assert (asked, connected) == (["rebinding.example"], ["203.0.113.7"])

    def test_one_private_address_among_public_ones_is_enough_to_refuse(
        self, database: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        found = [(2, 1, 6, "", ("93.184.215.14", 443)), (2, 1, 6, "", ("10.0.0.5", 443))]
        monkeypatch.setattr(outgoing.socket, "getaddrinfo", lambda *_, **__: found)
        with pytest.raises(Invalid, match="private network"):
            outgoing.post("https://mixed.example/ok", b"{}", {})

    def test_a_certificate_of_somebody_else_is_refused(self, site: Path, receiver: Receiver) -> None:
        with pytest.raises(Invalid, match="cannot be reached"):
            outgoing.post(f"https://127.0.0.1:{receiver.port}/ok", b"{}", {})


def test_the_sweep_sends_what_lost_its_message(
    site: Path, receiver: Receiver, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GROW_WEBHOOK_PRIVATE_ADDRESSES", "true")
    get_settings.cache_clear()
    webhook_id, _ = make(receiver.address("ok"))
    tell()
    events.client().flushall()  # the message is gone
    worker_jobs.sweep()
    waiting = [json.loads(one)["headers"] for one in events.client().lrange("cpu", 0, -1)]
    assert [(one["task"], one["argsrepr"]) for one in waiting] == [(jobs.DELIVER, f"({webhook_id},)")]


def test_two_senders_at_once_send_nothing_twice(site: Path, receiver: Receiver) -> None:
    webhook_id, _ = make(receiver.address("ok"))
    for number in range(8):
        tell(number=number)
    threads = [threading.Thread(target=deliver, args=(webhook_id,)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    deliver(webhook_id)
    assert [one["body"]["data"]["number"] for one in receiver.received()] == list(range(8))


def test_a_ping_that_fails_is_not_repeated(site: Path, receiver: Receiver) -> None:
    webhook_id, _ = make(receiver.address("error"))
    with db.transaction() as session:
        webhooks.ping(session, session.get_one(Webhook, webhook_id))
    deliver(webhook_id)
    [delivery] = log_of(webhook_id)
    assert (delivery.status, delivery.attempts) == (FAILED, 1)
