"""What `benchmarks.evaluation` evaluates: checkpoints of the demo's model, and tasks that lm-eval reads too."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml

from suites.english import questions
from suites.starter import heldout
from training.config import CONFIGS

CHOICES, TEXT = "bench_choices", "bench_text"
TASKS = (CHOICES, TEXT)
SOURCES = ("statutes", "shakespeare", "stdlib")
STEPS_APART, BATCH = 12, 2
READER = '''"""Items of this folder."""

import json
from pathlib import Path

from datasets import Dataset


def read(name, **_):
    lines = Path(__file__).with_name(name).read_text(encoding="utf-8").splitlines()
    return {"test": Dataset.from_list([json.loads(line) for line in lines])}
'''


def steps(folder: Path) -> list[Path]:
    """The checkpoints in a folder, by their step."""
    found = sorted(folder.absolute().glob("step-*"), key=lambda path: int(path.name[5:]))
    if not found:
        raise SystemExit(f"No step-* folders in {folder}.")
    return found


def train(scratch: Path, number: int) -> list[Path]:
    """Real checkpoints of the demo's model, evenly spaced, which have learnt a little; batches are small."""
    config = yaml.safe_load((CONFIGS / "demo.yaml").read_text())
    saved = [STEPS_APART * at for at in range(1, number + 1)]
    config |= {"max_steps": saved[-1], "batch_size": BATCH, "evaluation_sequences": BATCH}
    config |= {"checkpoints": {"first": saved, "then": []}}
    config["schedule"] |= {"warmup_steps": STEPS_APART}
    config["parallel"] |= {"micro_batch_size": BATCH, "torch_threads": 0}
    (scratch / "demo.yaml").write_text(yaml.safe_dump(config))
    environment = {key: value for key, value in os.environ.items() if not key.startswith("GROW_")}
    environment |= {"GROW_HOME": str(scratch / "training"), "HF_HUB_OFFLINE": "1"}
    for command in (["grow", "migrate"], ["training", "--config", str(scratch / "demo.yaml"), "--run", "source"]):
        done = subprocess.run([sys.executable, "-m", *command], env=environment, capture_output=True, text=True)
        if done.returncode:
            raise SystemExit(f"Training failed: {done.stdout[-1000:]}{done.stderr[-3000:]}")
    return steps(scratch / "training" / "checkpoints" / "source")


def begin_text(folder: Path) -> str:
    """The begin token's text."""
    return str(json.loads((folder / "tokenizer_config.json").read_text())["bos_token"])


def write_suite(folder: Path, num_items: int, num_bytes: int, begin: str) -> dict[str, int]:
    """Two tasks, for the worker and for lm-eval alike; how much is in them.

    The begin token stands in the questions' own text: lm-eval would put it before whole texts twice.
    """
    folder.mkdir(parents=True)
    (folder / "reader.py").write_text(READER)
    items = list(questions.hellaswag(origin="activitynet", num_items=num_items)["test"])
    texts = _texts(num_bytes)
    choice = {"doc_to_text": begin + "{{context}}", "doc_to_target": "target", "doc_to_choice": "choices"}
    accuracy = [{"metric": name, "aggregation": "mean", "higher_is_better": True} for name in ("acc", "acc_norm")]
    _write_task(folder, CHOICES, items, {"output_type": "multiple_choice", **choice, "metric_list": accuracy})
    bits = [{"metric": "bits_per_byte", "aggregation": "bits_per_byte", "higher_is_better": False}]
    text = {"doc_to_text": "", "doc_to_target": "text"}
    _write_task(folder, TEXT, texts, {"output_type": "loglikelihood_rolling", **text, "metric_list": bits})
    return {"items": len(items), "texts": len(texts), "text_bytes": sum(len(one["text"].encode()) for one in texts)}


def _write_task(folder: Path, name: str, docs: list[dict[str, Any]], fields: dict[str, Any]) -> None:
    data = folder / f"{name}.jsonl"
    data.write_text("".join(json.dumps(doc, ensure_ascii=False) + "\n" for doc in docs), encoding="utf-8")
    content = {"task": name, "dataset_kwargs": {"name": data.name}, "test_split": "test", "num_fewshot": 0, **fields}
    text = yaml.safe_dump(content | {"metadata": {"version": 1}}, allow_unicode=True)
    (folder / f"{name}.yaml").write_text(f"{text}custom_dataset: !function reader.read\n", encoding="utf-8")


def _texts(num_bytes: int) -> list[dict[str, Any]]:
    """Held-out passages as in the starter suite, of each source in turn until there is enough."""
    passages = [heldout.passages(source, num_bytes // 240, 480)["test"] for source in SOURCES]
    found: list[dict[str, Any]] = []
    for row in (row for rows in zip(*passages, strict=False) for row in rows):
        if sum(len(one["text"].encode()) for one in found) >= num_bytes:
            break
        found.append({"text": row["text"]})
    return found
