"""Copying a checkpoint over a model that stands."""

import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import LlamaForCausalLM

from worker.engine.weights import copy_weights


@pytest.mark.parametrize("tied", [True, False])
def test_the_model_then_computes_what_a_fresh_one_computes(make_checkpoint, tied):
    prefix = "tied" if tied else "untied"
    first = make_checkpoint(f"{prefix}-a", seed=1, tied=tied)
    second = make_checkpoint(f"{prefix}-b", seed=2, tied=tied)
    model = LlamaForCausalLM.from_pretrained(first, dtype=torch.bfloat16).eval()
    copy_weights(model, second)
    fresh = LlamaForCausalLM.from_pretrained(second, dtype=torch.bfloat16).eval()
    inputs = torch.arange(3, 40)[None]
    with torch.inference_mode():
        assert torch.equal(model(inputs).logits, fresh(inputs).logits)


@pytest.mark.parametrize(("change", "sentence"), [("drop", "is missing"), ("cut", "has the shape")])
def test_files_that_do_not_cover_the_model_are_refused(make_checkpoint, tmp_path, change, sentence):
    source = make_checkpoint("tied-a", seed=1)
    model = LlamaForCausalLM.from_pretrained(source)
    folder = shutil.copytree(source, tmp_path / "other")
    tensors = load_file(folder / "model.safetensors")
    tensors["model.norm.weight"] = tensors["model.norm.weight"][:8].clone()
    if change == "drop":
        del tensors["model.norm.weight"]
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(ValueError, match=rf"model\.norm\.weight {sentence}"):
        copy_weights(model, folder)
