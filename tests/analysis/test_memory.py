"""Memory from a config.json, against sums that were done by hand."""

from typing import Any

import pytest

from analysis import memory
from analysis.memory import Load, Shape

LLAMA_13B = {
    "vocab_size": 32_000,
    "hidden_size": 5_120,
    "intermediate_size": 13_824,
    "num_hidden_layers": 40,
    "num_attention_heads": 40,
    "max_position_embeddings": 2_048,
    "tie_word_embeddings": False,
}
SMALL = Shape(
    vocab_size=100,
    hidden_size=8,
    intermediate_size=16,
    num_layers=2,
    num_heads=4,
    num_kv_heads=2,
    head_width=2,
    context_length=64,
    is_tied=True,
)


def test_the_parameters_of_llama_13b_are_those_of_its_paper() -> None:
    assert memory.read_shape(LLAMA_13B).num_parameters == 13_015_864_320


def test_sixteen_bit_weights_are_two_bytes_each_and_one_token_of_13b_keeps_800_kib() -> None:
    shape = memory.read_shape(LLAMA_13B)
    assert memory.weight_bytes(shape, 16) == 2 * 13_015_864_320
    assert memory.kv_bytes_per_token(shape) == 2 * 40 * 5_120 * 2


def test_grouped_heads_and_a_tied_head_are_counted_once() -> None:
    block = 8 * 8 + 2 * 8 * 4 + 8 * 8 + 3 * 8 * 16
    assert SMALL.num_linear == 2 * block
    assert SMALL.num_other == 100 * 8 + 8 + 2 * 2 * 8
    assert memory.kv_bytes_per_token(SMALL) == 2 * 2 * 2 * 2 * 2


def test_quantized_linear_layers_carry_scales_and_leave_the_rest_as_it_is() -> None:
    outputs = 8 + 4 + 4 + 8 + 16 + 16 + 8
    inputs = 8 + 8 + 8 + 8 + 8 + 8 + 16
    rest = 2 * SMALL.num_other
    assert memory.weight_bytes(SMALL, 8) == SMALL.num_linear + 2 * 2 * outputs + rest
    assert (
        memory.weight_bytes(SMALL, 4, group_size=-1) == SMALL.num_linear / 2 + 2 * (2.5 * outputs + 4 * inputs) + rest
    )
    with pytest.raises(ValueError, match="3 bit"):
        memory.weight_bytes(SMALL, 3)


def test_smaller_groups_cost_more_and_fewer_bits_less() -> None:
    shape = memory.read_shape(LLAMA_13B)
    sizes = [memory.weight_bytes(shape, 4, group_size=size) for size in (32, 128)]
    sizes += [memory.weight_bytes(shape, bits) for bits in (8, 16)]
    assert sizes[1] < sizes[0] < sizes[2] < sizes[3]
    assert 6.5e9 < sizes[1] < 7.5e9  # "at least 12 GB" of the original page held it with room to spare


def test_the_cache_grows_with_context_and_answers_and_the_sum_is_the_sum() -> None:
    shape = memory.read_shape(LLAMA_13B)
    one = memory.estimate(shape, 16, Load(2_048), engine=1e9)
    many = memory.estimate(shape, 16, Load(2_048, batch=16), engine=1e9)
    twice = memory.estimate(shape, 16, Load(2_048, kv_copies=2.0), engine=1e9)
    assert many.kv_cache == 16 * one.kv_cache
    assert twice.kv_cache == 2 * one.kv_cache
    assert one.total == one.weights + one.kv_cache + one.activations + 1e9


def test_activations_stop_growing_where_the_engine_reads_in_steps() -> None:
    long, longer = (memory.activation_bytes(SMALL, Load(context, step_tokens=128)) for context in (128, 4_096))
    assert long == longer


def test_two_checkpoints_of_one_shape_share_a_key_and_a_precision_has_its_own() -> None:
    keys = {memory.architecture_key(memory.read_shape(LLAMA_13B), bits) for bits in (16, 16, 4)}
    assert len(keys) == 2
    assert memory.architecture_key(SMALL, 16) not in keys


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("hidden_size", None),
        ("vocab_size", -1),
        ("num_hidden_layers", "40"),
        ("intermediate_size", True),
        ("head_dim", 0.5),
    ],
)
def test_a_config_that_says_no_number_is_refused_by_its_name(name: str, value: Any) -> None:
    with pytest.raises(ValueError, match=name):
        memory.read_shape({**LLAMA_13B, name: value})
