"""Whether a program that a model wrote passes its tests: it is run, in the sandbox, where the operator allows it."""

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

from registry.settings import get_settings
from worker.sandbox import run_python
from worker.tasks import TaskError


def humaneval(doc: Mapping[str, Any], results: Sequence[str]) -> dict[str, float]:
    """The prompt, the answer, and the function that checks them, as in OpenAI's human-eval."""
    return {"pass_at_1": _passes(f"{doc['prompt']}{results[0]}\n{doc['test']}\ncheck({doc['entry_point']})")}


def mbpp(doc: Mapping[str, Any], results: Sequence[str]) -> dict[str, float]:
    """The answer and the assertions that the prompt shows."""
    return {"pass_at_1": _passes("\n".join([results[0], doc["test_setup_code"], *doc["test_list"]]))}


def _passes(program: str) -> float:
    if not get_settings().run_code:
        raise TaskError(
            "Programs that a model wrote are not run here. Set GROW_RUN_CODE=1 where the worker starts to allow it."
        )
    return _run(program)


@lru_cache(maxsize=2048)
def _run(program: str) -> float:
    """An answer is scored with its slice and again with the whole; it is run once."""
    return float(run_python(program).passed)
