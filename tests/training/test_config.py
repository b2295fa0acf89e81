"""Reading and checking the config of a run."""

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import yaml

from training import config as configs

NAMES = ["demo", "debug", "atomgpt-13b"]


def plain(name: str = "debug") -> dict[str, Any]:
    content: dict[str, Any] = yaml.safe_load((configs.CONFIGS / f"{name}.yaml").read_text())
    return content


@pytest.mark.parametrize("name", NAMES)
def test_every_config_loads(name: str) -> None:
    assert configs.load(name).name == name


def test_a_config_loads_from_a_file_of_ones_own(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump({**plain(), "seed": 99}))
    assert configs.load(str(tmp_path / "mine.yaml")).seed == 99


def test_an_unknown_config_is_answered_with_the_known_ones() -> None:
    with pytest.raises(ValueError, match="atomgpt-13b, debug, demo"):
        configs.load("gpt-5")


def test_an_unknown_key_is_named_with_its_place() -> None:
    content = plain()
    content["model"]["num_experts"] = 8
    with pytest.raises(ValueError, match=r"Unknown key 'model\.num_experts'"):
        configs.from_dict(content)


def test_a_missing_key_is_named() -> None:
    content = plain()
    del content["optimizer"]["learning_rate"]
    with pytest.raises(ValueError, match=r"'optimizer\.learning_rate' is missing"):
        configs.from_dict(content)


@pytest.mark.parametrize(
    ("section", "key", "value", "message"),
    [
        ("model", "hidden_size", "64", "of the type int"),
        ("model", "tie_embeddings", 1, "of the type bool"),
        ("model", "num_heads", 5, "multiple of model.num_heads"),
        ("parallel", "zero_stage", 4, "zero_stage must be"),
        ("schedule", "kind", "linear", "wsd"),
        ("corpus", "mixture", {"zh": 0.0}, "above 0"),
        ("corpus", "sources", "statutes", "must be a list"),
        ("checkpoints", "then", [{"steps": 0}], "above 0"),
    ],
)
def test_a_value_that_cannot_work_is_refused(section: str, key: str, value: object, message: str) -> None:
    content = plain()
    content[section][key] = value
    with pytest.raises(ValueError, match=message):
        configs.from_dict(content)


@pytest.mark.parametrize("content", [None, [], "text"])
def test_a_config_that_is_no_mapping_is_refused(content: object) -> None:
    with pytest.raises(ValueError, match="must be a mapping"):
        configs.from_dict(content)


def test_the_demo_publishes_often_at_first_then_seldom() -> None:
    config = configs.load("demo")
    steps = [step for step in range(config.max_steps + 1) if config.is_checkpoint_step(step)]
    assert steps[:14] == [0, 8, 16, 32, 64, 128, 256, 384, 512, 640, 768, 896, 1024, 1280]
    assert steps[-1] == config.max_steps


def test_the_last_step_is_published_wherever_it_falls() -> None:
    config = dataclasses.replace(configs.load("demo"), max_steps=777)
    assert config.is_checkpoint_step(777)
    assert not config.is_checkpoint_step(776)


def test_the_large_config_fills_its_eighty_gpus() -> None:
    config = configs.load("atomgpt-13b")
    gpus = config.parallel.num_nodes * config.parallel.gpus_per_node
    assert gpus == 80
    assert config.batch_size % (gpus * config.parallel.micro_batch_size) == 0
