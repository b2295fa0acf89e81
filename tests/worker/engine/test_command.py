"""How the vLLM child is started."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from worker.engine.command import (
    MIN_KV_BYTES,
    check_servable,
    child_command,
    child_environment,
    extra_arguments,
    kv_bytes,
)
from worker.engine.protocol import EngineError
from worker.engine.shape import ModelShape, read_shape


def test_the_child_listens_on_a_socket_only_and_keeps_one_served_name(make_checkpoint):
    folder = make_checkpoint("tied-a", seed=1)
    command = child_command("python", folder, Path("/run/engine"), read_shape(folder))
    assert command[:3] == ["python", "-m", "vllm.entrypoints.openai.api_server"]
    assert command[command.index("--uds") + 1] == "/run/engine"
    assert command[command.index("--served-model-name") + 1] == "current"
    assert "--port" not in command
    assert command[command.index("--max-model-len") + 1] == "130"


def test_the_vocabulary_is_computed_in_fp32_unless_the_model_is_quantized(make_checkpoint):
    folder = make_checkpoint("tied-a", seed=1)
    shape = read_shape(folder)

    def overrides(shape: ModelShape) -> dict[str, object]:
        command = child_command("python", folder, Path("/run/engine"), shape)
        return json.loads(command[command.index("--hf-overrides") + 1])

    assert overrides(shape) == {"head_dtype": "float32", "max_position_embeddings": 130}
    quantized = replace(shape, config={**shape.config, "quantization_config": {"bits": 4}})
    assert overrides(quantized) == {"max_position_embeddings": 130}


def test_its_environment_is_offline_and_limits_the_threads():
    environment = child_environment({"PATH": "/bin", "PYTHONPATH": "/mine"}, threads=1)
    assert environment["HF_HUB_OFFLINE"] == "1"
    assert environment["OMP_NUM_THREADS"] == "1"
    assert environment["PYTHONPATH"].endswith(":/mine")
    assert "OMP_NUM_THREADS" not in child_environment({"PATH": "/bin"}, threads=0)


def test_operators_add_arguments_through_the_environment():
    assert extra_arguments({"GROW_VLLM_ARGS": "--tensor-parallel-size 2"}) == ["--tensor-parallel-size", "2"]
    assert extra_arguments({}) == []


def test_a_small_model_gets_a_small_cache(make_checkpoint):
    assert kv_bytes(read_shape(make_checkpoint("tied-a", seed=1)), 130) == MIN_KV_BYTES


def test_heads_without_a_kernel_are_refused_before_a_child_is_started(make_checkpoint):
    shape = read_shape(make_checkpoint("tied-a", seed=1))
    check_servable(shape)
    with pytest.raises(EngineError, match="heads are 16 wide"):
        check_servable(replace(shape, config={**shape.config, "head_dim": 16}))
