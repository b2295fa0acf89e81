"""What the names of revisions say, as the field writes them."""

import pytest

from registry import revisions
from registry.revisions import Place


@pytest.mark.parametrize(
    ("name", "place"),
    [
        ("step-8000", Place(8000)),
        ("step-8000-chat", Place(8000)),
        ("step-500-tokens2048000", Place(500, 2_048_000)),
        ("step1000", Place(1000)),  # Pythia
        ("step1000-tokens4B", Place(1000, 4_000_000_000)),  # OLMo
        ("stage1-step10000-tokens42B", Place(10_000, 42_000_000_000, 1)),  # OLMo 2
        ("stage2-ingredient3-step7000-tokens30B", Place(7000, 30_000_000_000, 2)),
        ("stage1-step-40000", Place(40_000, None, 1)),  # SmolLM3
        ("it-20000", Place(20_000)),
        ("iter_0005000", Place(5000)),  # Megatron
        ("checkpoint-500", Place(500)),  # Hugging Face's Trainer
        ("global_step1000", Place(1000)),  # DeepSpeed
        ("step-100-tokens1.5M", Place(100, 1_500_000)),
    ],
)
def test_a_name_with_a_step_gives_its_place(name: str, place: Place) -> None:
    assert revisions.parse(name) == place


@pytest.mark.parametrize(
    "name", ["main", "v1.0", "stepwise", "step", "1000", "footstep5", "step-1.5", "step-" + "9" * 30, "refs/pr/1", ""]
)
def test_other_names_name_no_step(name: str) -> None:
    assert revisions.parse(name) is None


@pytest.mark.parametrize(
    ("message", "step"),
    [
        ("Training in progress, step 500", 500),
        ("Training in progress, step 500 (part 2)", 500),
        ("Training in progress, step 12, checkpoint", 12),
        ("step=7", 7),
        ("Training in progress, epoch 3", None),
        ("End of training", None),
        ("Fix the missteps 3", None),
    ],
)
def test_a_message_may_name_a_step(message: str, step: int | None) -> None:
    assert revisions.in_message(message) == step


@pytest.mark.parametrize(("value", "number"), [(3, 3), (3.0, 3), (3.5, None), (True, None), ("3", None), (-1, None)])
def test_only_whole_numbers_count(value: object, number: int | None) -> None:
    assert revisions.whole(value) == number
