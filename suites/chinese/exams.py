"""Examinations in a folder of the site's own: C-Eval, CMMLU and the single-choice questions of GAOKAO-Bench.

C-Eval and CMMLU are asked as lm-eval asks them with `--num_fewshot 5`, to the character; the prompt is made
here because lm-eval draws its examples from one subject a task, and 119 tasks would be 119 lines on the chart.
"""

import csv
import json
import re
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path
from typing import Any

import lm_eval
import yaml
from datasets import Dataset

from corpora.draw import rank
from corpora.local import find_benchmark

LETTERS = "ABCD"
NUM_SHOTS = 5
SUBJECTS = {
    "English": "英语",
    "Biology": "生物",
    "Chemistry": "化学",
    "Chinese": "语文",
    "Geography": "地理",
    "History": "历史",
    "Math": "数学",
    "Physics": "物理",
    "Political": "政治",
}
"""First words of GAOKAO-Bench's file names."""
GAOKAO_FILE = re.compile(r"\d{4}-\d{4}_([A-Za-z]+)_")
"""The folder also holds the answers of other models, whose files begin with the model's name."""


def ceval(num_items: int | None = None, **_metadata: Any) -> dict[str, Dataset]:
    """The validation questions of 52 subjects, each after its subject's five `dev` questions."""
    folder = find_benchmark("ceval")
    return _table(_subjects(folder, "val"), _subjects(folder, "dev"), "ceval/ceval-valid_{}", num_items)


def cmmlu(num_items: int | None = None, **_metadata: Any) -> dict[str, Dataset]:
    """The test questions of 67 subjects, each after its subject's five `dev` questions."""
    folder = find_benchmark("cmmlu")
    return _table(_subjects(folder, "test"), _subjects(folder, "dev"), "cmmlu/cmmlu_{}", num_items)


def gaokao(num_items: int | None = None, **_metadata: Any) -> dict[str, Dataset]:
    """The questions with one question and one right letter; no examples, as the benchmark asks them."""
    items = []
    for file in sorted(find_benchmark("gaokao").rglob("Objective_Questions/*.json")):
        named = GAOKAO_FILE.match(file.name)
        if named is not None:
            subject = SUBJECTS.get(named[1], named[1])
            for row in json.loads(file.read_text(encoding="utf-8"))["example"]:
                if len(row["answer"]) == 1 and row["answer"][0] in tuple(LETTERS):
                    prompt = f"请你做一道{subject}选择题。\n{row['question'].strip()}\n答案："
                    items.append(_item(prompt, row["answer"][0], subject))
    if not items:
        raise FileNotFoundError("The folder 'gaokao' must hold Objective_Questions/*.json of GAOKAO-Bench.")
    return _first(items, num_items)


def _table(
    asked: dict[str, list[dict[str, str]]], shown: dict[str, list[dict[str, str]]], library: str, num_items: int | None
) -> dict[str, Dataset]:
    items = []
    for subject, rows in asked.items():
        shots = [f"{_question(row)} {row['answer']}\n\n" for row in shown.get(subject, [])[:NUM_SHOTS]]
        if len(shots) < NUM_SHOTS:
            raise FileNotFoundError(f"The five examples of the subject '{subject}' are missing: dev/*.csv.")
        head = _description(library.format(subject)) + "".join(shots)
        items += [_item(head + _question(row), row["answer"], subject) for row in rows]
    return _first(items, num_items)


def _question(row: dict[str, str]) -> str:
    options = "\n".join(f"{letter}. {row[letter]}" for letter in LETTERS)
    return f"{row['question'].strip()}\n{options}\n答案："


def _item(prompt: str, answer: str, subject: str) -> dict[str, Any]:
    return {"prompt": prompt, "choices": list(LETTERS), "target": LETTERS.index(answer), "subject": subject}


def _first(items: list[dict[str, Any]], num_items: int | None) -> dict[str, Dataset]:
    """Different questions: all, or a part of them drawn by their content."""
    unique = list({item["prompt"]: item for item in reversed(items)}.values())[::-1]
    chosen = sorted(unique, key=lambda item: rank("exam", item["prompt"]))[:num_items] if num_items else unique
    return {"test": Dataset.from_list(chosen)}


def _subjects(folder: Path, split: str) -> dict[str, list[dict[str, str]]]:
    """The rows of every CSV in the folder of a split, wherever under `folder` it is, by subject.

    Raises:
        FileNotFoundError: there is none.
    """
    found = {file.stem.removesuffix(f"_{split}"): _rows(file) for file in sorted(folder.rglob(f"{split}/*.csv"))}
    if not found:
        raise FileNotFoundError(f"The folder '{folder.name}' must hold {split}/*.csv, one file a subject.")
    return found


def _rows(file: Path) -> list[dict[str, str]]:
    """Rows with an answer; C-Eval and CMMLU differ in the case of their column names."""
    with file.open(encoding="utf-8-sig", newline="") as text:
        rows: Iterable[dict[str, str]] = list(csv.DictReader(text))
    named = [{(key if key in LETTERS else key.lower()): value for key, value in row.items() if key} for row in rows]
    return [row for row in named if row.get("answer", "") in tuple(LETTERS)]


@lru_cache
def _description(task: str) -> str:
    """lm-eval's own sentence before the questions of a subject; it names the subject in Chinese."""
    file = Path(lm_eval.__file__).parent / "tasks" / f"{task}.yaml"
    if not file.exists():
        raise FileNotFoundError(f"lm-eval knows no subject '{file.stem}'.")
    return str(yaml.safe_load(file.read_text(encoding="utf-8"))["description"])
