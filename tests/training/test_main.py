"""The training process as its supervisors know it: killed, stopped, started twice, one process or two."""

import json
import os
import signal
import subprocess
import time
from pathlib import Path

import pytest
import yaml

from registry import checkpoints, db, runs, store
from registry.models.base import VERIFYING
from tests.training.conftest import Start
from training import config as configs
from training import state


def losses(home: Path, run: str) -> dict[int, float]:
    """Training loss by step; of a step done twice the later."""
    found = {}
    for line in (home / "runs" / run / "metrics.jsonl").read_text().splitlines():
        if line.endswith("}"):
            entry = json.loads(line)
            if "train/loss" in entry["values"]:
                found[entry["step"]] = entry["values"]["train/loss"]
    return found


def finish(process: "subprocess.Popen[str]", expected: int = 0) -> str:
    output, _ = process.communicate(timeout=400)
    assert process.returncode == expected, output
    return output


def wait_for_step(home: Path, run: str, step: int) -> None:
    deadline = time.monotonic() + 300
    while time.monotonic() < deadline:
        if (home / "runs" / run / "metrics.jsonl").exists() and max(losses(home, run), default=0) >= step:
            return
        time.sleep(0.01)
    raise AssertionError(f"step {step} did not come")


def longer(folder: Path, max_steps: int) -> str:
    """A debug config that leaves time to hit it in the middle, with a checkpoint every 10 steps."""
    content = yaml.safe_load((configs.CONFIGS / "debug.yaml").read_text())
    content.update(max_steps=max_steps, checkpoints={"first": [0], "then": [{"steps": 10}]})
    path = folder / "longer.yaml"
    path.write_text(yaml.safe_dump(content))
    return str(path)


def status(run: str) -> str:
    with db.read_session() as session:
        return runs.get_run(session, run).status


@pytest.mark.timeout(1800)  # six starts of a training process
def test_after_kill_9_the_losses_are_those_of_a_run_nobody_killed(
    start_training: Start, database: Path, tmp_path: Path
) -> None:
    config = longer(tmp_path, 60)
    finish(start_training("--run", "whole", config=config))

    process = start_training("--run", "killed", config=config)
    wait_for_step(database, "killed", 23)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    before = losses(database, "killed")
    assert max(before) < 60, "killed too late to prove anything"
    half = database / "runs" / "killed" / "state" / state.tag(59)
    half.mkdir()
    (half / "mp_rank_00_model_states.pt").write_bytes(b"torn")

    output = finish(start_training("--run", "killed", config=config))
    assert "Going on from a saved state" in output
    assert losses(database, "killed") == losses(database, "whole"), "equal to the last bit, at every step"
    with db.read_session() as session:
        kept = runs.superseded_metrics(session, [runs.get_run(session, "killed")])
    [spans] = kept.values()
    again = {span.step: span.mean for span in spans["train/loss"]}
    assert again, "what the killed process had done after its last state"
    assert again == {step: before[step] for step in again}, "kept beside the curve"
    with db.read_session() as session:
        killed, whole = (
            checkpoints.list_checkpoints(session, runs.get_run(session, name), states=(VERIFYING,))
            for name in ("killed", "whole")
        )
    assert [checkpoint.step for checkpoint in killed] == [0, 10, 20, 30, 40, 50, 60]
    assert [checkpoint.digest for checkpoint in killed] == [checkpoint.digest for checkpoint in whole]
    for checkpoint in killed:
        folder = database / "checkpoints" / checkpoint.folder
        store.check_folder(folder)
        store.verify_files(folder, store.read_manifest(folder))

    assert status("killed") == "finished"
    output = finish(start_training("--run", "killed", config=config))
    assert "finished already" in output
    assert status("killed") == "finished"

    content = yaml.safe_load(Path(config).read_text())
    Path(config).write_text(yaml.safe_dump({**content, "seed": 8}))
    assert "another 'seed'" in finish(start_training("--run", "killed", "--steps", "70", config=config), expected=2)


def test_a_rewind_goes_another_way_under_its_own_name(start_training: Start, database: Path, tmp_path: Path) -> None:
    config = longer(tmp_path, 30)
    finish(start_training("--run", "first", config=config))
    content = yaml.safe_load(Path(config).read_text())
    Path(config).write_text(yaml.safe_dump({**content, "seed": 8}))
    output = finish(start_training("--run", "second", "--rewind", "first@10", config=config))
    assert "Going on from another run's state" in output
    first, second = losses(database, "first"), losses(database, "second")
    assert min(second) == 11
    assert second[11] != first[11], "other text"
    with db.read_session() as session:
        tree = runs.family(session, runs.get_run(session, "second"))
        steps = [c.step for c in checkpoints.list_checkpoints(session, tree[1].run, states=(VERIFYING,))]
    assert [(branch.run.name, branch.from_step, branch.superseded_after) for branch in tree] == [
        ("first", None, 10),
        ("second", 10, None),
    ]
    assert steps == [20, 30], "step 10 is the first run's"
    assert "finished already" in finish(start_training("--run", "second", config=config))
    assert "no saved state of step 11" in finish(
        start_training("--run", "third", "--branch", "first@11", config=config), expected=2
    )


def test_sigterm_saves_a_bookmark_and_the_run_waits(start_training: Start, database: Path, tmp_path: Path) -> None:
    config = longer(tmp_path, 5000)
    process = start_training("--run", "stopped", config=config)
    wait_for_step(database, "stopped", 12)
    process.send_signal(signal.SIGTERM)
    assert "the same command goes on from here" in finish(process)
    assert status("stopped") == "queued"
    last = max(losses(database, "stopped"))
    assert state.complete_steps(database / "runs" / "stopped" / "state")[-1] == last


def test_sigterm_before_the_first_step_ends_at_once(start_training: Start, database: Path) -> None:
    (database / "corpus").unlink()  # the tokenizer and the shards have to be made first
    process = start_training("--run", "early")
    assert process.stdout is not None
    while "Training the tokenizer" not in (line := process.stdout.readline()):
        assert line, "it ended by itself"
    process.send_signal(signal.SIGTERM)
    finish(process)
    assert status("early") == "queued"
    assert not (database / "runs" / "early" / "state").exists()


def test_two_processes_train_the_same_model_as_one(start_training: Start, database: Path) -> None:
    torchrun = ("-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2")
    finish(start_training("--run-name", "two", "--steps", "4", launcher=torchrun))
    finish(start_training("--run", "one", "--steps", "4"))
    assert losses(database, "two") == pytest.approx(losses(database, "one"), abs=5e-3)
    assert status("two") == "finished"


def test_a_mistake_in_the_options_is_a_sentence(start_training: Start) -> None:
    output = finish(start_training(config="gpt-5"), expected=2)
    assert "There is no training config 'gpt-5'" in output
    assert "Traceback" not in output
