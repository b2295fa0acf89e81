"""The job that makes 8- and 4-bit checkpoints, with the real libraries on a tiny model that has learnt a little."""

import json
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import LlamaForCausalLM

from registry import checkpoints, db, evaluations, joblog, quantizations, quantized, quantloss, store, tickets
from registry.errors import Invalid
from registry.models import Checkpoint, CheckpointParent, Evaluation, Job, Ticket
from registry.models.base import FAILED, FINISHED, READY
from registry.settings import get_settings
from tests.conftest import ROOT
from tests.factories import make_task
from tests.worker.conftest import Publish, TrainedCheckpoint
from tests.worker.own_suite import OwnSuite, questions
from worker import quantcheck, runner
from worker.engine.packed import load_quantized, tensors_of
from worker.engine.tokenizer import tokenizer_digest
from worker.engine.transformers import TransformersEngine
from worker.jobs import compare, work_on
from worker.quantize import _run, quantize
from worker.quantizing import Request
from worker.runner import Cancelled
from worker.verify import verify_checkpoint
from worker.w8a8 import write_w8a8


@pytest.fixture(scope="module")
def eight_bit(trained_checkpoint: TrainedCheckpoint, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("eight") / "made"
    write_w8a8(trained_checkpoint.folder, folder)
    return folder


def run_job(checkpoint_id: int, bits: int) -> Job:
    with db.transaction() as session:
        job_id = quantizations.plan(session, checkpoints.get_by_id(session, checkpoint_id), bits).id
    runner.run_job(job_id, "test", {joblog.QUANTIZE: quantize})
    with db.read_session() as session:
        return joblog.get_job(session, job_id)


def form_of(bits: int) -> Checkpoint | None:
    with db.read_session() as session:
        return next((one for one in session.query(Checkpoint) if one.precision == bits), None)


@pytest.mark.parametrize("bits", [4, 8])
def test_a_checkpoint_is_made_in_fewer_bits_and_verified_like_any_other(
    bits: int, trained_checkpoint: TrainedCheckpoint, publish: Publish, monkeypatch: pytest.MonkeyPatch
) -> None:
    parent_id = publish(trained_checkpoint.folder, step=120)

    job = run_job(parent_id, bits)
    assert not (ROOT / "logs").exists(), "what GPTQModel writes beside it goes with the job's folder"

    assert (job.status, job.error, job.progress) == (FINISHED, "", 1.0)
    form = form_of(bits)
    assert form is not None
    verify_checkpoint(form.id)
    with db.read_session() as session:
        form, parent = checkpoints.get_by_id(session, form.id), checkpoints.get_by_id(session, parent_id)
        assert (form.state, form.reason, form.label) == (READY, "", f"demo@120-{bits}bit")
        assert (form.origin, form.tokens_seen) == ("quantization", parent.tokens_seen)
        [link] = session.query(CheckpointParent)
        assert (link.child_id, link.parent_id, link.role) == (form.id, parent_id, "quantization")
        made, check = form.derivation, form.derivation["check"]
        assert made["bits"] == bits
        assert made["seconds"] > 0
        assert 0 < check["before"] < 6
        assert abs(check["after"] - check["before"]) < 0.1
        assert {ticket.lane for ticket in session.query(Ticket).filter(Ticket.checkpoint_id == form.id)} <= {
            tickets.QUANTIZATION
        }
        folder, source = checkpoints.path(form), checkpoints.path(parent)
    assert quantized.precision_of(folder) == bits
    assert tokenizer_digest(folder) == tokenizer_digest(source)
    assert sum(file.stat().st_size for file in folder.glob("*.safetensors")) < sum(
        file.stat().st_size for file in source.glob("*.safetensors")
    )
    assert list((get_settings().home / "quantizing").iterdir()) == []
    if bits == 4:
        assert (folder / "quantize_config.json").is_file()
        assert made["group_size"] == 64
        assert made["calibration"]["tokens"] > 1000
        assert made["versions"]["gptqmodel"]


def test_what_comes_out_broken_is_a_failed_job_and_no_checkpoint(
    trained_checkpoint: TrainedCheckpoint, publish: Publish, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(quantizations.MAX_LOSS, 8, -1.0)  # nothing is that good

    job = run_job(publish(trained_checkpoint.folder), 8)

    assert job.status == FAILED
    assert "broken and is not offered" in job.error
    assert form_of(8) is None
    assert not list(get_settings().checkpoints_dir.glob("demo/*8bit*"))
    with db.read_session() as session:
        [form] = quantizations.forms(session, checkpoints.list_checkpoints(session)[0])
        assert (form.checkpoint, form.job and form.job.status) == (None, FAILED)


Tensors = dict[str, torch.Tensor]


def _shuffle_scales(tensors: Tensors) -> None:
    tensors |= {name: scale.flip(0) * 3 for name, scale in tensors.items() if name.endswith("_scale")}


def _no_number(tensors: Tensors) -> None:
    tensors["model.layers.1.mlp.down_proj.weight_scale"].fill_(float("nan"))


def _lose_scale(tensors: Tensors) -> None:
    del tensors["model.layers.0.mlp.up_proj.weight_scale"]


BREAKS: dict[Callable[[Tensors], None], str] = {
    _shuffle_scales: "broken and is not offered",
    _no_number: "no finite log-probabilities",
    _lose_scale: "does not load",
}


@pytest.mark.parametrize("spoil", BREAKS)
def test_a_broken_model_is_told_from_a_whole_one(
    spoil: Callable[[Tensors], None], eight_bit: Path, trained_checkpoint: TrainedCheckpoint, tmp_path: Path
) -> None:
    folder = tmp_path / "broken"
    shutil.copytree(eight_bit, folder)
    tensors = load_file(folder / "model.safetensors")
    spoil(tensors)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    checks = [trained_checkpoint.held_out[start : start + 100] for start in range(0, 1000, 100)]

    found = quantcheck.compare(trained_checkpoint.folder, folder, checks)

    assert BREAKS[spoil] in found.why_broken(quantizations.MAX_LOSS[8])
    whole = quantcheck.compare(trained_checkpoint.folder, eight_bit, checks)
    assert whole.why_broken(quantizations.MAX_LOSS[8]) == ""


def test_eight_bit_computes_what_the_library_computes(eight_bit: Path) -> None:
    quantization = quantized.read(eight_bit)
    assert quantization is not None
    token_ids = torch.arange(3, 67)[None]

    own = load_quantized(eight_bit, quantization, torch.float32)(token_ids).logits.log_softmax(-1)
    library = LlamaForCausalLM.from_pretrained(eight_bit, dtype=torch.float32)(token_ids).logits.log_softmax(-1)

    # The library scales activations by 127.5, vLLM's kernel and ours by 127: half a step of the rounding.
    assert float((own - library).abs().mean()) < 0.02
    assert float((own - library).abs().max()) < 0.1
    plain = tensors_of(eight_bit)["model.embed_tokens.weight"]()
    assert plain.dtype == torch.bfloat16


class _Report:
    """A report whose job is cancelled at the third look."""

    def __init__(self, looks: int) -> None:
        self.looks = looks

    def __call__(self, line: str = "", progress: float | None = None) -> None:
        self.check()

    def check(self) -> None:
        self.looks -= 1
        if self.looks < 0:
            raise Cancelled


def test_cancelling_ends_the_process_and_all_that_it_started(tmp_path: Path, grow_home: Path) -> None:
    request = {"source": str(tmp_path), "target": str(tmp_path / "made"), "bits": 4, "group_size": 64}

    with pytest.raises(Cancelled):
        _run(request | {"shares": {}, "max_loss": 1.0}, tmp_path, _Report(2))  # type: ignore[arg-type]

    def left() -> list[psutil.Process]:
        return [one for one in psutil.process_iter(["cmdline"]) if str(tmp_path) in " ".join(one.info["cmdline"] or [])]

    deadline = time.monotonic() + 30  # one that was killed may take a moment to be gone
    while left() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not left()


def test_a_process_that_takes_too_long_or_dies_is_a_sentence(
    tmp_path: Path, grow_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(Invalid, match="Quantizing failed: TypeError"):
        _run({"nonsense": 1}, tmp_path, _Report(10_000))  # type: ignore[arg-type]
    monkeypatch.setenv("GROW_QUANTIZE_TIMEOUT_SECONDS", "0.1")
    get_settings.cache_clear()
    with pytest.raises(Invalid, match="longer than 0 seconds"):
        _run({"nonsense": 1}, tmp_path, _Report(10_000))  # type: ignore[arg-type]


def test_the_request_names_nothing_but_files(tmp_path: Path) -> None:
    with pytest.raises(TypeError):
        Request(**json.loads('{"source": "x", "command": "y"}'))


def test_a_form_answers_the_panel_and_its_loss_is_taken_question_by_question(
    own_suite: OwnSuite, eight_bit: Path, trained_checkpoint: TrainedCheckpoint, publish: Publish
) -> None:
    name = own_suite.write("own_choices", questions(12))
    parent_id = publish(trained_checkpoint.folder, step=120)
    with db.transaction() as session:
        make_task(session, name, schedule="panel")
        parent = checkpoints.get_by_id(session, parent_id)
        evaluations.plan(session, parent)
        folder, scratch = quantizations.folder_of(parent, 8), get_settings().home / "made"
        shutil.copytree(eight_bit, scratch)
        manifest = store.seal(scratch, get_settings().checkpoints_dir / folder, parent.manifest["facts"])
        details = {"folder": folder, "manifest": manifest, "derivation": {}, "user_id": None}
        form_id = quantizations.keep(session, parent, 8, **details).id
    verify_checkpoint(form_id)
    engine = TransformersEngine(threads=1)

    for _ in range(2):
        with db.transaction() as session:
            claim = tickets.claim(session, "test")
        assert claim is not None
        work_on(claim, engine)

    with db.read_session() as session:
        finished = [evaluation.id for evaluation in session.query(Evaluation).filter_by(status=FINISHED)]
    assert len(finished) == 2
    for evaluation_id in finished:
        compare(evaluation_id)
    with db.read_session() as session:
        loss = quantloss.of_checkpoint(session, checkpoints.get_by_id(session, form_id))
        assert loss is not None
        [one] = loss.tasks
        assert (one.n, one.is_paired) == (12, True)
        assert loss.averages["share"].num_tasks == 1
