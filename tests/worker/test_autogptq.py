"""Checkpoints that AutoGPTQ wrote years ago: taken in, mended, verified; or refused with a sentence."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from registry import checkpoints, db, intake
from registry.errors import Invalid
from registry.models.base import READY, REJECTED
from registry.settings import get_settings
from tests.worker.conftest import TrainedCheckpoint
from worker.engine.protocol import ScoreRequest
from worker.engine.transformers import TransformersEngine
from worker.verify import verify_checkpoint

OLD_NAME = "gptq_model-4bit-64g.safetensors"
Tensors = dict[str, torch.Tensor]


def write_old(source: Path, folder: Path, spoil: Callable[[Tensors], None] | None = None, **changed: Any) -> Path:
    """A folder as AutoGPTQ 0.4 left it: nothing in config.json, weights of its own name, biases of zeros."""
    shutil.copytree(source, folder)
    config = json.loads((folder / "config.json").read_text())
    del config["quantization_config"]
    (folder / "config.json").write_text(json.dumps(config))
    old = {"bits": 4, "group_size": 64, "damp_percent": 0.01, "desc_act": False, "static_groups": False, "sym": True}
    old |= {"true_sequential": True, "model_name_or_path": None, "model_file_base_name": "gptq_model-4bit-64g"}
    (folder / "quantize_config.json").write_text(json.dumps(old | changed))
    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    for name in [name for name in tensors if name.endswith(".qweight")]:
        tensors[name.replace("qweight", "bias")] = torch.zeros(tensors[name].shape[1], dtype=torch.float16)
    if spoil:
        spoil(tensors)
    save_file(tensors, folder / OLD_NAME, metadata={"format": "pt"})
    return folder


def admit(folder: Path) -> int:
    return intake.admit(folder, run="elsewhere", step=5, tokens_seen=None, kind="pretrained").id


@pytest.fixture
def incoming(database: Path) -> Path:
    folder = get_settings().home / "incoming"
    folder.mkdir()
    return folder / "old"


def test_one_is_taken_in_and_computes_what_it_did(
    four_bit: Path, trained_checkpoint: TrainedCheckpoint, incoming: Path
) -> None:
    checkpoint_id = admit(write_old(four_bit, incoming))
    verify_checkpoint(checkpoint_id)

    with db.read_session() as session:
        checkpoint = checkpoints.get_by_id(session, checkpoint_id)
        assert (checkpoint.state, checkpoint.reason, checkpoint.precision) == (READY, "", 4)
        assert checkpoint.label == "elsewhere@5-4bit"
        folder = checkpoints.path(checkpoint)
    assert sorted(path.name for path in folder.glob("*.safetensors")) == ["model.safetensors"]
    requests = [ScoreRequest([0], trained_checkpoint.held_out[start : start + 60]) for start in range(0, 600, 60)]
    engine = TransformersEngine(dtype="float32", threads=1)
    engine.use(folder)
    taken_in = engine.score(requests)
    engine.use(four_bit)
    assert [one.token_logprobs for one in engine.score(requests)] == [one.token_logprobs for one in taken_in]


@pytest.mark.parametrize(
    ("changed", "sentence"),
    [({"sym": False}, "sym=false"), ({"bits": 3}, "3 bits"), ({"desc_act": True}, "act-order")],
)
def test_a_form_that_nobody_serves_is_refused_at_the_door(
    four_bit: Path, incoming: Path, changed: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(Invalid, match=sentence):
        admit(write_old(four_bit, incoming, **changed))
    assert not (get_settings().checkpoints_dir / "elsewhere").exists()


def _asymmetric(tensors: Tensors) -> None:
    tensors["model.layers.0.mlp.down_proj.qzeros"] += 1


def _out_of_order(tensors: Tensors) -> None:
    order = tensors["model.layers.1.self_attn.q_proj.g_idx"]
    tensors["model.layers.1.self_attn.q_proj.g_idx"] = order.flip(0).clone() if order.max() else 1 - order


def _with_bias(tensors: Tensors) -> None:
    tensors["model.layers.0.mlp.up_proj.bias"][3] = 0.5


def _without_scales(tensors: Tensors) -> None:
    del tensors["model.layers.0.mlp.up_proj.scales"]


def _wrong_shape(tensors: Tensors) -> None:
    tensors["model.layers.0.mlp.up_proj.qweight"] = tensors["model.layers.0.mlp.up_proj.qweight"][:-1].clone()


def _infinite(tensors: Tensors) -> None:
    tensors["model.layers.0.mlp.up_proj.scales"][0, 0] = float("inf")


@pytest.mark.parametrize(
    ("spoil", "sentence"),
    [
        (_asymmetric, "not symmetric"),
        (_out_of_order, "activation order"),
        (_with_bias, "is not zero"),
        (_without_scales, "lack the tensor"),
        (_wrong_shape, "has the shape"),
        (_infinite, "NaN or infinite"),
    ],
)
def test_weights_that_do_not_mean_what_is_written_are_rejected(
    four_bit: Path, incoming: Path, spoil: Callable[[Tensors], None], sentence: str
) -> None:
    checkpoint_id = admit(write_old(four_bit, incoming, spoil))
    verify_checkpoint(checkpoint_id)
    with db.read_session() as session:
        checkpoint = checkpoints.get_by_id(session, checkpoint_id)
        assert checkpoint.state == REJECTED
        assert sentence in checkpoint.reason
