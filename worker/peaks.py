"""Telling the registry how much memory the engine of this worker has held."""

import json
from pathlib import Path

from analysis import memory
from registry import db, peaks
from registry.models import MemoryPeak
from registry.settings import get_settings
from worker.engine.peak import Peak
from worker.engine.protocol import Engine

GROWTH = 1.02
"""Smaller growth than this is not worth a row."""

_told: dict[tuple[Path, str], int] = {}
"""What this process has recorded, by checkpoint and engine."""


def record(engine: Engine) -> None:
    """Record the peaks of the checkpoints that the engine holds now, where they have grown."""
    for peak in engine.peaks():
        key = (peak.folder, peak.engine)
        if _says_something(peak) and peak.num_bytes > _told.get(key, 0) * GROWTH:
            _told[key] = peak.num_bytes
            _note(peak)


def _says_something(peak: Peak) -> bool:
    """On a processor the transformers engine is a part of this process, whose tasks take more than a small model."""
    return peak.kv_tokens > 0 and not (peak.engine == "transformers" and peak.device == "cpu")


def _note(peak: Peak) -> None:
    root = get_settings().checkpoints_dir.absolute()
    if not peak.folder.is_relative_to(root):
        return  # a folder that is no checkpoint of the site
    config = json.loads((peak.folder / "config.json").read_text())
    with db.transaction() as session:
        checkpoint = peaks.checkpoint_in(session, peak.folder.relative_to(root).as_posix())
        if checkpoint is None:
            return
        seen = MemoryPeak(
            architecture=memory.architecture_key(memory.read_shape(config), checkpoint.precision),
            engine=f"{peak.engine} {peak.version}"[:32],
            dtype=peak.dtype,
            device=peak.device,
            num_bytes=peak.num_bytes,
            kv_tokens=peak.kv_tokens,
            step_tokens=peak.step_tokens,
            checkpoint_id=checkpoint.id,
        )
        peaks.note(session, seen)
