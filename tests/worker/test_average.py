"""The mean of several checkpoints: its numbers, its place in the registry, and what has none."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from registry import averages, checkpoints, db, evaluations, joblog, lineage, runs, store
from registry.errors import Conflict, Invalid
from registry.models import Checkpoint
from registry.models.base import CANCELLED, FAILED, FINISHED, READY
from registry.settings import get_settings
from tests.factories import make_task
from worker import average, runner
from worker.verify import verify_checkpoint


@pytest.fixture(autouse=True)
def broker(redis_url: str) -> None:
    """Without one, each word to those who watch would wait for its retries."""


class Silent:
    """A report that nobody reads."""

    def __call__(self, line: str = "", progress: float | None = None) -> None:
        """Nothing."""

    def check(self) -> None:
        """Go on."""


def ask(last: int, until: int | None = None) -> int:
    with db.transaction() as session:
        return averages.plan(session, runs.get_run(session, "demo"), last=last, until=until).id


def done(job_id: int) -> tuple[str, str]:
    runner.run_job(job_id, "test", {joblog.AVERAGE: average.average})
    with db.read_session() as session:
        job = joblog.get_job(session, job_id)
        return job.status, job.error


def find(label: str) -> Checkpoint:
    with db.read_session() as session:
        return checkpoints.by_label(session, label)


def test_an_average_is_the_mean_of_its_parents_and_a_checkpoint_of_its_own(publish, make_checkpoint):
    folders = [make_checkpoint(f"average-{seed}", seed=seed) for seed in range(4)]
    for step, folder in enumerate(folders):
        publish(folder, step=step)
    with db.transaction() as session:
        make_task(session)
    job_id = ask(3, until=3)
    assert done(job_id) == (FINISHED, "")

    made = find("demo@3-avg3")
    verify_checkpoint(made.id)
    parts = [load_file(folder / "model.safetensors") for folder in folders[1:]]
    mean = load_file(checkpoints.path(made) / "model.safetensors")
    assert mean.keys() == parts[0].keys()
    for name, tensor in mean.items():
        torch.testing.assert_close(tensor, torch.stack([part[name] for part in parts]).mean(0))
    with db.read_session() as session:
        made = checkpoints.get_by_id(session, made.id)
        assert (made.state, made.kind, made.origin, made.tokens_seen) == (READY, "avg3", "average", 3 * 4096)
        assert [parent.step for parent, role in lineage.parents(session, made) if role == "average"] == [1, 2, 3]
        assert len(evaluations.for_checkpoint(session, made)) == 1
    assert not list(checkpoints.path(made).parent.glob(".average*"))
    with pytest.raises(Conflict, match="demo@3-avg3 is there already"):
        ask(3)


def test_an_average_that_is_made_twice_is_one_checkpoint(publish, make_checkpoint):
    for step in range(2):
        publish(make_checkpoint(f"average-{step}", seed=step), step=step)
    job_id = ask(2)
    assert done(job_id) == (FINISHED, "")
    with db.transaction() as session:
        job = joblog.get_job(session, job_id)
        job.status = "queued"  # as after a worker's death between the registration and the end of the job
    assert done(job_id) == (FINISHED, "")
    with db.read_session() as session:
        assert len(checkpoints.list_checkpoints(session, states=("verifying",), kind="avg2")) == 1


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.float64])
@pytest.mark.parametrize("elements", [2**24, 8])
def test_a_mean_is_summed_in_float32_and_written_as_its_parents_were(tmp_path, monkeypatch, dtype, elements):
    monkeypatch.setattr(average, "STRETCH_ELEMENTS", elements)
    generator = torch.Generator().manual_seed(1)
    folders, parts = [], []
    for number in range(5):
        tensors = {
            "wide": torch.randn(7, 5, generator=generator, dtype=torch.float64).to(dtype),
            "scalar": torch.randn((), generator=generator, dtype=torch.float64).to(dtype),
            "none": torch.zeros(0, 3, dtype=dtype),
            "cube": torch.randn(3, 2, 2, generator=generator, dtype=torch.float64).to(dtype),
            "whole": torch.arange(5),
        }
        folder = tmp_path / str(number)
        folder.mkdir()
        save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
        (folder / "config.json").write_text("{}")
        folders.append(folder)
        parts.append(tensors)
    (tmp_path / "out").mkdir()
    average.write_mean(folders, tmp_path / "out", Silent())
    store.check_safetensors(tmp_path / "out" / "model.safetensors")
    mean = load_file(tmp_path / "out" / "model.safetensors")
    exact = torch.float64 if dtype == torch.float64 else torch.float32
    for name in ("wide", "scalar", "none", "cube"):
        expected = torch.stack([part[name].to(exact) for part in parts]).mean(0).to(dtype)
        assert mean[name].dtype == dtype
        torch.testing.assert_close(mean[name], expected)
    assert torch.equal(mean["whole"], torch.arange(5))


def _config(folder: Path, **changes: Any) -> None:
    path = folder / "config.json"
    content = json.loads(path.read_text()) | changes
    path.unlink()  # the other step has the same content, and with it the same file
    path.write_text(json.dumps(content))


def _tensors(folder: Path, change: Any) -> None:
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors")


NORM = "model.norm.weight"


@pytest.mark.parametrize(
    ("spoil", "sentence"),
    [
        (lambda folder: _config(folder, rms_norm_eps=0.5), "differ in rms_norm_eps of config.json"),
        (lambda folder: _tensors(folder, lambda all_: all_.update({NORM: all_[NORM][:8].clone()})), "is BF16 .8. in"),
        (lambda folder: _tensors(folder, lambda all_: all_.update({NORM: all_[NORM].half()})), "is F16 .* and BF16"),
        (lambda folder: _tensors(folder, lambda all_: all_.pop(NORM)), "Only one of demo@0 and demo@1 has the tensor"),
        (lambda folder: (folder / "model.safetensors").write_bytes(b"no"), "cannot be read"),
        (lambda folder: (folder / "model.safetensors").unlink(), "holds no weights"),
    ],
)
def test_what_does_not_fit_together_is_refused_with_a_sentence(publish, make_checkpoint, spoil, sentence):
    for step in range(2):
        publish(make_checkpoint(f"average-{step}", seed=step), step=step)
    spoil(get_settings().checkpoints_dir / "demo" / "step-0-pretrained")
    status, error = done(ask(2))
    assert status == FAILED
    assert re.search(sentence, error), error
    assert sorted(path.name for path in (get_settings().checkpoints_dir / "demo").iterdir()) == [
        "step-0-pretrained",
        "step-1-pretrained",
    ]


def test_checkpoints_that_read_text_differently_are_not_averaged(publish, make_checkpoint):
    ids = [publish(make_checkpoint(f"average-{step}", seed=step), step=step) for step in range(2)]
    with db.transaction() as session:
        for number, checkpoint_id in enumerate(ids):
            checkpoints.get_by_id(session, checkpoint_id).tokenizer = f"tokenizer{number}"
    assert done(ask(2)) == (FAILED, "demo@0 and demo@1 have different tokenizers: they cannot be averaged.")


def test_a_cancelled_average_leaves_nothing_behind(publish, make_checkpoint, monkeypatch):
    for step in range(2):
        publish(make_checkpoint(f"average-{step}", seed=step), step=step)
    job_id = ask(2)
    write = average.write_mean

    def cancel_half_way(folders, destination, report):
        with db.transaction() as session:
            joblog.cancel(session, joblog.get_job(session, job_id))
        write(folders, destination, report)

    monkeypatch.setattr(average, "write_mean", cancel_half_way)
    assert done(job_id) == (CANCELLED, "")
    assert not list((get_settings().checkpoints_dir / "demo").glob("*avg*"))
    assert not list((get_settings().checkpoints_dir / "demo").glob(".average*"))


def test_a_milestone_is_averaged_by_itself_where_the_site_is_set_so(publish, make_checkpoint, monkeypatch):
    monkeypatch.setenv("GROW_AVERAGE_LAST", "2")
    get_settings.cache_clear()
    ids = [publish(make_checkpoint(f"average-{step}", seed=step), step=step, ready=False) for step in range(2)]
    for checkpoint_id in ids:
        with db.transaction() as session:
            checkpoints.get_by_id(session, checkpoint_id).is_milestone = True
        verify_checkpoint(checkpoint_id)
    with db.read_session() as session:
        [job] = joblog.list_jobs(session, kind=joblog.AVERAGE)
    assert job.args == {"last": 2, "until": 1}


def test_whole_numbers_that_differ_have_no_mean(tmp_path):
    folders = [tmp_path / "0", tmp_path / "1"]
    for number, folder in enumerate(folders):
        folder.mkdir()
        save_file({"whole": torch.tensor([number])}, folder / "model.safetensors")
    with pytest.raises(Invalid, match="whole numbers that differ"):
        average.write_mean(folders, tmp_path / "out", Silent())
