"""vLLM serves what the worker quantizes, and computes what the engine that scores it computes."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from safetensors.torch import load_file, save_file

from registry.settings import Settings
from tests.worker.conftest import TrainedCheckpoint
from worker import fingerprint
from worker.engine.protocol import Sampling
from worker.engine.transformers import TransformersEngine
from worker.engine.vllm import VllmEngine
from worker.w8a8 import write_w8a8

pytestmark = pytest.mark.engine

NATS = {4: 0.03, 8: 0.1}
"""Largest difference of a string's mean log-probability between the engines; both round activations at 8 bit."""


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[VllmEngine]:
    engine = VllmEngine(Settings(home=tmp_path_factory.mktemp("home"), engine_threads=1))
    yield engine
    engine.close()


@pytest.fixture(scope="module")
def forms(
    four_bit: Path, trained_checkpoint: TrainedCheckpoint, tmp_path_factory: pytest.TempPathFactory
) -> dict[int, Path]:
    eight = tmp_path_factory.mktemp("eight") / "made"
    write_w8a8(trained_checkpoint.folder, eight)
    return {4: four_bit, 8: eight}


@pytest.mark.parametrize("bits", [4, 8])
def test_it_answers_and_scores_as_transformers_does(bits: int, engine: VllmEngine, forms: dict[int, Path]) -> None:
    starts = engine.num_starts

    engine.use(forms[bits])

    assert engine.num_starts == starts + 1, "another quantization needs another engine process"
    served = np.array(fingerprint.take(engine, forms[bits]))
    reference = TransformersEngine(dtype="bfloat16", threads=1)
    reference.use(forms[bits])
    assert float(np.abs(served - np.array(fingerprint.take(reference, forms[bits]))).max()) < NATS[bits]
    [answer] = engine.generate([[0, 5, 6]], Sampling(max_tokens=4))
    assert answer.completion_tokens > 0
    pieces = list(engine.stream([0, 5, 6], Sampling(max_tokens=4)))
    assert "".join(piece.text for piece in pieces) == answer.text


def test_kernels_that_compute_something_else_than_the_files_say_are_found_out(
    engine: VllmEngine, forms: dict[int, Path], tmp_path: Path
) -> None:
    engine.use(forms[8])
    spoilt = tmp_path / "spoilt"
    spoilt.mkdir()
    for file in forms[8].iterdir():
        (spoilt / file.name).write_bytes(file.read_bytes())
    tensors = load_file(spoilt / "model.safetensors")
    tensors["model.layers.1.mlp.down_proj.weight_scale"] *= 1.5
    save_file(tensors, spoilt / "model.safetensors", metadata={"format": "pt"})

    [report] = engine._call("check_checkpoint", str(spoilt))

    assert report["differs"] == ["down_proj"]
    assert "down_proj" in engine._call("check_checkpoint", str(forms[8]))[0]["checked"]
