"""Trainers elsewhere push with the programs they have: real clients, each a process, before a real server."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
from sqlalchemy import select

from registry import accounts, checkpoints, db, joblog, keys, runs
from registry.hubimport import Wanted
from registry.models import Checkpoint
from registry.models.base import FINISHED, READY, VERIFYING
from registry.settings import get_settings
from tests.browser.tiny import write_folder
from tests.conftest import ROOT, free_port, migrate
from tests.flows.conftest import wait_for
from worker.importhub import import_hub
from worker.runner import run_job
from worker.verify import verify_checkpoint

pytestmark = pytest.mark.flow
CLIENTS = Path(__file__).parent


@dataclass
class Site:
    """A server, and what a client of it needs."""

    address: str
    home: Path
    environment: dict[str, str]

    def run(self, *command: str, **more: str) -> "subprocess.CompletedProcess[str]":
        """A program of somebody's."""
        done = subprocess.run(
            [sys.executable, *command],
            cwd=ROOT,
            env=self.environment | more,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """The server alone: what a worker would verify is verified here."""
    home, port = tmp_path_factory.mktemp("hub-home"), free_port()
    address = f"http://127.0.0.1:{port}"
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith(("GROW_", "HF_"))]:
            patch.delenv(name)
        patch.setenv("GROW_HOME", str(home))
        patch.setenv("GROW_REDIS_URL", "redis://127.0.0.1:1/0")  # nobody listens there
        get_settings.cache_clear()
        migrate(db.current_engine())
        with db.transaction() as session:
            user = accounts.register(session, "anna", "correct horse", role="publisher")
            session.flush()
            token = keys.make(session, user, "trainer", [keys.PUSH]).token
        client = {"HF_ENDPOINT": address, "HF_TOKEN": token, "HF_HOME": str(home / "client")}
        environment = {**os.environ, **client, "GROW_PORT": str(port), "PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "0"}
        with (home / "server.log").open("wb") as log:
            server = subprocess.Popen(
                [sys.executable, "-m", "server"], cwd=ROOT, env=environment, stdout=log, stderr=log
            )
        try:
            wait_for(lambda: _answers(address), 180, (home / "server.log").read_text)
            yield Site(address, home, environment)
        finally:
            server.terminate()
            server.wait(30)
            get_settings.cache_clear()


def _answers(address: str) -> bool:
    try:
        return httpx.get(f"{address}/healthz", timeout=1).is_success
    except httpx.TransportError:
        return False


def of_run(name: str) -> dict[str, Checkpoint]:
    """The checkpoints of a run by their labels, each verified as a worker does."""
    with db.read_session() as session:
        known = select(Checkpoint).where(Checkpoint.run_id == runs.get_run(session, name).id)
        for checkpoint in session.scalars(known.where(Checkpoint.state == VERIFYING)):
            verify_checkpoint(checkpoint.id)
    with db.read_session() as session:
        return {one.label: one for one in session.scalars(known.order_by(Checkpoint.step))}


@pytest.mark.parametrize("xet", ["0", "1"])
def test_the_client_as_it_comes_and_without_xet(site: Site, tmp_path: Path, xet: str) -> None:
    folder, other = write_folder(tmp_path / "a", 10 + int(xet)), write_folder(tmp_path / "b", 20 + int(xet))
    (folder / "training_args.bin").write_bytes(b"\x80\x04pickle")
    name = f"tour-{xet}"
    done = site.run(str(CLIENTS / "hub_tour.py"), str(folder), str(other), name, HF_HUB_DISABLE_XET=xet)
    assert "Not kept by this site" in done.stderr
    assert "training_args.bin" in done.stderr
    found = of_run(name)
    assert {label: one.state for label, one in found.items()} == {f"{name}@100": READY, f"{name}@200": READY}
    for label, source in ((f"{name}@100", folder), (f"{name}@200", other)):
        weights = checkpoints.path(found[label]) / "model.safetensors"
        assert weights.read_bytes() == (source / "model.safetensors").read_bytes()
    assert list((site.home / "hub" / "xet").glob("*/*.json"))  # by the first of the two


def test_the_trainer_pushes_by_itself_and_by_our_callback(site: Site, tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "model", 30)
    nowhere = f"http://127.0.0.1:{free_port()}"
    done = site.run(str(CLIENTS / "hub_trainer.py"), str(folder), str(tmp_path / "out"), "trained", nowhere)
    assert "Not everything was sent" in done.stderr
    assert {label: one.state for label, one in of_run("trained").items()} == {"trained@2": READY, "trained@4": READY}
    called = of_run("trained-callback")
    assert [(one.step, one.tokens_seen, one.state) for one in called.values()] == [(2, 64, READY), (4, 128, READY)]
    with db.read_session() as session:
        losses = runs.metric_series(session, runs.get_run(session, "trained-callback"), "train/loss")
        assert [(point.step, point.tokens_seen) for point in losses] == [(1, 32), (2, 64), (3, 96), (4, 128)]


def test_a_watched_folder_is_pushed_once_and_imported_by_another_site(site: Site, tmp_path: Path) -> None:
    for step in (500, 1000):
        folder = write_folder(tmp_path / "out" / f"checkpoint-{step}", step)
        (folder / "optimizer.pt").write_bytes(b"\x80\x04pickle")
        (folder / "trainer_state.json").write_text(json.dumps({"num_input_tokens_seen": step * 4096}))
    write_folder(tmp_path / "out" / "checkpoint-1500", 1500)
    weights = tmp_path / "out" / "checkpoint-1500" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-10])  # the trainer is still writing it
    command = ["-m", "grow", "watch", str(tmp_path / "out"), "--run", "watched", "--site", site.address]
    first = site.run(*command, "--once", "--settle", "0.5").stdout
    assert "checkpoint-500: pushed as watched@500" in first
    assert "checkpoint-1000: pushed as watched@1000" in first
    assert "1500" not in first
    assert "pushed" not in site.run(*command, "--once", "--settle", "0.5").stdout
    found = of_run("watched")
    assert [(one.step, one.tokens_seen, one.state) for one in found.values()] == [
        (500, 500 * 4096, READY),
        (1000, 1000 * 4096, READY),
    ]
    options = ["import-hub", "watched", "--endpoint", site.address, "--run", "copied"]
    listed = site.run("-m", "grow", *options, "--dry-run").stdout
    assert "copied@1000" in listed
    assert "would be imported" in listed
    said = site.run("-m", "grow", *options).stdout
    assert "queued as job" in said
    with db.read_session() as session:
        job = joblog.list_jobs(session, kind=joblog.IMPORT_HUB)[0]
        assert Wanted(**job.args).run == "copied"
    run_job(job.id, "test", {joblog.IMPORT_HUB: import_hub})
    with db.read_session() as session:
        ended = joblog.get_job(session, job.id)
        assert (ended.status, ended.error) == (FINISHED, ""), ended.log
    copied = of_run("copied")
    assert {one.digest for one in copied.values()} == {one.digest for one in found.values()}
    assert {(one.origin, one.state) for one in copied.values()} == {("import-hub", READY)}
    with db.transaction() as session:
        again = joblog.plan(session, joblog.IMPORT_HUB, args=job.args)
    run_job(again.id, "test", {joblog.IMPORT_HUB: import_hub})
    with db.read_session() as session:
        assert joblog.get_job(session, again.id).log.count("here already") == 2
