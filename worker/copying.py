"""What a quantized folder has from the one that it was made of: all but the weights, word for word."""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from registry.store import MANIFEST

_LEFT = frozenset({MANIFEST, "config.json", "README.md"})
"""Written anew, or said of the other one."""


def copy_rest(source: Path, target: Path) -> None:
    """Tokenizer, chat template, generation settings, licence."""
    for file in sorted(source.rglob("*")):
        name = file.relative_to(source)
        if file.is_file() and name.as_posix() not in _LEFT and ".safetensors" not in name.name:
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, target / name)


def write_config(source: Path, target: Path, quantization: Mapping[str, Any]) -> None:
    """config.json with what is new about it."""
    config = json.loads((source / "config.json").read_text(encoding="utf-8"))
    text = json.dumps(config | {"quantization_config": dict(quantization)}, indent=2, sort_keys=True)
    (target / "config.json").write_text(text + "\n", encoding="utf-8")
