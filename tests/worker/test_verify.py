"""What makes a checkpoint ready, and every way in which it is refused."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from registry import checkpoints, db, evaluations, store, tickets
from registry.errors import Invalid
from registry.models.base import READY, REJECTED
from tests.factories import make_task
from worker.verify import inspect_folder, verify_checkpoint

pytestmark = pytest.mark.usefixtures("grow_home")  # what is inspected is kept there, also where no database is


def state_of(checkpoint_id: int) -> tuple[str, str]:
    with db.read_session() as session:
        found = checkpoints.get_by_id(session, checkpoint_id)
        return found.state, found.reason


def test_a_whole_checkpoint_becomes_ready_with_its_parameters_counted(publish, make_checkpoint):
    folder = make_checkpoint("verify-tied", seed=1)
    checkpoint_id = publish(folder, ready=False)
    verify_checkpoint(checkpoint_id)

    assert state_of(checkpoint_id) == (READY, "")
    with db.read_session() as session:
        counted = checkpoints.get_by_id(session, checkpoint_id).num_parameters
    assert counted == sum(tensor.numel() for tensor in load_file(folder / "model.safetensors").values())


def test_a_byte_that_changed_after_the_publication_is_noticed(publish, make_checkpoint):
    checkpoint_id = publish(make_checkpoint("verify-tied", seed=1), ready=False)
    with db.transaction() as session:
        make_task(session)
        session.flush()
        evaluations.plan(session, checkpoints.get_by_id(session, checkpoint_id))
        path = checkpoints.path(checkpoints.get_by_id(session, checkpoint_id)) / "model.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.chmod(0o600)
    path.write_bytes(content)
    verify_checkpoint(checkpoint_id)

    state, reason = state_of(checkpoint_id)
    assert state == REJECTED
    assert "model.safetensors does not have the sha256" in reason
    with db.read_session() as session:
        assert tickets.count_by_lane(session) == {}, "nobody waits for a checkpoint that will never be ready"


def test_a_judged_checkpoint_stays_judged(publish, make_checkpoint):
    checkpoint_id = publish(make_checkpoint("verify-tied", seed=1), ready=True)
    with db.transaction() as session:
        checkpoints.mark_rejected(session, checkpoints.get_by_id(session, checkpoint_id), "by hand")
    verify_checkpoint(checkpoint_id)
    assert state_of(checkpoint_id) == (REJECTED, "by hand")


def edit_config(**changes) -> Callable[[Path], None]:
    def edit(folder: Path) -> None:
        path = folder / "config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | changes))

    return edit


def edit_tensors(change: Callable[[dict[str, torch.Tensor]], object]) -> Callable[[Path], None]:
    def edit(folder: Path) -> None:
        tensors = load_file(folder / "model.safetensors")
        change(tensors)
        save_file(tensors, folder / "model.safetensors")

    return edit


def spoil_tokenizer(folder: Path) -> None:
    (folder / "tokenizer.json").write_text('{"version": "1.0", "model": "none"}')


def truncate(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])


NORM = "model.norm.weight"


@pytest.mark.parametrize(
    ("edit", "reason"),
    [
        (edit_tensors(lambda tensors: tensors.pop(NORM)), "lack the tensor model.norm.weight"),
        (edit_tensors(lambda tensors: tensors.update({NORM: torch.zeros(3)})), "has the shape"),
        (edit_tensors(lambda tensors: tensors.update(strange=torch.zeros(3))), "does not have"),
        (edit_tensors(lambda tensors: tensors[NORM].fill_(float("nan"))), "model.norm.weight holds NaN"),
        (edit_tensors(lambda tensors: tensors[NORM].fill_(float("inf"))), "NaN or infinite"),
        (edit_config(architectures=["MistralForCausalLM"]), "only LlamaForCausalLM"),
        (edit_config(vocab_size=100), "The tokenizer has the id"),
        (edit_config(vocab_size="many"), "vocab_size is 'many'"),
        (edit_config(num_hidden_layers=10**9), "num_hidden_layers"),
        (edit_config(num_hidden_layers=3), r"lack the tensor model\.layers\.2.* more"),
        (edit_config(num_attention_heads=3, num_key_value_heads=3), "config.json|has the shape"),
        (edit_config(rope_parameters={"rope_type": "no such"}), "config.json|No model can be built"),
        (spoil_tokenizer, "tokenizer does not load"),
        (truncate, "truncated"),
        (lambda folder: (folder / "config.json").unlink(), "no config.json"),
    ],
)
def test_what_is_wrong_is_said_in_one_sentence(edit, reason, make_checkpoint, tmp_path):
    folder = tmp_path / "copy"
    shutil.copytree(make_checkpoint("verify-tied", seed=1), folder)
    edit(folder)
    manifest = store.seal(folder, tmp_path / "sealed", {})
    with pytest.raises(Invalid, match=reason) as refusal:
        inspect_folder(tmp_path / "sealed", manifest.digest)
    assert "\n" not in str(refusal.value)


def test_untied_weights_are_accepted_and_counted_with_their_head(make_checkpoint, tmp_path):
    folder = tmp_path / "copy"
    shutil.copytree(make_checkpoint("verify-untied", tied=False), folder)
    tensors = load_file(folder / "model.safetensors")
    manifest = store.seal(folder, tmp_path / "sealed", {})
    assert inspect_folder(tmp_path / "sealed", manifest.digest) == sum(tensor.numel() for tensor in tensors.values())


def test_a_manifest_of_other_files_than_were_registered_is_refused(make_checkpoint, tmp_path):
    folder = tmp_path / "copy"
    shutil.copytree(make_checkpoint("verify-tied", seed=1), folder)
    store.seal(folder, tmp_path / "sealed", {})
    with pytest.raises(Invalid, match="not the one that was registered"):
        inspect_folder(tmp_path / "sealed", "0" * 64)
