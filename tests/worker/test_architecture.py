"""The tensors that config.json asks for are those that transformers makes of it."""

import itertools
from typing import Any

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from registry import architecture

CHOICES = itertools.product((True, False), (True, False), (None, 32), (2, 4))


@pytest.mark.parametrize(("tied", "biased", "head", "key_heads"), CHOICES)
def test_names_shapes_and_count_agree_with_transformers(
    tied: bool, biased: bool, head: int | None, key_heads: int
) -> None:
    sizes: dict[str, Any] = {"vocab_size": 320, "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2}
    sizes |= {"num_attention_heads": 4, "num_key_value_heads": key_heads, "max_position_embeddings": 64}
    sizes |= {"tie_word_embeddings": tied, "attention_bias": biased, "mlp_bias": not biased}
    config = LlamaConfig(**sizes, **({"head_dim": head} if head else {}))
    with torch.device("meta"):
        model = LlamaForCausalLM(config)
    expected = architecture.expected_tensors(config.to_dict())
    assert {name: tensor.shape for name, tensor in expected.items()} == {
        name: tuple(tensor.shape) for name, tensor in model.state_dict().items()
    }
    assert {name for name, tensor in expected.items() if tensor.is_optional} == ({"lm_head.weight"} if tied else set())
    assert architecture.num_parameters(config.to_dict()) == sum(one.numel() for one in model.parameters())
