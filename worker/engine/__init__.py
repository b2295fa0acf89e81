"""Engines: each holds one checkpoint on a device and answers for it."""

from importlib.util import find_spec
from pathlib import Path

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
    """The engine that the settings name: `auto` is vLLM where it is installed, with transformers beside it for scores.

    Raises:
        ValueError: no such engine, or two settings that contradict each other.
    """
    kind = settings.engine
    if kind == "auto":
        kind = "vllm" if find_spec("vllm") else "transformers"
    if kind not in ("vllm", "transformers", "scripted"):
        raise ValueError(f"GROW_ENGINE is {kind!r}; it may be auto, vllm, transformers or scripted.")
    if settings.scoring_engine not in ("auto", "vllm", "transformers"):
        raise ValueError(f"GROW_SCORING_ENGINE is {settings.scoring_engine!r}; it may be auto, vllm or transformers.")
    if kind == "scripted":
        return ScriptedEngine()
    if kind == "transformers":
        if settings.scoring_engine == "vllm":
            raise ValueError("GROW_SCORING_ENGINE is vllm, which needs GROW_ENGINE=vllm.")
        return _transformers(settings)
    if settings.scoring_engine == "vllm":
        return VllmEngine(settings)
    notes = None if settings.scoring_engine == "transformers" else settings.home / "run" / "speed"
    return _pair(VllmEngine(settings), _transformers(settings), notes)


# Imported in the functions: torch costs seconds and a gigabyte in a process that only speaks to vLLM.


def _transformers(settings: Settings) -> Engine:
    from worker.engine.transformers import TransformersEngine  # noqa: PLC0415

    return TransformersEngine(dtype=settings.scoring_dtype, threads=settings.engine_threads)


def _pair(answers: Engine, scores: Engine, notes: Path | None) -> Engine:
    from worker.engine.pair import EnginePair  # noqa: PLC0415

    return EnginePair(answers, scores, notes=notes)
