"""One pass over a file: the hash that everybody else computes, and every number that is none."""

import hashlib
import random
from pathlib import Path

import numpy as np
import pytest

from registry import scan
from registry.tensors import Tensor

NONE = {"F64": np.float64, "F32": np.float32, "F16": np.float16}
BITS = {
    "BF16": (np.uint16, (0x7F80, 0xFF80, 0x7FC0, 0xFFFF), (0x7F7F, 0xFF7F, 0, 0x8000)),
    "F8_E5M2": (np.uint8, (0x7C, 0xFC, 0x7F), (0x7B, 0xFB, 0x80)),
    "F8_E4M3": (np.uint8, (0x7F, 0xFF), (0x7E, 0xFE, 0x80)),
    "I8": (np.uint8, (), (0x7F, 0xFF, 0x80)),
}


def draw_tensor(draw: random.Random, dtype: str) -> tuple[bytes, bool]:
    """Some numbers, the largest that are finite among them, and whether one of them is not."""
    count, is_bad = draw.randrange(20), False
    if dtype in NONE:
        numbers = np.array([draw.choice([-1, 1]) * np.finfo(NONE[dtype]).max for _ in range(count)], NONE[dtype])
        if count and draw.random() < 0.3:
            numbers[draw.randrange(count)] = draw.choice([np.nan, -np.nan, np.inf, -np.inf])
            is_bad = True
        return numbers.tobytes(), is_bad
    kind, bad, good = BITS[dtype]
    bits = np.array([draw.choice(good) for _ in range(count)], kind)
    if count and bad and draw.random() < 0.3:
        bits[draw.randrange(count)] = draw.choice(bad)
        is_bad = True
    return bits.tobytes(), is_bad


@pytest.mark.parametrize("chunk", [8, 13, 64])
def test_every_format_is_read_whatever_the_pieces_and_places(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, chunk: int
) -> None:
    monkeypatch.setattr(scan, "CHUNK_BYTES", chunk)
    draw = random.Random(chunk)
    for trial in range(100):
        content, tensors, first = draw.randbytes(draw.randrange(40)), {}, ""
        for number in range(draw.randrange(1, 6)):
            dtype = draw.choice([*NONE, *BITS])
            own, is_bad = draw_tensor(draw, dtype)
            tensors[str(number)] = Tensor(dtype, (len(own),), len(content), len(content) + len(own))
            content += own
            first = first or (str(number) if is_bad else "")
        path = tmp_path / f"{trial}.bin"
        path.write_bytes(content)
        assert scan.read_through(path, tensors) == (hashlib.sha256(content).hexdigest(), first)
