"""Engines: each holds one checkpoint on a device and answers for it."""

from importlib.util import find_spec

from registry.settings import Settings
from worker.engine.protocol import (
    Delta,
    Engine,
    EngineDown,
    EngineError,
    Generation,
    Sampling,
    Score,
    ScoreRequest,
)
from worker.engine.scripted import ScriptedEngine

__all__ = [
    "Delta",
    "Engine",
    "EngineDown",
    "EngineError",
    "Generation",
    "Sampling",
    "Score",
    "ScoreRequest",
    "make_engine",
]


def make_engine(settings: Settings) -> Engine:
    """The engine that `GROW_ENGINE` names; `auto` is vLLM where it is installed, else transformers."""
    kind = settings.engine
    if kind == "auto":
        kind = "vllm" if find_spec("vllm") else "transformers"
    if kind == "scripted":
        return ScriptedEngine()
    raise ValueError(f"GROW_ENGINE is {kind!r}; it may be auto, vllm, transformers or scripted.")
