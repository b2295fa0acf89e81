"""Deleting files by rule: killed at any point, a checkpoint is whole or retired, and the next attempt goes on."""

import os
import subprocess
import sys

import pytest

from registry import checkpoints, db, joblog, retention, runs, store
from registry.models import Checkpoint
from registry.models.base import CANCELLED, FINISHED, QUEUED, READY, RETIRED
from registry.settings import get_settings
from tests.factories import finish_evaluation, make_run, make_task
from worker import runner
from worker.retention import apply_rule

DOOMED = """
import os, shutil, signal, sys
from registry import joblog, retention
from worker import retention as work, runner

def die(*_arguments, **_options):
    os.kill(os.getpid(), signal.SIGKILL)

def die_half_way(folder):
    next(folder.iterdir()).unlink()
    die()

{patch}
runner.run_job({job}, "doomed", {{joblog.RETENTION: work.apply_rule}})
"""


@pytest.fixture
def steps(database, redis_url):
    """Three checkpoints with files and results; the rule keeps the newest alone."""
    found = {}
    with db.transaction() as session:
        run, task = make_run(session), make_task(session)
        for step in range(3):
            folder = get_settings().uploads_dir / str(step)
            folder.mkdir(parents=True)
            (folder / "tokenizer.json").write_bytes(bytes([step]) * 1000)
            (folder / "config.json").write_text(f"{step}")
            found[step] = _publish(session, run, step, folder)
            finish_evaluation(session, found[step], task, 0.5)
        retention.set_rule(
            session, run, keep_newest=1, keep_best=0, keep_milestones=True, is_scheduled=False, user=None
        )
        found[0].is_released = True
    return found


def _publish(session, run, step, folder) -> Checkpoint:
    relative = f"{run.name}/step-{step}"
    manifest = store.seal(folder, get_settings().checkpoints_dir / relative, {"tokens_seen": step})
    checkpoint = checkpoints.register(session, run, step=step, folder=relative, manifest=manifest)
    checkpoints.mark_ready(session, checkpoint, 1)
    return checkpoint


def ask(**options) -> int:
    with db.transaction() as session:
        return retention.plan(session, runs.get_run(session, "demo"), **options).id


def work(job_id: int) -> str:
    runner.run_job(job_id, "test", {joblog.RETENTION: apply_rule})
    with db.read_session() as session:
        return joblog.get_job(session, job_id).status


def state(checkpoint: Checkpoint) -> str:
    with db.read_session() as session:
        return session.get_one(Checkpoint, checkpoint.id).state


def is_whole(checkpoint: Checkpoint) -> bool:
    folder = get_settings().checkpoints_dir / checkpoint.folder
    if not (folder / store.MANIFEST).exists():
        return False
    store.verify_files(folder, store.read_manifest(folder))
    return True


def test_a_rule_takes_the_files_and_leaves_the_rest(steps):
    job_id = ask()
    assert work(job_id) == FINISHED
    assert [state(one) for one in steps.values()] == [READY, RETIRED, READY]
    assert [is_whole(one) for one in steps.values()] == [True, False, True]
    assert not (get_settings().checkpoints_dir / steps[1].folder).exists()
    with db.read_session() as session:
        gone = session.get_one(Checkpoint, steps[1].id)
        assert (gone.folder, gone.digest) == ("", steps[1].digest)
        assert "its scores stay" in gone.reason
        job = joblog.get_job(session, job_id)
        assert "Deleted the files of demo@1." in job.log
        assert "deleting" not in job.args


def test_only_what_a_dry_run_has_shown_goes(steps):
    assert work(ask(only=[steps[2].id])) == FINISHED
    assert [state(one) for one in steps.values()] == [READY] * 3


@pytest.mark.parametrize(
    ("patch", "is_retired"),
    [
        ("retention.retire = die", False),
        ("retention.delete_files = die", True),
        ("os.fsync = die", True),
        ("shutil.rmtree = die_half_way", True),
        ("retention.forget_folder = die", True),
    ],
    ids=["before", "retired", "manifest-gone", "half-deleted", "deleted"],
)
def test_a_worker_killed_at_any_point_leaves_a_whole_checkpoint_or_a_retired_one(steps, patch, is_retired):
    job_id = ask()
    killed = subprocess.run(
        [sys.executable, "-c", DOOMED.format(patch=patch, job=job_id)], env=dict(os.environ), check=False
    )
    assert killed.returncode < 0
    assert (state(steps[1]), is_whole(steps[1])) == (
        (RETIRED, patch.endswith("files = die")) if is_retired else (READY, True)
    )
    assert is_whole(steps[0])
    assert is_whole(steps[2])

    with db.transaction() as session:
        joblog.get_job(session, job_id).status = QUEUED  # as the sweep does once the lease is over
    assert work(job_id) == FINISHED
    assert state(steps[1]) == RETIRED
    assert not (get_settings().checkpoints_dir / steps[1].folder).exists()
    assert not any(is_whole(one) is False for one in (steps[0], steps[2]))


def test_a_cancelled_job_stops_before_the_next_checkpoint(steps):
    job_id = ask()
    with db.transaction() as session:
        joblog.cancel(session, joblog.get_job(session, job_id))
    assert work(job_id) == CANCELLED
    assert state(steps[1]) == READY
