"""How fast engines score here: measured once for a machine and an architecture, and kept in a small file.

The choice must not change by itself later: another engine is another protocol, and a new line on
every chart. So the first measurement counts, for every worker that shares the folder.
"""

import hashlib
import json
import os
import platform
import random
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import structlog
import torch

from worker.engine.protocol import Engine, EngineDown, EngineError, ScoreRequest
from worker.engine.shape import ModelShape

NUM_ITEMS, NUM_GPU_ITEMS = 12, 128
"""Items of the sample: seconds of work on a processor, and enough to fill a GPU."""
NUM_CHOICES = 4
NUM_WARM = 2
_MODEL_FIELDS = ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "vocab_size")

log = structlog.get_logger(__name__)


def faster(engines: Sequence[Engine], folder: Path, shape: ModelShape, notes: Path) -> Engine:
    """The engine that scores this architecture in less time; the figures are kept in the folder `notes`.

    Raises:
        EngineDown: an engine died while it was measured; nothing was kept.
        EngineError: none of them can score it.
    """
    note = notes / f"{_key(engines, shape)}.json"
    if not note.exists():
        seconds = {engine.name: _measure(engine, folder, shape) for engine in engines}
        _keep(note, {"machine": machine(), "seconds": seconds})
    seconds = json.loads(note.read_text())["seconds"]
    able = [engine for engine in engines if seconds[engine.name] is not None]
    if not able:
        raise EngineError(f"No engine can score {folder.name}; the worker's log has the reasons.")
    return min(able, key=lambda engine: seconds[engine.name])


def machine() -> str:
    """The device in words; equal machines share a measurement."""
    if torch.cuda.is_available():
        return f"{torch.cuda.device_count()} × {torch.cuda.get_device_name()}"
    return f"{os.cpu_count()} × {_processor()}"


def sample_requests(shape: ModelShape) -> list[ScoreRequest]:
    """Items with a context and a few choices, of usual lengths; the same ones each time."""
    num_items = NUM_GPU_ITEMS if torch.cuda.is_available() else NUM_ITEMS
    draw = random.Random(0)
    vocabulary, room = int(shape.config["vocab_size"]), shape.context_length
    requests = []
    for _ in range(num_items):
        context = [draw.randrange(vocabulary) for _ in range(min(draw.randrange(40, 200), room // 2))]
        for _ in range(NUM_CHOICES):
            length = min(draw.randrange(4, 30), room // 4)
            requests.append(ScoreRequest(context, [draw.randrange(vocabulary) for _ in range(length)]))
    return requests


def _measure(engine: Engine, folder: Path, shape: ModelShape) -> float | None:
    """Seconds for the sample, without loading; None where the engine cannot do it."""
    requests = sample_requests(shape)
    try:
        engine.use(folder)
        engine.score(requests[: NUM_WARM * NUM_CHOICES])
        started = time.perf_counter()
        engine.score(requests)
        seconds = time.perf_counter() - started
    except EngineDown:
        raise
    except EngineError as error:
        log.warning("This engine cannot score here.", engine=engine.name, reason=str(error))
        return None
    log.info("Measured how fast an engine scores.", engine=engine.name, seconds=round(seconds, 3))
    return seconds


def _key(engines: Sequence[Engine], shape: ModelShape) -> str:
    """Another version of an engine is another protocol anyway, so it may be measured anew."""
    versions = [f"{engine.name} {engine.version} {engine.dtype}" for engine in engines]
    sizes = [shape.config.get(name) for name in _MODEL_FIELDS]
    return hashlib.sha256(json.dumps([machine(), versions, sizes]).encode()).hexdigest()[:16]


def _keep(note: Path, figures: dict[str, object]) -> None:
    """Whole or not at all, and never over what another worker has kept meanwhile."""
    note.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile("w", dir=note.parent) as file:
        json.dump(figures, file, indent=1)
        file.flush()
        try:
            os.link(file.name, note)
        except FileExistsError:
            log.info("Another worker has measured this already.", machine=figures["machine"])


def _processor() -> str:
    """The model of the processor where the kernel says it, else its kind."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    models = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(models, platform.machine())
