"""Shapes and random starts."""

import dataclasses

import pytest
import torch

from training import config as configs
from training.config import Config
from training.loop import build_model
from training.model import count_parameters, randomize, training_flops


def test_the_large_config_is_llama_13b_to_the_parameter() -> None:
    model = build_model(configs.load("atomgpt-13b"), meta=True)
    assert {parameter.device.type for parameter in model.parameters()} == {"meta"}
    assert sum(parameter.numel() for parameter in model.parameters()) == 13_015_864_320


def test_the_demo_has_between_five_and_ten_million_parameters() -> None:
    assert 5_000_000 < count_parameters(configs.load("demo")) < 10_000_000


def test_every_dimension_of_the_demo_can_be_quantized() -> None:
    model = build_model(configs.load("demo"), meta=True)
    sizes = {size for parameter in model.parameters() for size in parameter.shape}
    assert all(size % 32 == 0 for size in sizes)


def test_tied_embeddings_are_one_parameter(debug: Config) -> None:
    model = build_model(debug)
    assert model.lm_head.weight is model.model.embed_tokens.weight
    untied = dataclasses.replace(debug, model=dataclasses.replace(debug.model, tie_embeddings=False))
    shape = debug.model
    assert count_parameters(untied) - count_parameters(debug) == shape.vocab_size * shape.hidden_size


def test_the_start_follows_from_the_seed_alone(debug: Config) -> None:
    one, same, other = build_model(debug), build_model(debug), build_model(debug)
    torch.manual_seed(1)
    randomize(one, debug)
    torch.manual_seed(2)
    randomize(same, debug)
    randomize(other, dataclasses.replace(debug, seed=debug.seed + 1))
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), same.parameters(), strict=True))
    assert not torch.equal(one.lm_head.weight, other.lm_head.weight)


def test_the_start_predicts_nothing_yet(debug: Config) -> None:
    model = build_model(debug)
    randomize(model, debug)
    tokens = torch.arange(64)[None]
    loss = model(input_ids=tokens, labels=tokens).loss.item()
    assert loss == pytest.approx(torch.log(torch.tensor(float(debug.model.vocab_size))).item(), abs=0.15)


def test_flops_are_six_a_parameter_and_token() -> None:
    assert training_flops(13_015_864_320, 10**12) == pytest.approx(7.8095e22, rel=1e-4)
