"""What a folder says of its own quantization: taken in, mended, or refused with a sentence."""

import json
from pathlib import Path
from typing import Any

import pytest

from registry import quantized
from registry.errors import Invalid
from registry.quantized import Quantization

CONFIG = {"hidden_size": 256, "intermediate_size": 704, "num_attention_heads": 4, "num_key_value_heads": 2}
OLD = {
    "bits": 4,
    "group_size": 128,
    "damp_percent": 0.01,
    "desc_act": False,
    "static_groups": False,
    "sym": True,
    "true_sequential": True,
    "model_name_or_path": None,
    "model_file_base_name": "gptq_model-4bit-128g",
}
"""`quantize_config.json` as AutoGPTQ 0.4 wrote it."""
INT8 = {"num_bits": 8, "type": "int", "symmetric": True}
W8A8: dict[str, Any] = {
    "quant_method": "compressed-tensors",
    "format": "int-quantized",
    "ignore": ["lm_head"],
    "config_groups": {
        "group_0": {
            "targets": ["Linear"],
            "weights": {**INT8, "strategy": "channel", "dynamic": False},
            "input_activations": {**INT8, "strategy": "token", "dynamic": True},
        }
    },
}


def write(folder: Path, config: object, old: object = None) -> Path:
    (folder / "config.json").write_text(json.dumps(config))
    if old is not None:
        (folder / "quantize_config.json").write_text(json.dumps(old))
    return folder


def test_a_folder_without_a_word_of_it_has_sixteen_bits(tmp_path: Path) -> None:
    assert quantized.read(write(tmp_path, CONFIG)) is None
    assert quantized.precision_of(tmp_path) == 16


def test_eight_bit_in_compressed_tensors_form_is_known(tmp_path: Path) -> None:
    assert quantized.read(write(tmp_path, {**CONFIG, "quantization_config": W8A8})) == Quantization("w8a8", 8)


def test_what_autogptq_wrote_is_mended_once(tmp_path: Path) -> None:
    write(tmp_path, CONFIG, OLD)
    (tmp_path / "gptq_model-4bit-128g.safetensors").write_bytes(b"weights")
    hashes = {"config.json": "a", "gptq_model-4bit-128g.safetensors": "b", "quantize_config.json": "c"}
    assert quantized.read(tmp_path) == Quantization("gptq", 4, 128, zero=7)

    known = quantized.normalize(tmp_path, hashes)

    assert known == {"model.safetensors": "b", "quantize_config.json": "c"}, "of what was rewritten no hash is believed"
    content = json.loads((tmp_path / "config.json").read_text())
    assert content["quantization_config"] == {
        "quant_method": "gptq",
        "checkpoint_format": "gptq",
        "bits": 4,
        "group_size": 128,
        "desc_act": False,
        "sym": True,
        "lm_head": False,
        "damp_percent": 0.01,
        "true_sequential": True,
    }
    assert (tmp_path / "model.safetensors").read_bytes() == b"weights"
    assert quantized.normalize(tmp_path) == {}
    assert json.loads((tmp_path / "config.json").read_text()) == content


def test_a_folder_in_sixteen_bits_is_left_as_it_is(tmp_path: Path) -> None:
    before = write(tmp_path, CONFIG).joinpath("config.json").read_bytes()
    assert quantized.normalize(tmp_path, {"config.json": "a"}) == {"config.json": "a"}
    assert (tmp_path / "config.json").read_bytes() == before


@pytest.mark.parametrize(
    ("changed", "sentence"),
    [
        ({"sym": False}, "sym=false"),
        ({"bits": 3}, "3 bits"),
        ({"bits": 8}, "8 bits"),
        ({"bits": True}, "True bits"),
        ({"bits": "4"}, "only 4"),
        ({"desc_act": True}, "desc_act"),
        ({"group_size": 1024}, "1024"),
        ({"group_size": 0}, "group of 0"),
        ({"lm_head": True}, "lm_head"),
        ({"dynamic": {"-:.*": {}}}, "dynamic"),
        ({"checkpoint_format": "marlin"}, "marlin"),
        ({"quant_method": "awq"}, "'awq'"),
        ({"quant_method": "x" * 500}, "is not served"),
    ],
)
def test_forms_that_no_kernel_serves_are_refused(tmp_path: Path, changed: dict[str, Any], sentence: str) -> None:
    with pytest.raises(Invalid, match=sentence) as found:
        quantized.precision_of(write(tmp_path, CONFIG, {**OLD, **changed}))
    assert len(str(found.value)) < 300


@pytest.mark.parametrize(
    "content",
    [
        [],
        {"quant_method": "bitsandbytes"},
        {**W8A8, "format": "pack-quantized"},
        {**W8A8, "ignore": []},
        {**W8A8, "kv_cache_scheme": {"num_bits": 8}},
        {**W8A8, "config_groups": {}},
        {**W8A8, "config_groups": [1]},
        {**W8A8, "config_groups": {**W8A8["config_groups"], "group_1": W8A8["config_groups"]["group_0"]}},
    ],
)
def test_other_quantizations_are_refused(tmp_path: Path, content: object) -> None:
    with pytest.raises(Invalid):
        quantized.precision_of(write(tmp_path, {**CONFIG, "quantization_config": content}))


@pytest.mark.parametrize("text", ["[]", "{", "", '"x"', "\udc00"])
def test_a_file_that_is_no_object_is_a_sentence(tmp_path: Path, text: str) -> None:
    write(tmp_path, CONFIG)
    (tmp_path / "quantize_config.json").write_bytes(text.encode(errors="surrogatepass"))
    with pytest.raises(Invalid, match=r"quantize_config\.json"):
        quantized.normalize(tmp_path)


def test_groups_are_as_large_as_every_layer_allows() -> None:
    assert quantized.choose_group_size(CONFIG) == 64
    assert quantized.choose_group_size({**CONFIG, "intermediate_size": 1408}) == 128
    assert quantized.choose_group_size({**CONFIG, "intermediate_size": 672}) == 32
    with pytest.raises(Invalid, match="intermediate_size is 700"):
        quantized.choose_group_size({**CONFIG, "intermediate_size": 700})
    with pytest.raises(Invalid, match="how wide"):
        quantized.choose_group_size({})


def test_the_tensors_that_a_form_must_have() -> None:
    plain = {"model.embed_tokens.weight": (512, 256), "model.layers.0.mlp.down_proj.weight": (256, 704)}
    four = quantized.expected_tensors(plain, Quantization("gptq", 4, 64))
    assert {name: shape for name, (shape, _) in four.items()} == {
        "model.embed_tokens.weight": (512, 256),
        "model.layers.0.mlp.down_proj.qweight": (88, 256),
        "model.layers.0.mlp.down_proj.qzeros": (11, 32),
        "model.layers.0.mlp.down_proj.scales": (11, 256),
        "model.layers.0.mlp.down_proj.g_idx": (704,),
    }
    assert quantized.expected_tensors(plain, Quantization("gptq", 4))["model.layers.0.mlp.down_proj.scales"][0] == (
        1,
        256,
    )
    eight = quantized.expected_tensors(plain, Quantization("w8a8", 8))
    assert eight["model.layers.0.mlp.down_proj.weight_scale"][0] == (256, 1)
    assert quantized.optional_tensors(plain, Quantization("gptq", 4)) == {"model.layers.0.mlp.down_proj.bias"}
