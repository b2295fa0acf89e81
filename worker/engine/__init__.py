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
from worker.engine.vllm import VllmEngine

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
    if kind == "vllm":
        return VllmEngine(settings)
    if kind == "scripted":
        return ScriptedEngine()
    if kind == "transformers":
        # Imported here: torch costs seconds and a gigabyte in a process that only speaks to vLLM.
        from worker.engine.transformers import TransformersEngine  # noqa: PLC0415

        return TransformersEngine()
    raise ValueError(f"GROW_ENGINE is {kind!r}; it may be auto, vllm, transformers or scripted.")
